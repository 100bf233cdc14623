# SPDX-License-Identifier: MIT
"""Writes a trained model for use elsewhere: ONNX, int8, torch.export, or a page of the book.

The first three hold a graph with the normalisation inside: it turns `images`, float32 (B, C, H, W)
in [0, 1], into `logits` (B, K), for any batch and for all H and W that patches divide, from two
patches a side; positions are resized in the graph. int8 is an ONNX file too, quantised by ONNX
Runtime: 8-bit weights in linear layers, inputs rounded as they come. (torch deprecates its own.)

The file for a page is what `save_weights` writes, so that `load_weights` reads it as well:
safetensors with the tensors in float16 (the values, not the arithmetic, are rounded) and, in the
metadata, each in JSON, `config` (ViTConfig's fields), `classes`, `mean` and `std` (per channel, of
pixels in [0, 1]), and `extra`. There stand `dataset`, `recipe` and `test_accuracy`, as far as the
source has them, and `exported_from`: the SHA-256 of the source file, which tells a copy that is
older than its source. The metadata of the graphs hold `classes` and these.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ._inputs import check_choice
from .training import LoadedModel, load_weights, replace_file, save_weights

FORMATS = ("onnx", "int8", "torch", "web")
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
KEPT = ("dataset", "recipe", "test_accuracy")


def export_web(
    weights: str | os.PathLike[str], out: str | os.PathLike[str], *, half: bool = True
) -> int:
    """Write `weights` to `out` for a page and return the size in bytes; half=False keeps float32.

    Raises FileNotFoundError, ValueError where `weights` is no file of `save_weights`, or holds
    values beyond float16.
    """
    loaded = load_weights(weights)
    largest = max(value.abs().max().item() for value in loaded.model.state_dict().values())
    if half and largest > torch.finfo(torch.float16).max:
        raise ValueError(f"{weights} holds {largest:g}, beyond float16: add --float32.")
    save_weights(
        out,
        loaded.model.half() if half else loaded.model,
        classes=loaded.classes,
        mean=loaded.mean,
        std=loaded.std,
        extra=_origin(weights, loaded),
    )
    return Path(out).stat().st_size


def export(weights: Any, out: Any, format: str = "onnx", *, half: bool = True) -> int:
    """Write `weights` to `out` in one of `FORMATS`, replaced at once; return the size in bytes.

    Raises as `export_web` does, ValueError where torch cannot trace the model or the format is
    unknown, RuntimeError where a library is missing, OSError where `out` cannot be written.
    """
    if check_choice("format", format, FORMATS) == "web":
        return export_web(weights, out, half=half)
    missing = " ".join(name for name in LIBRARIES if importlib.util.find_spec(name) is None)
    if missing and format != "torch":
        raise RuntimeError(f"{format} needs what is not installed here: pip install {missing}.")
    loaded = load_weights(weights)
    about = {"classes": loaded.classes, **_origin(weights, loaded)}
    metadata = {name: json.dumps(value) for name, value in about.items()}
    program = trace(loaded)
    try:
        with replace_file(out) as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch tells its own developers
            if format == "torch":
                with temporary.open("wb") as file:
                    torch.export.save(program, file, extra_files=metadata)
            else:
                _write_onnx(program, metadata, temporary, int8=format == "int8")
    except OSError as error:
        raise OSError(f"could not write {out} ({error}): choose another file.") from error
    return Path(out).stat().st_size


def trace(loaded: LoadedModel) -> ExportedProgram:
    """The graph of a model with its normalisation, the number and the size of images left open.

    Raises ValueError where torch cannot trace it, which may happen to parts of one's own.
    """
    side = loaded.config.patch_size
    rows, cols = (side * Dim(name, min=2, max=4096) for name in ("rows", "cols"))
    shapes = {"images": {0: Dim("batch"), 2: rows, 3: cols}}
    images = torch.zeros(2, loaded.config.in_channels, 3 * side, 5 * side)
    try:
        program = torch.export.export(_FromPixels(loaded), (images,), dynamic_shapes=shapes)
    except Exception as error:  # torch raises errors of every kind
        told = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ValueError(f"torch cannot trace this model ({told}): see torch.export.") from error
    for node in program.graph.nodes:  # paths of the machine that exported it
        node.meta.pop("stack_trace", None)
    return program


class _FromPixels(nn.Module):
    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__()
        self.model, self.normalise = loaded.model, loaded.normalise
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(self.normalise(images))


def _write_onnx(program: ExportedProgram, metadata: dict[str, str], path: Path, int8: bool) -> None:
    made: Any = torch.onnx.export(program, dynamo=True, verbose=False, output_names=["logits"])
    for node in made.model.graph:  # which layer of torch it came from: a third of a small file
        node.metadata_props.clear()
    # torch has simplified the graph already, which ONNX Runtime else asks for in a warning.
    ready = {"onnx.quant.pre_process": "onnxruntime.quant"} if int8 else {}
    made.model.metadata_props.update({**metadata, **ready})
    path.write_bytes(made.model_proto.SerializeToString())
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # One scale for each output. Unsigned: signed weights overflow on processors without VNNI.
        options: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QUInt8}
        quantize_dynamic(path, path, ["MatMul", "Gemm"], **options)


def _origin(weights: str | os.PathLike[str], loaded: LoadedModel) -> dict[str, Any]:
    """What the source says of itself, and its checksum."""
    known = {name: loaded.metadata[name] for name in KEPT if name in loaded.metadata}
    return {**known, "exported_from": hashlib.sha256(Path(weights).read_bytes()).hexdigest()}
