# SPDX-License-Identifier: MIT
"""Pretrained weights give their source's logits: a table of all families and several sizes.

python -m benchmarks.parity gives random weights to the sources' own classes, loads them into a ViT
as files, and writes to runs/parity/record.json how far the logits of both lie apart. It needs timm
and transformers; what is not installed is left out, and the record says so. No class of DINOv2's
own is on a package index, so its files are made of timm's, with positions resized as published.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitbook import studies
from vitbook.torchvision import import_torchvision
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.weights import load_pretrained

Size = tuple[int, int]
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scale:
    """How large the models are, and at which sizes of images they are compared."""

    dim: int = 192
    depth: int = 12
    heads: int = 3
    side: int = 224
    patch: int = 16
    classes: int = 1000
    sizes: tuple[Size, ...] = ((224, 224), (288, 288), (160, 160), (192, 256))


@dataclass(frozen=True)
class Case:
    """One family: its tensors and config as files have them, and its own answer at a size."""

    name: str
    weights: dict[str, Tensor]
    config: dict[str, Any]
    at: Callable[[Size], Model]
    square: bool = False  # whether the source knows square images alone


def drawn(model: Any) -> Any:
    """Draw every parameter so that each matters: norms, biases and layer scale as well."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            elif parameter.ndim == 1 and name.endswith(("weight", "gamma", "lambda1")):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return model.eval()


def timm_cases(scale: Scale) -> Iterator[Case]:
    """What has timm's names: its own models, DeiT's, and DINOv2's files."""
    from timm.models import VisionTransformer
    from timm.models.deit import VisionTransformerDistilled

    shape: dict[str, Any] = {
        "img_size": scale.side, "patch_size": scale.patch, "embed_dim": scale.dim,
        "depth": scale.depth, "num_heads": scale.heads, "num_classes": scale.classes,
    }  # fmt: skip
    config = {"num_attention_heads": scale.heads}
    scaled = {"init_values": 1e-5}
    bare: dict[str, Any] = {"no_embed_class": True, **scaled}
    for name, kind, options in (
        ("timm", VisionTransformer, {}),
        ("timm, mean of the patches", VisionTransformer, {"global_pool": "avg"}),
        ("timm, registers", VisionTransformer, {"reg_tokens": 4}),
        ("DeiT, distilled", VisionTransformerDistilled, {}),
        ("DeiT-3", VisionTransformer, bare),
    ):
        model = drawn(kind(**shape, **options, dynamic_img_size=True))
        yield Case(name, model.state_dict(), config, partial(lambda model, size: model, model))
    for registers in (0, 4):
        options = {"num_classes": 0, **(bare if registers else scaled), "reg_tokens": registers}
        model = drawn(VisionTransformer(**{**shape, **options}))
        weights = {**model.state_dict(), "mask_token": torch.zeros(1, scale.dim)}
        if registers:  # there the class token has a position, and the registers have none
            own = torch.randn(1, 1, scale.dim, generator=torch.Generator().manual_seed(1))
            weights["register_tokens"] = weights.pop("reg_token")
            weights["cls_token"] = weights["cls_token"] - own
            weights["pos_embed"] = torch.cat([own, weights["pos_embed"]], dim=1)

        def at(size: Size, options: Any = options, model: Any = model) -> Model:
            other = VisionTransformer(**{**shape, **options, "img_size": size})
            registers = model.reg_token is not None
            table = published_table(model.pos_embed.detach(), size, scale, registers)
            other.load_state_dict({**model.state_dict(), "pos_embed": table})
            return other.eval()

        yield Case(f"DINOv2{', registers' * bool(registers)}", weights, config, at)


