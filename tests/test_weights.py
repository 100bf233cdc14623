# SPDX-License-Identifier: MIT
"""Pretrained weights give their source's logits, and a file that does not fit says why.

The references are timm's and torchvision's own classes. Hugging Face's and DINOv2's files are made
of timm's weights by the published names, and their positions are resized as published.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import math
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from core_helpers import largest_difference, randomise
from safetensors.torch import save_file
from torch import Tensor, nn

from vitbook.torchvision import import_torchvision
from vitcore import ViT
from vitcore.data import DownloadError
from vitcore.training import load_weights, save_weights
from vitcore.weights import FAMILIES, HEADS, PairedViT, load_pretrained

import_torchvision()  # before timm, which imports it
timm = pytest.importorskip("timm", reason="timm is a development dependency")
deit = pytest.importorskip("timm.models.deit")
vision = pytest.importorskip("torchvision.models.vision_transformer")

TOLERANCE = 1e-5
SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 7
}  # fmt: skip
SIZES = [(32, 32), (48, 48), (24, 40), (16, 16)]
Weights = dict[str, Tensor]


def reference(kind: Any = None, **options: Any) -> Any:
    """A small model of timm's with random weights."""
    return randomise((kind or timm.models.VisionTransformer)(**{**SMALL, **options})).eval()


def images(size: tuple[int, int] = (32, 32), channels: int = 3) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(5))


def agree(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        logits, wanted = ours(x), theirs(x)
    assert largest_difference(logits, wanted) < TOLERANCE
    assert wanted.std(dim=0).mean() > 0.01, "the logits hardly depend on the images"


def saved(folder: Path, weights: Weights, **configs: Any) -> Path:
    """A folder as Hugging Face and timm publish it."""
    folder.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    for name, values in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


# --- timm and torchvision -----------------------------------------------------------------------

# what timm is asked for, and what no tensor of the file tells
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "mean of the patches": ({"class_token": False, "global_pool": "avg"}, {}),
    "mean beside a class token": ({"global_pool": "avg", "fc_norm": False}, {"pool": "mean"}),
    "registers": ({"reg_tokens": 4}, {}),
    "registers without positions": ({"reg_tokens": 4, "no_embed_class": True}, {}),
    "as DeiT-3": ({"no_embed_class": True, "init_values": 0.1}, {}),
    "no positions": ({"pos_embed": "none"}, {"config": {"image_size": 32}}),
    "no qkv bias": ({"qkv_bias": False}, {}),
    "an odd MLP": ({"mlp_ratio": 2.07}, {}),
    "no head": ({"num_classes": 0}, {}),
    "grey, not square": (
        {"img_size": (24, 40), "in_chans": 1}, {"config": {"image_size": [24, 40]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "told"), VARIANTS.values(), ids=VARIANTS)
def test_timm(theirs: dict[str, Any], told: dict[str, Any], tmp_path: Path) -> None:
    source = reference(**theirs)
    size, channels = theirs.get("img_size", (32, 32)), theirs.get("in_chans", 3)
    file = saved(tmp_path, source.state_dict()) / "model.safetensors"
    for loaded in (load_pretrained(source), load_pretrained(file, heads=3, **told)):
        assert type(loaded.model) is ViT
        assert loaded.config.image_size == size
        assert loaded.metadata["family"] == "timm"
        agree(loaded.model, source, images(size, channels))
    assert not loaded.model.training
    assert all(p.requires_grad for p in loaded.model.parameters())


def test_timm_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def create(name: str, **options: Any) -> Any:
        asked[name] = options
        source = reference(num_classes=1000)
        source.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "num_classes": 1000,
                                 "architecture": name, "tag": "augreg_in1k"}  # fmt: skip
        return source

    monkeypatch.setattr(timm, "create_model", create)
    loaded = load_pretrained("timm:vit_tiny_patch16_224.augreg_in1k")
    assert asked == {"vit_tiny_patch16_224.augreg_in1k": {"pretrained": True}}
    assert loaded.mean == (0.5, 0.5, 0.5)
    assert loaded.std == (0.25, 0.25, 0.25)
    assert loaded.classes[0].startswith("tench")


def test_a_name_needs_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RuntimeError, match="pip install timm"):
        load_pretrained("timm:vit_tiny_patch16_224")


