# SPDX-License-Identifier: MIT
"""What is called with odd arguments: the public callables of vitcore and its command line.

``python tests/fuzzing.py --calls 5000 --seed 1`` lists the errors that reach the caller raw, by
room, callable, argument and place; ``--only train`` keeps to one room or callable.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_calls import Odd, Target, fuzz, not_one_sentence, report
from PIL import Image
from torch import Tensor

import vitcore
from vitcore import augment, data, recipes, records, training
from vitcore.__main__ import main as command_line
from vitcore.attention import attention_weights, explicit_attention
from vitcore.stems import ConvStem

SMALL: dict[str, Any] = {
    "image_size": 8, "patch_size": 4, "in_channels": 3, "num_classes": 5, "dim": 8, "depth": 1,
    "heads": 2, "mlp_ratio": 2.0,
}  # fmt: skip
TRAIN: dict[str, Any] = {"epochs": 1, "batch_size": 4, "lr": 1e-3}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)

# A thousand is a fair depth, and 2**31 epochs are a fair wish: neither is for a test to wait for.
LARGE = ("1000", "2147483648", "18446744073709551616", "1" + "0" * 30)
# What can be called, but gives something else: what fails then is the caller's own.
OTHER_CALLABLE = ("a Linear", "<class 'int'>", "<class 'torch.nn.modules.linear.Linear'>")


def images(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (drawn * 255).to(dtype) if dtype == torch.uint8 else drawn.to(dtype)


def labels(count: int = 2) -> Tensor:
    return torch.arange(count) % 5


def model(**options: Any) -> vitcore.ViT:
    return vitcore.ViT(**{**SMALL, **options})


def split(count: int = 8) -> data.Split:
    return data.Split(images(count, torch.uint8), labels(count))


def dataset() -> data.ImageDataset:
    return data.ImageDataset(
        "own", split(12), split(5), split(5), list("abcde"), MEAN, STD, data.Source("own", "drawn")
    )


def recipe(**changes: Any) -> recipes.Recipe:
    values: dict[str, Any] = {
        "name": "small", "dataset": "mnist", "model": vitcore.ViTConfig(**SMALL),
        "train": training.TrainConfig(**TRAIN), "augment": "cifar",
        "augment_options": {"padding": 1}, "mix": "mixup_cutmix", "mix_options": {},
        "images": None, "sizes": (), "note": "",
    }  # fmt: skip
    return recipes.Recipe(**{**values, **changes})


def options_of(config: Any) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}


# --- files -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """One way to break a file: bits flipped, the end cut off, a stretch zeroed, bytes added."""

    kind: str
    at: float  # from 0 to 1, the place in the file
    size: int

    def apply(self, content: bytes) -> bytes:
        changed = bytearray(content)
        at = int(self.at * len(changed))
        if self.kind == "cut":
            return bytes(changed[:at])
        if self.kind == "zeros":
            changed[at : at + self.size] = bytes(len(changed[at : at + self.size]))
        elif self.kind == "flip" and changed:
            changed[at] ^= 1 << self.size % 8
        elif self.kind == "more":
            changed[at:at] = bytes(range(self.size % 256))
        return bytes(changed)


def draw_damage(rng: random.Random) -> Odd:
    kind = rng.choice(("flip", "flip", "flip", "cut", "zeros", "more"))
    # Half of the places lie at the beginning, where headers stand.
    at = rng.random() * (0.05 if rng.random() < 0.5 else 1.0)
    damage = Damage(kind, at, rng.randrange(1, 64))
    return Odd(f"{kind} at {at:.4f}", damage)


def damaged(path: Path, damage: Damage | None) -> Path:
    """A copy of a file beside it, damaged; the same name every time."""
    copy = path.with_name(f"damaged{path.suffix}")
    copy.write_bytes(path.read_bytes() if damage is None else damage.apply(path.read_bytes()))
    return copy


def _write_files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for place, train in (("tiny", 120), ("data", 5100)):  # the command line validates on 5,000
        (folder / place).mkdir()
        arrays: dict[str, Any] = {}
        for part, count in (("train", train), ("test", 20)):
            arrays[f"x_{part}"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)
        np.savez(folder / place / "mnist.npz", **arrays)
    pictures = folder / "pictures"
    for label in ("cats", "dogs"):
        (pictures / label).mkdir(parents=True)
        for number in range(4):
            values = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(values).save(pictures / label / f"{number}.png")
    picture = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "gif", "tiff", "webp", "bmp", "ppm"):
        picture.save(folder / f"picture.{suffix}")
    picture.convert("LA").save(folder / "alpha.png")
    picture.convert("P").save(folder / "palette.png")
    training.save_weights(
        folder / "model.safetensors", model(), classes=list("abcde"), mean=MEAN, std=STD
    )
    run = folder / "run"
    training.fit(
        model(), [(images(), labels())], [(images(), labels())],
        training.TrainConfig(**TRAIN), out=run, device="cpu", progress=False,
    )  # fmt: skip


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A folder with small files of every kind, gone afterwards; nothing is asked of a network."""
    names = ("VITCORE_DATA", "VITCORE_CACHE", "VITCORE_STANDIN", "LOCAL_RANK")
    before = {name: os.environ.get(name) for name in names}
    place = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="vitcore-fuzz-") as name, torch.random.fork_rng():
        folder = Path(name)
        _write_files(folder)
        for variable in names[2:]:
            os.environ.pop(variable, None)
        os.environ["VITCORE_DATA"] = str(folder / "data")
        os.environ["VITCORE_CACHE"] = str(folder / "cache")
        os.chdir(folder)  # what an odd path names is written here
        recipes.RECIPES["small"] = recipe(
            images=(20, 10, 10), augment="digits", augment_options={}, mix=None
        )
        try:
            yield folder
        finally:
            os.chdir(place)
            del recipes.RECIPES["small"]
            for variable, value in before.items():
                if value is None:
                    os.environ.pop(variable, None)
                else:
                    os.environ[variable] = value


