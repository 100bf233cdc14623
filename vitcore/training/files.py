# SPDX-License-Identifier: MIT
"""Files of tensors, complete or absent also after a power cut; a trained model in one of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._inputs import shown
from ..backbones import RESTORING
from ..data.download import locked
from ..data.pixels import check_statistics, normalise
from ..vit import ViT, ViTConfig
from .arguments import checked
from .device import resolve_device, unwrap

Weights = dict[str, Tensor]

CHECKSUM = "sha256"
FORMAT = "vitcore-weights-2"
UNCHECKED = (None, "pt", "vitcore-weights-1")  # formats without a checksum; "pt" is of others
_KNOWN = ("config", "classes", "mean", "std")  # what the metadata must hold, as JSON


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place at the end and only if all went well.

    Whoever reads `path` finds the old file or the new one, complete, also after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and remove what a killed one left half written.

    The lock ends with the process and its workers, however they end. Windows and some network file
    systems have none: there nothing is kept out. Raises BlockingIOError where another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            busy = f"another run is writing to {folder}; wait for its end, or take another."
            raise BlockingIOError(busy) from error
        for left in folder.glob(".*.safetensors.*.tmp"):
            left.unlink(missing_ok=True)
        yield


def checksum(tensors: Weights, metadata: dict[str, str]) -> str:
    """Of names, types, shapes and values of the tensors, and of the rest of the metadata."""
    rest = sorted(item for item in metadata.items() if item[0] != CHECKSUM)
    digest = hashlib.sha256(json.dumps(rest).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Weights, metadata: dict[str, str]) -> str:
    """Replace `path` by a safetensors file with a checksum, which is returned; raises OSError
    where it cannot be written."""
    from safetensors.torch import save

    # safetensors refuses tensors that share memory, which tied weights do.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    digest = checksum(tensors, metadata)
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(save(tensors, {**metadata, CHECKSUM: digest}))
    except OSError as error:
        wrong = f"could not write {path} ({error})"
        raise OSError(f"{wrong}: check the space on the disk and the permissions.") from error
    return digest


def read_tensors(path: Path, what: str) -> tuple[Weights, dict[str, str]]:
    """The tensors and the metadata of a safetensors file; `what` names it in messages.

    Raises FileNotFoundError, and ValueError where it is not a complete safetensors file or
    differs from what was written.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}: check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged header leads to errors of every kind
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): it may be damaged, or saved in "
            "another format such as a pickled .pt, which vitcore does not open."
        ) from error
    known = CHECKSUM in metadata or metadata.get("format") not in UNCHECKED
    if known and metadata.get(CHECKSUM) != checksum(tensors, metadata):
        raise ValueError(f"{path} is damaged, for its checksum differs; take another copy of it.")
    return tensors, metadata


@dataclass
class LoadedModel:
    """A trained model and what is needed to use it: see `load_weights`."""

    model: nn.Module
    config: ViTConfig
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metadata: dict[str, Any]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W), or float ones in [0, 1], as the model was trained on them."""
        return normalise(images, self.mean, self.std)


@checked
def save_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a ViT's weights as safetensors, with its configuration, the class names and the
    normalisation (per channel, for images in [0, 1]) in the metadata. Replaces `path` at once.

    extra: anything else worth keeping, as JSON values.
    """
    inner = unwrap(model)
    config: Any = getattr(inner, "config", None)
    if not hasattr(config, "to_dict"):
        given = f"the model is a {type(inner).__name__}, which no .config can rebuild"
        raise TypeError(f"{given}; give a ViT, and use safetensors.torch.save_model for others.")
    if (reads := getattr(getattr(inner, "head", None), "in_features", config.dim)) != config.dim:
        given = f"the head reads {reads} numbers, not the {config.dim} of a ViT's"
        raise ValueError(f"{given}; call reset_head first, or keep the source's own file.")
    means, stds = _check_use(config, classes, mean, std)
    _check_finite(inner.state_dict(), "the model")
    values = {"classes": list(classes), "mean": means, "std": stds, "extra": dict(extra or {})}
    metadata = {name: json.dumps(value) for name, value in values.items()}
    metadata |= {"format": FORMAT, "config": json.dumps(config.to_dict())}
    write_tensors(Path(path), inner.state_dict(), metadata)


def _check_use(config: ViTConfig, classes: Any, mean: Any, std: Any) -> tuple[Any, ...]:
    """Raise one clear sentence unless names and normalisation suit the model; give the latter."""
    if not isinstance(classes, (list, tuple)) or not all(isinstance(n, str) for n in classes):
        raise TypeError(f"classes is {shown(classes)}; give a list of names.")
    if config.num_classes and len(classes) != config.num_classes:
        names = f"{len(classes)} names were given"
        raise ValueError(f"the model has {config.num_classes} classes, but {names}.")
    return check_statistics(mean, std, config.in_channels)


def _check_finite(weights: Weights, where: str) -> None:
    broken = [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(f"{where} has weights that are not finite: {broken[0]}; train again.")


@checked
def load_weights(path: str | os.PathLike[str], *, device: Any = "cpu") -> LoadedModel:
    """The model that `save_weights` wrote, rebuilt from the file alone, in evaluation mode.

    Raises FileNotFoundError where there is no file, and ValueError where it is not safetensors,
    lacks what save_weights writes, or holds other tensors than its configuration asks for.
    """
    path = Path(path)
    weights, metadata = read_tensors(path, "weights file")
    if missing := [key for key in _KNOWN if key not in metadata]:
        lacking = f"{path} has no {', '.join(missing)} in its metadata"
        raise ValueError(f"{lacking}; only what save_weights wrote says what model it is of.")
    try:
        config, *use = (json.loads(metadata[key]) for key in _KNOWN)
        config, extra = ViTConfig.from_dict(config), json.loads(metadata.get("extra", "{}"))
        mean, std = _check_use(config, *use)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the metadata of {path} cannot be read: {error}") from error
    _check_shapes(path, config, weights)
    _check_finite(weights, str(path))
    token = RESTORING.set(True)  # a pretrained part is in the file as well
    try:
        model = ViT(config)
    finally:
        RESTORING.reset(token)
    model.load_state_dict(weights)
    model.eval().to(resolve_device(device))
    return LoadedModel(model, config, list(use[0]), mean, std, dict(extra))


def _check_shapes(path: Path, config: ViTConfig, weights: Weights) -> None:
    """Compare the tensors with those of the configuration before any memory is taken for it."""
    with torch.device("meta"):
        # A block has a dozen tensors; more blocks than tensors would take for ever to make.
        model = ViT(replace(config, depth=min(config.depth, len(weights))))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    differ = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
    if differ:
        shapes = [str(tensors.get(differ[0], "missing")) for tensors in (found, expected)]
        one = f"{differ[0]} is {shapes[0]} in the file and {shapes[1]} in the configuration"
        raise ValueError(f"{path} does not fit its configuration in {len(differ)} tensors: {one}.")