def tv_reference(**options: Any) -> Any:
    """torchvision's class, made as small as timm's."""
    fields = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 48}
    fields |= {"mlp_dim": 96, "num_classes": 7}
    return randomise(vision.VisionTransformer(**{**fields, **options})).eval()


@pytest.mark.parametrize("side", [32, 48, 16])
def test_torchvision(side: int, tmp_path: Path) -> None:
    source = tv_reference()
    there = vision.interpolate_embeddings(side, 8, source.state_dict())
    wanted = tv_reference(image_size=side)
    wanted.load_state_dict(there)
    file = saved(tmp_path, source.state_dict()) / "model.safetensors"
    for loaded in (
        load_pretrained(source, image_size=side),
        load_pretrained(file, heads=3, image_size=side),
    ):
        assert loaded.metadata["family"] == "torchvision"
        assert loaded.mean == (0.485, 0.456, 0.406)
        agree(loaded.model, wanted, images((side, side)))


# --- positions, as each source resizes them -----------------------------------------------------


def resized(table: Tensor, grid: tuple[int, int], prefix: int, **how: Any) -> Tensor:
    """A square table on another grid, written out for the tests."""
    side = math.isqrt(table.shape[1] - prefix)
    square = table[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, mode="bicubic", **(how or {"size": grid}))
    assert square.shape[-2:] == grid
    patches = square.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
    return torch.cat([table[:, :prefix], patches], dim=1)


def at_size(source: Any, size: tuple[int, int], table: Tensor, **options: Any) -> Any:
    """The same timm model for images of another size, with that position table."""
    kind = type(source)
    wanted = kind(**{**SMALL, "img_size": size, **options})
    wanted.load_state_dict({**source.state_dict(), "pos_embed": table})
    return wanted.eval()


@pytest.mark.parametrize("size", SIZES)
def test_timm_at_other_sizes(size: tuple[int, int]) -> None:
    source = reference(dynamic_img_size=True, reg_tokens=1)
    agree(load_pretrained(source, image_size=size).model, source, images(size))
    agree(load_pretrained(source).model, source, images(size))  # a ViT resizes as timm does