# --- the model core --------------------------------------------------------------------------


def _core() -> list[Target]:
    def add(name: str, call: Callable[..., object], valid: Callable[[], Any], **more: Any) -> None:
        targets.append(Target("core", name, call, valid, **more))

    targets: list[Target] = []
    config = vitcore.ViTConfig(**SMALL)
    sizes = dict.fromkeys(("image_size", "depth", "dim", "num_classes", "registers"), LARGE)
    add("ViTConfig", vitcore.ViTConfig, lambda: options_of(config), weight=4)
    add("ViTConfig.from_dict", vitcore.ViTConfig.from_dict, lambda: {"values": config.to_dict()})
    add("ViT", vitcore.ViT, lambda: options_of(config), spare=sizes, weight=4)
    add("ViT(config)", vitcore.ViT, lambda: {"config": config})
    add("ViT(name)", lambda n: vitcore.ViT(config, **{str(n): 1}), lambda: {"n": "registers"})
    add(
        "create_model", vitcore.create_model,
        lambda: {"name": "vit_mnist", "depth": 1, "dim": 8}, spare=sizes,
    )  # fmt: skip
    for name in ("forward", "forward_features", "embed"):
        add(f"ViT.{name}", getattr(model(), name), lambda: {"images": images()}, weight=2)
    add(
        "ViT.forward_with", model(depth=2).forward_with,
        lambda: {"images": images(), "capture": ["attention", "tokens.0", "features"]}, weight=2,
    )  # fmt: skip
    add("ViT.pool", model().pool, lambda: {"features": torch.rand(2, 5, 8)})
    add("ViT.positions_for", model().positions_for, lambda: {"grid": (3, 3)})
    add("patchify", vitcore.patchify, lambda: {"images": images(), "patch_size": 4})
    add(
        "unpatchify", vitcore.unpatchify,
        lambda: {"tokens": torch.rand(2, 4, 48), "patch_size": 4, "image_size": (8, 8)},
    )  # fmt: skip
    for made in (vitcore.PatchEmbed, ConvStem):
        options = {name: SMALL[name] for name in ("image_size", "patch_size", "in_channels", "dim")}
        if made is ConvStem:
            options["hidden"] = 4
        add(made.__name__, made, partial(dict, options), spare=dict.fromkeys(options, LARGE))
        forward = made(8, 4, 3, 8).forward
        add(f"{made.__name__}.forward", forward, lambda: {"images": images()})
    tokens = {"x": torch.rand(2, 5, 8)}
    add(
        "Attention", vitcore.Attention,
        lambda: {"dim": 8, "heads": 2, "qkv_bias": True, "kernel": "auto"}, spare={"dim": LARGE},
    )  # fmt: skip
    attention = vitcore.Attention(8, 2)
    for name in ("forward", "weights"):
        add(f"Attention.{name}", getattr(attention, name), lambda: dict(tokens))
    heads = {name: torch.rand(2, 2, 5, 4) for name in "qkv"}
    add("attention_weights", attention_weights, lambda: {n: heads[n] for n in "qk"})
    add("explicit_attention", explicit_attention, lambda: dict(heads))
    add(
        "Block", vitcore.Block,
        lambda: {
            "dim": 8, "heads": 2, "mlp_ratio": 2.0, "qkv_bias": True, "drop_path": 0.1,
            "layer_scale": 1e-5, "attention": "global", "attention_options": {"kernel": "fused"},
        },
        spare={"dim": LARGE, "mlp_ratio": (*LARGE, "1e+300")},
    )  # fmt: skip
    add("Block.forward", vitcore.Block(8, 2), lambda: dict(tokens))
    add("Mlp", vitcore.Mlp, lambda: {"dim": 8, "hidden_dim": 16},
        spare={"dim": LARGE, "hidden_dim": LARGE})  # fmt: skip
    add("Mlp.forward", vitcore.Mlp(8, 16), lambda: dict(tokens))
    add("LayerScale", vitcore.LayerScale, lambda: {"dim": 8, "initial": 0.1}, spare={"dim": LARGE})
    add("LayerScale.forward", vitcore.LayerScale(8), lambda: dict(tokens))
    add("DropPath", vitcore.DropPath, lambda: {"rate": 0.1})
    add("DropPath.forward", vitcore.DropPath(0.5), lambda: dict(tokens))
    for function in (vitcore.register_attention, vitcore.register_patch_embed):
        add(function.__name__, function, lambda: {"name": "fuzzed"})
    add(
        "sincos_positions_1d", vitcore.sincos_positions_1d, lambda: {"length": 4, "dim": 8},
        spare={"length": LARGE, "dim": LARGE},
    )  # fmt: skip
    add(
        "sincos_positions_2d", vitcore.sincos_positions_2d, lambda: {"grid": (2, 3), "dim": 8},
        spare={"grid": [f"[{i}] {v}" for i in (0, 1) for v in LARGE], "dim": LARGE},
    )  # fmt: skip
    add(
        "resize_positions", vitcore.resize_positions,
        lambda: {
            "table": torch.rand(1, 7, 8), "old_grid": (2, 3), "new_grid": (3, 3),
            "prefix_tokens": 1,
        },
        spare={"new_grid": [f"[{i}] {v}" for i in (0, 1) for v in LARGE]},
    )  # fmt: skip
    return targets


