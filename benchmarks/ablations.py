# SPDX-License-Identifier: MIT
"""A small ViT with each part left out and with each mistake planted; chapter 4 shows the result.

python -m benchmarks.ablations trains every variant from every seed with one fixed budget, looks at
the test images once at the end of each, and writes runs/ablations/record.json after each run, so
that it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbook import studies
from vitbook.checks import BUGS
from vitcore.attention import Record, keep
from vitcore.blocks import Block
from vitcore.data import Batches, ImageDataset, load_dataset
from vitcore.embeddings import TokenLayout
from vitcore.recipes import Recipe
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.runs import make_batches
from vitcore.training import NonFiniteLoss, TrainConfig, evaluate, fit, set_seed
from vitcore.vit import ViT, ViTConfig

SEEDS = (0, 1, 2, 3, 4)

RECIPE = Recipe(
    name="ablations",
    dataset="mnist",
    # Class token, learned positions and a final norm: each of the thirteen mistakes has its place.
    model=ViTConfig(
        image_size=28,
        patch_size=7,
        in_channels=1,
        num_classes=10,
        dim=32,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
        init_std=0.1,
    ),
    train=TrainConfig(epochs=4, batch_size=64, lr=4e-3, warmup_epochs=0.5, precision="fp32"),
    images=(8000, 100, 10000),
    note="seconds on one thread; the same budget for every variant",
)

# --- what is left out or put in ---------------------------------------------------------------


class _NoMlpResidual(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        attn_out = self.drop_path1(self.ls1(self.attn(self.norm1(x), layout, record)))
        x = x + attn_out
        x = mlp_out = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class _NoResiduals(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        x = attn_out = self.drop_path1(self.ls1(self.attn(self.norm1(x), layout, record)))
        x = mlp_out = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class Nothing(nn.Module):
    """A branch that adds nothing."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """Give zeros (B, N, D)."""
        return torch.zeros_like(x)


def _in_each_block(change: Callable[[Any], None]) -> Callable[[ViTConfig], ViT]:
    def build(config: ViTConfig) -> ViT:
        model = ViT(config)
        for block in model.blocks:
            change(block)
        return model

    return build


def _forward_of(wrong: type[Block]) -> Callable[[ViTConfig], ViT]:
    def change(block: Any) -> None:
        block.__class__ = wrong  # the same weights, another forward

    return _in_each_block(change)


def _instead(**parts: Callable[[], nn.Module]) -> Callable[[ViTConfig], ViT]:
    def change(block: Any) -> None:
        for path, make in parts.items():
            where, _, name = path.rpartition("__")
            setattr(block.get_submodule(where), name, make())

    return _in_each_block(change)


def _with(**options: Any) -> Callable[[ViTConfig], ViT]:
    return lambda config: ViT(replace(config, **options))


@dataclass(frozen=True)
class Variant:
    """One thing that is changed.

    name: its key in the record; a mistake has its name in `vitbook.checks.BUGS`. label: a few
    words for a picture. kind: "correct", "left out", "added" or "mistake". build: makes the model
    from the configuration; the weights are drawn in the same order for every variant, so that
    those of one seed start from the same numbers. chapter: the one that shows it. measure: what
    else is measured of the trained model, by name; it takes the model and the test images.
    """

    name: str
    label: str
    kind: str
    build: Callable[[ViTConfig], ViT]
    chapter: int = 4
    measure: Callable[[ViT, Batches], Mapping[str, float]] = lambda model, test: {}


def planted(name: str) -> Callable[[ViTConfig], ViT]:
    """Build the right model and plant the mistake of this name in it."""
    return lambda config: BUGS[name].plant(ViT(config))


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("correct", "correct", "correct", ViT),
        Variant("no-residuals", "no residual at all", "left out", _forward_of(_NoResiduals)),
        Variant("no-mlp-residual", "no residual around the MLP", "left out",
                _forward_of(_NoMlpResidual)),
        Variant("no-layer-norm", "no LayerNorm in the blocks", "left out",
                _instead(norm1=nn.Identity, norm2=nn.Identity)),
        Variant("no-mlp", "no MLP", "left out", _instead(mlp=Nothing)),
        Variant("no-attention", "no attention", "left out", _instead(attn=Nothing)),
        Variant("no-gelu", "no GELU: the MLP is linear", "left out",
                _instead(mlp__act=nn.Identity)),
        Variant("drop-path", "drop path 0.1", "added", _with(drop_path=0.1)),
        Variant("layer-scale", "layer scale 0.1", "added", _with(layer_scale=0.1)),
        *(Variant(bug.name, bug.mistake, "mistake", planted(bug.name), bug.chapter)
          for bug in BUGS.values()),
    )
}  # fmt: skip

# --- one run ----------------------------------------------------------------------------------


def train_once(recipe: Recipe, variant: Variant, seed: int, dataset: ImageDataset) -> dict:
    """Train one variant from one seed and look at the test images once, after the last step.

    Nothing is chosen: the weights are those after the last step (before the first loss that is
    not finite, where training stops at one).
    """
    recipe = recipe.with_train(seed=seed)
    device = torch.device("cpu")
    set_seed(seed)
    model = variant.build(recipe.model)
    started = time.perf_counter()
    train_loss: float | None = None
    try:
        history = fit(
            model,
            make_batches(recipe, dataset, dataset.train, device=device, training=True),
            None,
            recipe.train,
            device=device,
            progress=False,
        )
        train_loss = history[-1]["train_loss"]
    except NonFiniteLoss:
        model.eval()
    batches = make_batches(recipe, dataset, dataset.test, device=device)
    test = evaluate(model, batches, device=device)
    return {
        "seed": seed,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "train_loss": train_loss,
        "seconds": round(time.perf_counter() - started, 2),
        **variant.measure(model, batches),
    }


# --- the record -------------------------------------------------------------------------------


def _start(
    recipe: Recipe,
    dataset: ImageDataset,
    seeds: Sequence[int],
    variants: Mapping[str, Variant],
    command: str,
) -> dict:
    return {
        "kind": studies.AblationRecord.KIND,
        "command": command,
        "commits": [],
        "date": "",
        "seeds": list(seeds),
        "dataset": dataset.name,
        "source": str(dataset.source),
        "split": dataset.source.split,
        "hardware": hardware(torch.device("cpu")),
        "versions": versions(),
        "parameters": sum(p.numel() for p in ViT(recipe.model).parameters()),
        "recipe": recipe.to_dict(),
        "train_images": len(dataset.train.labels),
        "test_images": len(dataset.test.labels),
        "wall_seconds": 0.0,
        "complete": False,
        "variants": {
            v.name: {"label": v.label, "kind": v.kind, "chapter": v.chapter, "seeds": [],
                     "test_accuracy": [], "test_loss": [], "train_loss": [], "seconds": []}
            for v in variants.values()
        },
    }  # fmt: skip


# What must be the same in a record that is continued.
SAME = ("dataset", "source", "split", "recipe", "train_images", "test_images", "seeds")


def _open(path: Path, fresh: dict) -> dict:
    if not path.exists():
        return fresh
    old = studies.AblationRecord.read(path).to_dict()
    # A setting that is newer than the record had its default.
    old["recipe"] = Recipe.from_dict(old["recipe"]).to_dict()
    differs = [key for key in SAME if old[key] != fresh[key]]
    if list(old["variants"]) != list(fresh["variants"]):
        differs.append("variants")
    if differs:
        raise ValueError(
            f"{path} was made with another {', '.join(differs)}: name another folder with --out, "
            "or move that file away."
        )
    # Continued with other versions, the record would not say which numbers came from which.
    if (old["versions"], old["hardware"]["name"]) != (
        fresh["versions"],
        fresh["hardware"]["name"],
    ):
        raise ValueError(
            f"{path} was made with other versions or on another machine: name another folder with "
            "--out, or move that file away."
        )
    return old


def _train_named(recipe: Recipe, name: str, seed: int, dataset: ImageDataset) -> dict:
    torch.set_num_threads(1)
    return train_once(recipe, VARIANTS[name], seed, dataset)


def _train_all(
    recipe: Recipe, todo: Sequence[tuple[int, Variant]], dataset: ImageDataset, workers: int
) -> Iterator[dict]:
    """Give the results in the order of ``todo``, each as soon as it and those before are there."""
    if workers == 1:
        for seed, variant in todo:
            yield train_once(recipe, variant, seed, dataset)
        return
    # Forked after torch has started its threads, a worker would hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_train_named, recipe, v.name, seed, dataset) for seed, v in todo]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def run(
    out: str | os.PathLike[str],
    dataset: ImageDataset,
    *,
    recipe: Recipe = RECIPE,
    seeds: Sequence[int] = SEEDS,
    variants: Mapping[str, Variant] = VARIANTS,
    limit: int | None = None,
    workers: int = 1,
    command: str = "python -m benchmarks.ablations",
    say: Callable[[str], object] = print,
) -> dict:
    """Train what OUT/record.json lacks, at most ``limit`` runs, and return the record as it is.

    ``workers`` processes of one thread each share the work; the numbers do not depend on it. More
    than one know ``VARIANTS`` alone.

    Raises:
        ValueError: if OUT holds a record of other settings, images or versions.
    """
    path = Path(out) / RECORD
    if recipe.images is not None:
        dataset = dataset.subset(*recipe.images)
    record = _open(path, _start(recipe, dataset, seeds, variants, command))
    code = commit()
    # All variants of one seed before the next one: a record that is not complete compares fairly.
    todo = [
        (seed, variant)
        for seed in seeds
        for variant in variants.values()
        if seed not in record["variants"][variant.name]["seeds"]
    ]
    results = _train_all(recipe, todo[:limit], dataset, workers)
    for (seed, variant), result in zip(todo[:limit], results, strict=True):
        rows = record["variants"][variant.name]
        for key, value in result.items():
            rows.setdefault("seeds" if key == "seed" else key, []).append(value)
        if code not in record["commits"]:
            record["commits"].append(code)
        record["date"] = now()
        record["wall_seconds"] = round(record["wall_seconds"] + result["seconds"], 2)
        record["complete"] = all(v["seeds"] == record["seeds"] for v in record["variants"].values())
        studies.AblationRecord.from_dict(record).write(path)
        say(
            f"seed {seed}, {variant.label}: test accuracy {100 * result['test_accuracy']:.2f} % "
            f"in {result['seconds']:.1f} s"
        )
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is missing, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablations", description=__doc__)
    parser.add_argument(
        "--out",
        default="runs/ablations",
        metavar="DIR",
        help="where record.json goes, and is continued (default: %(default)s)",
    )
    parser.add_argument("--data", metavar="DIR", help="folder that holds mnist.npz")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(SEEDS), metavar="N", help="default: 0 1 2 3 4"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="stop after N runs; the next call goes on"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes at once (default: 1)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a hundredth of the work, to see that it runs; needs its own --out",
    )
    parser.add_argument("--stand-in", action="store_true",
                        help="generated digits, where there are no real ones")  # fmt: skip
    given = parser.parse_args(arguments)
    if given.quick and Path(given.out) == Path("runs/ablations"):
        parser.error("--quick needs its own folder: name one with --out")
    torch.set_num_threads(1)
    recipe = RECIPE
    if given.quick:
        recipe = replace(RECIPE.quick(), images=(100, 100, 100)).with_train(epochs=1)
    command = "python -m benchmarks.ablations"
    if list(given.seeds) != list(SEEDS):
        command += " --seeds " + " ".join(map(str, given.seeds))
    command += " --quick" if given.quick else ""
    command += " --stand-in" if given.stand_in else ""
    try:
        dataset = load_dataset("mnist", given.data, stand_in=True if given.stand_in else None)
        record = run(
            given.out,
            dataset,
            recipe=recipe,
            seeds=given.seeds,
            limit=given.limit,
            workers=given.workers,
            command=command,
            say=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    done = sum(len(variant["seeds"]) for variant in record["variants"].values())
    whole = len(record["variants"]) * len(record["seeds"])
    print(f"{done} of {whole} runs are in {Path(given.out) / RECORD}")


if __name__ == "__main__":
    main()