def offset(size: tuple[int, int]) -> dict[str, Any]:
    """DINOv2's call: the new sides have 0.1 added, so that none is rounded away."""
    return {"scale_factor": ((size[0] // 8 + 0.1) / 4, (size[1] // 8 + 0.1) / 4)}


@pytest.mark.parametrize("size", SIZES)
def test_dinov2(size: tuple[int, int], tmp_path: Path) -> None:
    """Its own files: layer scale, a mask token, no head."""
    options: dict[str, Any] = {"init_values": 0.1, "num_classes": 0}
    source = reference(**options)
    grid = (size[0] // 8, size[1] // 8)
    table = source.pos_embed.detach()
    table = table if size == (32, 32) else resized(table, grid, 1, **offset(size))
    weights = {**source.state_dict(), "mask_token": torch.zeros(1, 48)}
    loaded = load_pretrained(saved(tmp_path, weights), heads=3, image_size=size)
    agree(loaded.model, at_size(source, size, table, **options), images(size))
    assert loaded.metadata["family"] == "dinov2"
    assert loaded.metadata["unused"] == ["mask_token"]
    assert loaded.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("size", SIZES)
def test_dinov2_with_registers(size: tuple[int, int], tmp_path: Path) -> None:
    """The class token has a position in the file, and the registers have none."""
    options: dict[str, Any] = {
        "init_values": 0.1, "num_classes": 0, "reg_tokens": 4, "no_embed_class": True
    }  # fmt: skip
    source = reference(**options)
    weights = source.state_dict()
    own = torch.randn(1, 1, 48)
    weights["register_tokens"] = weights.pop("reg_token")
    weights |= {"pos_embed": torch.cat([own, weights["pos_embed"]], 1)}
    weights |= {"cls_token": weights["cls_token"] - own, "mask_token": torch.zeros(1, 48)}
    loaded = load_pretrained(saved(tmp_path, weights), heads=3, image_size=size)
    grid = (size[0] // 8, size[1] // 8)
    table = source.pos_embed.detach()
    table = table if size == (32, 32) else resized(table, grid, 0, size=grid, antialias=True)
    agree(loaded.model, at_size(source, size, table, **options), images(size))
    assert not loaded.config.class_position


# --- DeiT and Hugging Face's names --------------------------------------------------------------


def test_deit_with_distillation(tmp_path: Path) -> None:
    source = reference(deit.VisionTransformerDistilled)
    for loaded in (
        load_pretrained(source),
        load_pretrained(saved(tmp_path, source.state_dict()), heads=3),
    ):
        assert isinstance(loaded.model, PairedViT)
        agree(loaded.model, source, images())
    loaded.model.head = nn.Linear(48, 5)
    assert loaded.model(images()).shape == (2, 5)


def hf_names(weights: Weights, model: str) -> Weights:
    """timm's weights under the names of transformers' files."""
    found: Weights = {}
    dino = model.startswith("dinov2")
    for name, tensor in weights.items():
        parts = name.split(".")
        layer = f"{model}.encoder.layer.{parts[1] if len(parts) > 1 else ''}"
        inside = ".".join(parts[2:-1])
        plain = {
            "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
            "dist_token": "embeddings.distillation_token",
            "reg_token": "embeddings.register_tokens",
        }  # fmt: skip
        blocks = {
            "norm1": "norm1" if dino else "layernorm_before",
            "norm2": "norm2" if dino else "layernorm_after",
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.fc1" if dino else "intermediate.dense",
            "mlp.fc2": "mlp.fc2" if dino else "output.dense",
        }  # fmt: skip
        if name in plain:
            found[f"{model}.{plain[name]}"] = tensor
        elif inside == "attn.qkv":
            for key, part in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{layer}.attention.attention.{key}.{parts[-1]}"] = part
        elif inside in ("ls1", "ls2"):
            found[f"{layer}.layer_scale{inside[-1]}.lambda1"] = tensor
        elif parts[0] == "blocks":
            found[f"{layer}.{blocks[inside]}.{parts[-1]}"] = tensor
        elif parts[0] == "patch_embed":
            found[f"{model}.embeddings.patch_embeddings.projection.{parts[-1]}"] = tensor
        elif parts[0] == "norm":
            found[f"{model}.layernorm.{parts[-1]}"] = tensor
        else:
            heads = {"head": "classifier", "head_dist": "distillation_classifier"}
            heads |= {"head": "cls_classifier"} if "head_dist.weight" in weights else {}
            found[f"{heads[parts[0]]}.{parts[-1]}"] = tensor
    assert len(found) == len(weights) + 2 * sum(".qkv." in name for name in weights)
    return found


VIT_CONFIG = {
    "num_attention_heads": 3, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "image_size": 32,
    "id2label": {str(i): f"a thing like {i}" for i in range(7)},
}  # fmt: skip
PREPROCESSOR = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.4, 0.4, 0.4]}


@pytest.mark.parametrize("size", SIZES)
def test_huggingface_vit(size: tuple[int, int], tmp_path: Path) -> None:
    norm = functools.partial(nn.LayerNorm, eps=1e-12)
    source = reference(norm_layer=norm)
    folder = saved(
        tmp_path, hf_names(source.state_dict(), "vit"),
        config=VIT_CONFIG, preprocessor_config=PREPROCESSOR,
    )  # fmt: skip
    loaded = load_pretrained(folder, image_size=size)
    grid = (size[0] // 8, size[1] // 8)
    table = source.pos_embed.detach()
    table = table if size == (32, 32) else resized(table, grid, 1)
    agree(loaded.model, at_size(source, size, table, norm_layer=norm), images(size))
    assert loaded.classes[3] == "a thing like 3"
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))
    assert {m.eps for m in loaded.model.modules() if isinstance(m, nn.LayerNorm)} == {1e-12}


def test_huggingface_deit(tmp_path: Path) -> None:
    source = reference(deit.VisionTransformerDistilled)
    weights = hf_names(source.state_dict(), "deit")
    agree(load_pretrained(saved(tmp_path, weights), heads=3).model, source, images())


def test_huggingface_dinov2_reads_the_mean_beside_the_class_token(tmp_path: Path) -> None:
    source = reference(init_values=0.1, num_classes=0)
    head = randomise(nn.Linear(96, 7), seed=1)
    weights = hf_names(source.state_dict(), "dinov2")
    weights |= {f"classifier.{name}": tensor for name, tensor in head.state_dict().items()}
    loaded = load_pretrained(saved(tmp_path, weights), heads=3)
    with torch.no_grad():
        tokens = source.forward_features(images())
        wanted = head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1))
        assert largest_difference(loaded.model(images()), wanted) < TOLERANCE