# --- data and augmentation -------------------------------------------------------------------


def _batches(epoch: int = 0, **options: Any) -> None:
    batches = data.Batches(**options)
    batches.set_epoch(epoch)
    batches.order()
    assert len(batches) == len(list(batches))


def _data(folder: Path) -> list[Target]:
    def add(name: str, call: Callable[..., object], valid: Callable[[], Any], **more: Any) -> None:
        targets.append(Target("data", name, call, valid, **more))

    targets: list[Target] = []
    add(
        "Batches", _batches,
        lambda: {
            "split": split(), "batch_size": 3, "mean": MEAN, "std": STD, "shuffle": True,
            "seed": 0, "augment": augment.build_augment("cifar", padding=1),
            "mix": augment.build_mix("mixup_cutmix", num_classes=5), "sizes": (4, 8),
            "device": "cpu", "drop_last": True, "rank": 0, "world_size": 1, "epoch": 0,
        },
        spare={"augment": OTHER_CALLABLE, "mix": OTHER_CALLABLE,
               "sizes": [f"[{i}] {v}" for i in (0, 1) for v in LARGE]}, weight=5,
    )  # fmt: skip
    whole = dataset()
    for name in ("normalise", "denormalise"):
        add(f"ImageDataset.{name}", getattr(whole, name), lambda: {"images": images()})
    add("normalise", data.normalise, lambda: {"images": images(), "mean": MEAN, "std": STD})
    add("image_digests", data.image_digests, lambda: {"images": split().images})
    add("sketch_images", lambda s: data.sketch_images(s), lambda: {"s": split()})
    sketch = data.sketch_images(split())
    add("overlap", data.overlap, lambda: {"sketch": sketch, "split": split()})
    add(
        "read_digit", data.read_digit,
        lambda: {"path": folder / "picture.png", "image_size": 28, "channels": 1},
        spare={"image_size": LARGE, "channels": LARGE},
    )  # fmt: skip
    add("ImageDataset.subset", whole.subset, lambda: {"n_train": 5, "n_val": 5, "n_test": 5})
    add("ImageDataset", data.ImageDataset, lambda: options_of(whole))
    add("Source", data.Source, lambda: {"split": "own", "origin": "drawn"})
    add(
        "load_dataset", data.load_dataset,
        lambda: {
            "name": "mnist", "data_dir": folder / "tiny", "stand_in": False, "validation": 20,
            "seed": 0,
        },
        weight=3,
    )  # fmt: skip
    place = folder / "damaged"
    place.mkdir()

    def damaged_data(damage: Damage | None) -> object:
        content = (folder / "tiny" / "mnist.npz").read_bytes()
        (place / "mnist.npz").write_bytes(damage.apply(content) if damage else content)
        return data.load_dataset("mnist", place, stand_in=False, validation=20)

    damage: dict[str, Any] = {"pools": {"damage": draw_damage}}
    add(
        "load_dataset of a damaged file", damaged_data, lambda: {"damage": None}, weight=2, **damage
    )
    add(
        "load_folder", data.load_folder,
        lambda: {
            "path": folder / "pictures", "image_size": 8, "channels": 3, "validation": 0.2,
            "test": 2, "seed": 0,
        },
        spare={"image_size": LARGE}, weight=3,
    )  # fmt: skip
    add(
        "read_image", data.read_image,
        lambda: {
            "path": folder / "picture.png", "image_size": (8, 8), "channels": 3,
        },
        spare={"image_size": [*LARGE, *(f"[{i}] {v}" for i in (0, 1) for v in LARGE)]}, weight=2,
    )  # fmt: skip
    for picture in [*sorted(folder.glob("p*.*")), folder / "alpha.png"]:

        def damaged_picture(damage: Damage | None, picture: Path = picture) -> object:
            return data.read_image(damaged(picture, damage), 8, 3)

        add(f"read_image of a damaged {picture.name}", damaged_picture, lambda: {"damage": None},
            weight=0.5, **damage)  # fmt: skip
    return targets