def published_table(table: Tensor, size: Size, scale: Scale, registers: bool) -> Tensor:
    """DINOv2's positions at another size: the sides plus 0.1, or with registers antialiased."""
    grid, old = (size[0] // scale.patch, size[1] // scale.patch), scale.side // scale.patch
    if grid == (old, old):
        return table
    how: dict[str, Any] = {"size": grid, "antialias": True}
    if not registers:
        how = {"scale_factor": ((grid[0] + 0.1) / old, (grid[1] + 0.1) / old)}
    prefix = 0 if registers else 1
    square = table[:, prefix:].reshape(1, old, old, scale.dim).permute(0, 3, 1, 2)
    square = F.interpolate(square, mode="bicubic", **how)
    patches = square.permute(0, 2, 3, 1).reshape(1, -1, scale.dim)
    return torch.cat([table[:, :prefix], patches], dim=1)


def torchvision_cases(scale: Scale) -> Iterator[Case]:
    """torchvision's class, whose positions its own function resizes."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    def make(side: int) -> Any:
        return VisionTransformer(
            image_size=side, patch_size=scale.patch, num_layers=scale.depth, num_heads=scale.heads,
            hidden_dim=scale.dim, mlp_dim=4 * scale.dim, num_classes=scale.classes,
        )  # fmt: skip

    model = drawn(make(scale.side))

    def at(size: Size) -> Model:
        other = make(size[0])
        given = dict(model.state_dict())
        other.load_state_dict(interpolate_embeddings(size[0], scale.patch, given))  # type: ignore[arg-type]
        return other.eval()

    config = {"num_attention_heads": scale.heads}
    yield Case("torchvision", model.state_dict(), config, at, square=True)


def huggingface_cases(scale: Scale) -> Iterator[Case]:
    """transformers' classes, as it writes them to files."""
    transformers: Any = import_module("transformers")
    shape: dict[str, Any] = {
        "hidden_size": scale.dim, "num_hidden_layers": scale.depth, "mlp_ratio": 4,
        "num_attention_heads": scale.heads, "intermediate_size": 4 * scale.dim,
        "image_size": scale.side, "patch_size": scale.patch, "num_labels": scale.classes,
    }  # fmt: skip
    for name, config, kind in (
        ("Hugging Face, ViT", "ViTConfig", "ViTForImageClassification"),
        ("Hugging Face, DeiT", "DeiTConfig", "DeiTForImageClassification"),
        ("Hugging Face, DeiT, distilled", "DeiTConfig", "DeiTForImageClassificationWithTeacher"),
        ("Hugging Face, DINOv2", "Dinov2Config", "Dinov2ForImageClassification"),
        ("Hugging Face, DINOv2, registers", "Dinov2WithRegistersConfig",
         "Dinov2WithRegistersForImageClassification"),
    ):  # fmt: skip
        model = drawn(getattr(transformers, kind)(getattr(transformers, config)(**shape)))
        resizing = {} if "Dinov2" in kind else {"interpolate_pos_encoding": True}

        def at(size: Size, model: Any = model, resizing: Any = resizing) -> Model:
            return lambda images: model(images, **resizing).logits

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            weights = load_file(Path(folder) / "model.safetensors")
            written = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        yield Case(name, weights, written, at)


SOURCES = {
    "timm": timm_cases,
    "torchvision": torchvision_cases,
    "transformers": huggingface_cases,
}


@torch.no_grad()
def compare(case: Case, scale: Scale) -> list[dict[str, Any]]:
    """Load a family's file at every size; give the largest difference of logits of two images."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in case.weights.items()}, path)
        for size in scale.sizes:
            if case.square and size[0] != size[1]:
                continue
            loaded = load_pretrained(path, config=case.config, image_size=size)
            images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
            ours, theirs = loaded.model(images), case.at(size)(images)
            rows.append({
                "family": case.name,
                "size": list(size),
                "difference": float(f"{(ours - theirs).abs().max().item():.3g}"),
                "spread": float(f"{theirs.std(dim=0).mean().item():.3g}"),  # over the images
            })  # fmt: skip
    return rows


def run(
    out: Path, scale: Scale | None = None, sources: Sequence[str] = tuple(SOURCES)
) -> dict[str, Any]:
    """Compare all families of the installed sources, write OUT/record.json and return it."""
    code, started, scale = commit(), time.perf_counter(), scale or Scale()
    import_torchvision()  # before timm and transformers, which import it
    there = [name for name in sources if find_spec(name)]
    cases = [case for name in there for case in SOURCES[name](scale)]
    rows = [row for case in cases for row in compare(case, scale)]
    found = {name: metadata.version(name) for name in there}
    record = studies.ParityRecord.from_dict(
        {
            "kind": studies.ParityRecord.KIND,
            "command": "python -m benchmarks.parity",
            "commit": code,
            "date": now(),
            "hardware": hardware(torch.device("cpu")),
            "versions": {**versions(), **found},
            "left_out": [name for name in SOURCES if name not in there],
            "parameters": sum(t.numel() for t in cases[0].weights.values()),
            "wall_seconds": round(time.perf_counter() - started, 2),
            "rows": rows,
        }
    )
    record.write(out / RECORD)
    return record.to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, compare, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.add_argument("--out", default="runs/parity", metavar="DIR")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        record = run(Path(given.out))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    for row in record["rows"]:
        size = " x ".join(map(str, row["size"]))
        print(f"{row['family']:32} {size:10} {row['difference']:.1e}")
    if record["left_out"]:
        print(f"left out, for it is not installed: {', '.join(record['left_out'])}")


if __name__ == "__main__":
    main()