def test_a_model_without_its_head_keeps_its_tokens(tmp_path: Path) -> None:
    source = reference(num_classes=0)
    weights = hf_names(source.state_dict(), "vit")
    bare = {name.removeprefix("vit."): tensor for name, tensor in weights.items()}
    bare |= {"pooler.dense.weight": torch.zeros(48, 48), "pooler.dense.bias": torch.zeros(48)}
    loaded = load_pretrained(saved(tmp_path, bare), heads=3)
    agree(loaded.model, source, images())
    assert loaded.metadata["unused"] == ["pooler.dense.bias", "pooler.dense.weight"]
    assert loaded.classes == []


# --- what comes along, and what is kept ---------------------------------------------------------


def test_what_was_loaded_is_saved_and_loaded_again(tmp_path: Path) -> None:
    source = reference()
    names = [f"kind {i}" for i in range(7)]
    loaded = load_pretrained(source, classes=names, mean=[0.5] * 3, std=[0.5] * 3, image_size=48)
    path = tmp_path / "ours.safetensors"
    save_weights(path, loaded.model, classes=loaded.classes, mean=loaded.mean, std=loaded.std)
    again = load_weights(path)
    assert again.classes == names
    agree(again.model, loaded.model, images((48, 48)))


def test_unknown_statistics_are_not_guessed() -> None:
    loaded = load_pretrained(reference())
    assert loaded.mean == ()
    assert loaded.classes == list("0123456")
    with pytest.raises(ValueError, match="give one for each of the images' 3 channels"):
        loaded.normalise(images())


def test_the_source_is_left_as_it_was() -> None:
    source = reference().train()
    loaded = load_pretrained(source)
    assert source.training
    nn.init.zeros_(loaded.model.get_parameter("head.bias"))
    assert source.head.bias.abs().min() > 0


def test_wrappers_and_half_precision(tmp_path: Path) -> None:
    source = reference()
    weights = {f"module._orig_mod.{k}": v.half() for k, v in source.state_dict().items()}
    loaded = load_pretrained(saved(tmp_path, weights), heads=3)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    agree(loaded.model, source.half().float(), images())


def test_heads_of_published_widths() -> None:
    with torch.device("meta"):
        for name in ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch16_224",
                     "vit_large_patch16_224", "deit3_huge_patch14_224"):  # fmt: skip
            model = timm.create_model(name)
            assert HEADS[model.embed_dim] == model.blocks[0].attn.num_heads


# --- what is refused ----------------------------------------------------------------------------