def _augment() -> list[Target]:
    def add(name: str, call: Callable[..., object], valid: Callable[[], Any], **more: Any) -> None:
        targets.append(Target("data", name, call, valid, weight=0.7, **more))

    targets: list[Target] = []
    pair, one = torch.tensor([1.0, 2.0]), {"images": images()}
    whole = torch.tensor([1, 2])
    box = {"top": whole, "left": whole, "height": whole, "width": whole}
    parameters: dict[str, dict[str, Any]] = {
        "affine": {"angle": pair, "shift": torch.ones(2, 2), "scale": pair, "fill": 0.0},
        "random_affine": {"degrees": 5.0, "translate": 1.0, "scale": 0.1, "fill": 0.0},
        "hflip": {"which": whole > 1},
        "crop": {"top": whole, "left": whole, "padding": 2, "fill": 0.0},
        "resized_crop": box,
        "erase": {**box, "value": 0.0},
        "random_resized_crop": {"scale": (0.5, 1.0), "ratio": (0.75, 1.25)},
        "random_erasing": {
            "probability": 0.5, "scale": (0.1, 0.3), "ratio": (0.3, 3.3), "value": 0.0,
        },
        "trivial_operation": {"name": "rotate", "amount": pair, "fill": 0.0},
        "trivial_augment": {"fill": 0.0},
        "mixup": {"targets": torch.eye(5)[:2], "share": pair / 4},
        "cutmix": {"targets": torch.eye(5)[:2], "box": torch.tensor([[1, 1, 3, 3], [0, 0, 2, 2]])},
    }  # fmt: skip
    for name, arguments in parameters.items():
        spare = {"padding": LARGE}
        add(name, getattr(augment, name), partial(dict, one, **arguments), spare=spare)

    def built(name: str, values: Any, **options: Any) -> None:
        made = augment.build_augment(name, **options)
        assert made is not None
        made(values, None)

    spare = {"padding": LARGE}
    cifar = {"flip": True, "padding": 1, "min_scale": 0.8, "trivial": True, "erasing": 0.2}
    cifar["fill"] = 0.0
    digits = {"degrees": 10.0, "translate": 1.0, "scale": 0.1, "fill": 0.0}
    for name, options in (("cifar", cifar), ("digits", digits)):
        make: Any = lambda name=name, o=options: {"name": name, "values": images(), **o}  # noqa: E731
        add(f"build_augment({name!r})", built, make, spare={**spare, "name": ("None",)})
        add(name, getattr(augment, name), partial(dict, options))

    def mixed(name: str, values: Any, targets: Any, **options: Any) -> None:
        made = augment.build_mix(name, **options)
        assert made is not None
        made(values, targets, None)

    add(
        "build_mix", mixed,
        lambda: {
            "name": "mixup_cutmix", "values": images(), "targets": labels(), "num_classes": 5,
            "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "probability": 1.0, "cutmix_share": 0.5,
        },
        spare={"name": ("None",), "num_classes": LARGE[1:]},
    )  # fmt: skip
    return targets


# --- training --------------------------------------------------------------------------------


def _scores(count: int = 4) -> dict[str, Any]:
    return {"logits": torch.rand(count, 5), "targets": labels(count)}


def _training(folder: Path) -> list[Target]:
    def add(name: str, call: Callable[..., object], valid: Callable[[], Any], **more: Any) -> None:
        targets.append(Target("train", name, call, valid, **more))

    targets: list[Target] = []
    config = training.TrainConfig(**TRAIN)
    pairs: Callable[[], Any] = lambda: [(images(), labels()), (images(), labels())]  # noqa: E731
    add("TrainConfig", training.TrainConfig, lambda: options_of(config), weight=4)
    from_dict = training.TrainConfig.from_dict
    add("TrainConfig.from_dict", from_dict, lambda: {"values": config.to_dict()})

    def fitted(out: Any, **arguments: Any) -> object:
        shutil.rmtree(folder / "out", ignore_errors=True)
        return training.fit(out=out, **arguments)

    add(
        "fit", fitted,
        lambda: {
            "model": model(), "train_batches": pairs(), "val_batches": pairs(), "config": config,
            "loss": training.cross_entropy, "metric": training.accuracy, "device": "cpu",
            "out": folder / "out", "resume": False, "progress": False, "on_epoch": None,
            "metadata": {"abc": 1},
        },
        spare={"model": OTHER_CALLABLE, "loss": OTHER_CALLABLE, "metric": OTHER_CALLABLE,
               "on_epoch": ("a function", *OTHER_CALLABLE)}, weight=6,
    )  # fmt: skip
    add(
        "evaluate", training.evaluate,
        lambda: {
            "model": model(), "batches": pairs(), "loss": None, "metric": None, "device": None,
            "precision": "fp32",
        },
        spare={"model": OTHER_CALLABLE, "loss": OTHER_CALLABLE, "metric": OTHER_CALLABLE}, weight=3,
    )  # fmt: skip
    add(
        "predict", training.predict,
        lambda: {
            "model": model(), "images": images(), "batch_size": 2, "device": "cpu",
            "precision": "fp32",
        },
        spare={"model": OTHER_CALLABLE}, weight=2,
    )  # fmt: skip
    add("cross_entropy", training.cross_entropy, lambda: {**_scores(), "label_smoothing": 0.1})
    add("accuracy", training.accuracy, _scores)
    add("set_seed", training.set_seed, lambda: {"seed": 1})
    add("param_groups", training.param_groups, lambda: {"model": model(), "weight_decay": 0.1})
    add("orthogonalise", training.orthogonalise, lambda: {"matrix": torch.rand(3, 4), "steps": 2},
        spare={"steps": LARGE})  # fmt: skip
    add(
        "cosine_with_warmup", training.cosine_with_warmup,
        lambda: {"step": 3, "total_steps": 10, "warmup_steps": 2, "lr": 0.1, "min_lr": 0.0},
    )  # fmt: skip
    for name, valid in (
        ("resolve_device", {"device": "cpu"}),
        ("resolve_precision", {"precision": "fp32", "device": torch.device("cpu")}),
        ("learning_rate", {"step": 3, "config": config, "steps_per_epoch": 10}),
    ):
        add(name, getattr(training, name), partial(dict, valid))
    add(
        "save_weights", training.save_weights,
        lambda: {
            "path": folder / "saved.safetensors", "model": model(), "classes": list("abcde"),
            "mean": MEAN, "std": STD, "extra": {"abc": 1},
        },
        weight=2,
    )  # fmt: skip
    weights = folder / "model.safetensors"
    add("load_weights", training.load_weights, lambda: {"path": weights, "device": "cpu"})
    broken: dict[str, Any] = {"pools": {"damage": draw_damage}, "weight": 3}
    add(
        "load_weights of a damaged file",
        lambda damage: training.load_weights(damaged(weights, damage)),
        lambda: {"damage": None}, **broken,
    )  # fmt: skip

    def resumed(damage: Damage | None) -> object:
        out = folder / "resumed"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "run", out)
        for file in out.glob("*.safetensors"):
            if damage is not None:
                file.write_bytes(damage.apply(file.read_bytes()))
        batches = [(images(), labels())]
        return training.fit(
            model(), batches, batches, config, out=out, resume=True, device="cpu", progress=False
        )

    add("fit from a damaged checkpoint", resumed, lambda: {"damage": None}, **broken)
    return targets