def refused(call: Any, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert message.endswith(".")
    assert ";" in message
    for word in words:
        assert word in message, message


def test_wrong_files_say_what_is_missing_and_what_is_left_over(tmp_path: Path) -> None:
    weights = reference(init_values=0.1).state_dict()
    file = tmp_path / "model.safetensors"

    def check(changed: Weights, *words: str, **options: Any) -> None:
        saved(tmp_path, changed)
        refused(lambda: load_pretrained(file, **{"heads": 3, **options}), *words)

    def without(*names: str) -> Weights:
        return {k: v for k, v in weights.items() if k not in names}

    check(without("blocks.1.norm2.bias"), "1 missing: ['blocks.1.norm2.bias']")
    check({**weights, "norm_pre.weight": torch.ones(48)}, "1 left over: ['norm_pre.weight']")
    check({**weights, "norm.bias": torch.ones(47)}, "1 of another shape: ['norm.bias']")
    check(without("patch_embed.proj.weight"), "patch_embed.proj.weight is missing", "it holds")
    check(without("blocks.0.mlp.fc1.weight"), "blocks.0.mlp.fc1.weight is missing")
    check({**weights, "pos_embed": torch.ones(17, 48)}, "pos_embed is (17, 48)")
    check({**weights, "pos_embed": torch.ones(1, 15, 48)}, "15 positions", "config=")
    check({**weights, "blocks.0.mlp.w12.weight": torch.ones(9, 48)}, "SwiGLU")
    check({"layer1.0.conv1.weight": torch.ones(3)}, "layer1.0.conv1.weight", "torchvision, hugging")
    check({}, "of no known ViT")
    check(weights, "48 wide", "give heads", heads=None)
    check(weights, "2 names are given", classes=["a", "b"])
    check(weights, "divide", image_size=30)
    check(weights, "hidden_act", config={"hidden_act": "gelu_new"})
    check(weights, "1e-06 or less", config={"layer_norm_eps": 1e-5})
    many = {**weights, **{f"more.{i}": torch.ones(1) for i in range(9)}}
    check(many, "9 left over", "more.4")
    check({**weights, "module.norm.bias": weights["norm.bias"].clone()}, "of no known ViT")
    (tmp_path / "config.json").write_text("[", encoding="utf-8")
    refused(lambda: load_pretrained(tmp_path), "config.json cannot be read as JSON")
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    refused(lambda: load_pretrained(tmp_path), "give a JSON object")
    with pytest.raises(FileNotFoundError):
        load_pretrained(tmp_path / "none.safetensors")


class _TanhGelu(nn.GELU):
    def __init__(self) -> None:
        super().__init__(approximate="tanh")


@pytest.mark.parametrize(
    "options", [{"act_layer": _TanhGelu}, {"global_pool": "max"}], ids=["activation", "pool"]
)
def test_a_model_that_answers_otherwise_is_refused(options: dict[str, Any]) -> None:
    refused(lambda: load_pretrained(reference(fc_norm=False, **options)), "answers otherwise")


# --- pickles and downloads ----------------------------------------------------------------------


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled_unless_asked_for(tmp_path: Path) -> None:
    source, file = reference(), tmp_path / "deit.pth"
    torch.save({"model": source.state_dict()}, file)
    refused(lambda: load_pretrained(file, heads=3), "unpickle=True")
    agree(load_pretrained(file, heads=3, unpickle=True).model, source, images())
    marker = tmp_path / "marker"
    file.write_bytes(pickle.dumps({"model": _Bomb(marker)}, protocol=2))
    refused(lambda: load_pretrained(file, unpickle=True), "cannot be opened as weights alone")
    assert not marker.exists()
    torch.save([1], file)
    refused(lambda: load_pretrained(file, unpickle=True), "give a file of tensors by name")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """An address on this machine, the folder behind it, and what was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder, asked
        running.shutdown()


def test_downloads(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder, asked = server
    monkeypatch.setenv("VITCORE_CACHE", str(tmp_path / "cache"))
    source = reference()
    saved(folder, source.state_dict())
    url = f"{address}/model.safetensors"
    right = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    for _ in range(2):
        loaded = load_pretrained(url, heads=3, sha256=right)
        agree(loaded.model, source, images())
    assert len(asked) == 1  # the second came from the cache
    (path,) = (tmp_path / "cache").rglob("model.safetensors")
    path.write_bytes(b"damaged")
    agree(load_pretrained(url, heads=3, sha256=right[:8]).model, source, images())
    refused(lambda: load_pretrained(url, heads=3), "give sha256")
    refused(lambda: load_pretrained(url, heads=3, sha256="abc"), "8 to 64")
    refused(lambda: load_pretrained("ftp://somewhere/file", sha256=right), "https address")
    with pytest.raises(DownloadError, match="wrong checksum"):
        load_pretrained(url, heads=3, sha256="0" * 64)
    assert not list((tmp_path / "cache" / "weights" / ("0" * 64)).glob("model*"))


def test_torchvision_enum(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder, _ = server
    monkeypatch.setenv("VITCORE_CACHE", str(tmp_path / "cache"))
    source = tv_reference()
    torch.save(source.state_dict(), folder / "file")
    digits = hashlib.sha256((folder / "file").read_bytes()).hexdigest()[:8]
    (folder / "file").rename(folder / f"vit_b_16-{digits}.pth")
    member = vision.ViT_B_16_Weights.IMAGENET1K_V1
    theirs = member.transforms()
    names = [f"kind {i}" for i in range(7)]
    weights = SimpleNamespace(
        url=f"{address}/vit_b_16-{digits}.pth",
        meta={"categories": names},
        transforms=member.transforms,
    )
    loaded = load_pretrained(weights, heads=3, unpickle=True)
    agree(loaded.model, source, images())
    assert loaded.classes == names
    assert loaded.mean == tuple(theirs.mean)
    assert hasattr(member, "url")
    assert len(member.meta["categories"]) == 1000


def test_each_family_is_here() -> None:
    assert list(FAMILIES) == ["torchvision", "huggingface", "dinov2", "timm"]