# --- recipes, runs, records and the command line ---------------------------------------------


def _commands(folder: Path) -> list[list[str]]:
    weights, picture = str(folder / "model.safetensors"), str(folder / "picture.png")
    return [
        ["recipes"],
        ["predict", weights, picture, "--device", "cpu", "--threads", "1"],
        ["eval", weights, "--device", "cpu", "--data", str(folder / "data"), "--threads", "1"],
        [
            "train", "mnist", "--recipe", "small", "--out", "run-of-cli", "--epochs", "1", "--seed",
            "0", "--precision", "fp32", "--data", str(folder / "data"), "--device", "cpu",
        ],
        ["train", "mnist", "--recipe", "small", "--quick", "--resume", "--out", "run"],
    ]  # fmt: skip


def _draw_command(rng: random.Random, folder: Path) -> Odd:
    """A command with a word replaced, left out, said twice or added."""
    words = list(rng.choice(_commands(folder)))
    odd_words = [
        "", "abc", "-1", "0", "99999", "1e9", "nan", "2.5", str(2**64), "--", "-h", "--abc", "cuda",
        "mps", "meta", "cuda:7", "bf16", "fp16", "cifar100", "recipes", ".", "no/such/place",
        "mnist", "\N{SNOWMAN}", "--resume", "--quick", "--threads=0", "--threads=99999",
        "--seed=-1", f"--seed={10**30}", "--epochs=0", "--epochs=-3", "--data=no/such/place",
        "--device=abc", "--device=meta", "--recipe=abc", str(folder / "picture.png"),
        str(folder / "pictures"), str(folder / "data" / "mnist.npz"),
        str(folder / "run" / "checkpoint.safetensors"),
    ]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(1, len(words) + 1)
        kind = rng.choice(("replace", "replace", "replace", "drop", "twice", "insert"))
        if kind == "insert" or at == len(words):
            words.insert(at, rng.choice(odd_words))
        elif kind == "replace":
            words[at] = rng.choice(odd_words)
        elif kind == "twice":
            words.insert(at, words[at])
        else:
            del words[at]
    label = " ".join(words).replace(str(folder), "")
    return Odd(label, words)


class BadAnswer(Exception):
    """The command line gave neither 0 nor 2 with one sentence."""


def _command(words: Iterable[str] | None) -> None:
    if words is None:
        return
    shutil.rmtree("run-of-cli", ignore_errors=True)
    said = io.StringIO()
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stderr(said):
            status = command_line(list(words))
    except SystemExit as exit:  # argparse: usage and one line, or help
        status = 0 if not exit.code else 2
    finally:
        torch.set_num_threads(threads)
    lines = [line for line in said.getvalue().splitlines() if "error: " in line]
    if status == 0:
        return
    if status != 2 or len(lines) != 1:
        raise BadAnswer(f"status {status}, {said.getvalue()[-300:]!r}")
    problem = not_one_sentence(lines[0])
    if problem:
        raise BadAnswer(f"{problem}: {lines[0][:300]}")


def _runs(folder: Path) -> list[Target]:
    def add(name: str, call: Callable[..., object], valid: Callable[[], Any], **more: Any) -> None:
        targets.append(Target("runs", name, call, valid, **more))

    targets: list[Target] = []
    small = recipe(train=training.TrainConfig(**TRAIN))
    add("Recipe", recipes.Recipe, lambda: options_of(small), weight=3)
    add("Recipe.from_dict", recipes.Recipe.from_dict, lambda: {"values": small.to_dict()}, weight=3)
    add("Recipe.with_train", small.with_train, lambda: {"epochs": 2, "lr": 0.1})
    add("Recipe.fitted_to", small.fitted_to, lambda: {"dataset": dataset()})
    add("get_recipe", recipes.get_recipe, lambda: {"dataset": "mnist", "name": "mnist-long"})
    add(
        "confusion_matrix", recipes.confusion_matrix,
        lambda: {"logits": torch.rand(4, 5), "labels": labels(4)},
    )  # fmt: skip
    scores: Callable[[], Any] = lambda: {"logits": torch.rand(4, 5), "labels": labels(4)}  # noqa: E731
    add("top_k_accuracy", recipes.top_k_accuracy, lambda: {**scores(), "k": 2})
    add("group_accuracy", recipes.group_accuracy, lambda: {
        **scores(), "group_of": torch.tensor([0, 0, 1, 1, 2])})  # fmt: skip
    add("calibration_error", recipes.calibration_error, lambda: {**scores(), "bins": 5},
        spare={"bins": LARGE[1:]})  # fmt: skip

    def trained(out: Any, **arguments: Any) -> object:
        shutil.rmtree(folder / "run-of-recipe", ignore_errors=True)
        return recipes.train_recipe(out=out, **arguments)

    add(
        "train_recipe", trained,
        lambda: {
            "recipe": small, "dataset": dataset(), "device": "cpu",
            "out": folder / "run-of-recipe", "resume": False, "progress": False,
            "build": vitcore.ViT,
        },
        spare={"build": ("a function", *OTHER_CALLABLE)}, weight=3,
    )  # fmt: skip

    def varied(**changes: Any) -> object:
        return recipes.train_recipe(
            dataclasses.replace(small, **changes), dataset(), device="cpu", progress=False
        )

    add(
        "train_recipe of an odd recipe", varied,
        lambda: {
            "augment": "cifar", "augment_options": {"padding": 1}, "mix": "mixup_cutmix",
            "mix_options": {"probability": 0.5}, "images": (5, 5, 5), "sizes": ((0, 4), (0.5, 8)),
        },
        spare={
            "augment_options": [f"'padding': {v}" for v in LARGE],
            "sizes": [f"[{i}] [1] {v}" for i in (0, 1) for v in LARGE],
        },
        weight=3,
    )  # fmt: skip
    record = _record(small)
    add("RunRecord.from_dict", records.RunRecord.from_dict, lambda: {
        "values": copy.deepcopy(record)}, weight=2)  # fmt: skip
    path = folder / "record.json"
    path.write_text(json.dumps(record))
    add("RunRecord.read", records.RunRecord.read, lambda: {"path": path})
    add(
        "RunRecord.read of a damaged file",
        lambda damage: records.RunRecord.read(damaged(path, damage)),
        lambda: {"damage": None}, pools={"damage": draw_damage}, weight=2,
    )  # fmt: skip
    add(
        "command line", _command, lambda: {"words": None},
        pools={"words": lambda rng: _draw_command(rng, folder)}, weight=8,
    )  # fmt: skip
    return targets


def _record(of: recipes.Recipe) -> dict[str, Any]:
    run: Mapping[str, Any] = {
        "command": "python", "commit": "0", "date": "2026-01-01", "seed": 0, "dataset": "own",
        "source": "own images", "split": "own", "hardware": {"device": "cpu"}, "versions": {},
        "parameters": 10, "precision": "fp32", "recipe": of.to_dict(), "wall_seconds": 1.0,
        "total_seconds": 1.0, "epochs": [{"epoch": 1}], "best_epoch": 1, "val_accuracy": 0.5,
        "test_accuracy": 0.5, "test_loss": 1.0, "test_images": 5, "confusion": [[1]],
    }  # fmt: skip
    return dict(run)


def make_targets(folder: Path) -> list[Target]:
    """Everything that is called, with its files in ``folder``; see :func:`workspace`."""
    return [*_core(), *_data(folder), *_augment(), *_training(folder), *_runs(folder)]


def main() -> int:
    """Fuzz as the command line asks and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a room, or part of a callable's name")
    parser.add_argument("--accepted", action="store_true", help="list odd values that were taken")
    options = parser.parse_args()
    with workspace() as folder:
        targets = [t for t in make_targets(folder) if options.only in f"{t.room} {t.name}"]
        result = fuzz(targets, options.calls, options.seed)
    print(report(result, options.accepted))
    return 1 if result.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
