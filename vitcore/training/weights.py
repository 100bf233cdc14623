# SPDX-License-Identifier: MIT
"""A trained model in one file: weights, configuration, class names and normalisation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..vit import ViT, ViTConfig
from .device import resolve_device, unwrap
from .files import Weights, read_tensors, write_tensors

FORMAT = "vitcore-weights-1"


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
        if images.dtype == torch.uint8:
            images = images.float() / 255
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std


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
    if not hasattr(config, "to_json"):
        raise TypeError(
            f"save_weights needs a vitcore ViT, whose .config can rebuild it, not "
            f"{type(inner).__name__}; save other models with safetensors.torch.save_model."
        )
    if len(mean) != config.in_channels or len(std) != config.in_channels:
        raise ValueError(
            f"mean and std need one number for each of the {config.in_channels} channels, "
            f"not {len(mean)} and {len(std)}."
        )
    if config.num_classes and len(classes) != config.num_classes:
        raise ValueError(
            f"the model has {config.num_classes} classes, but {len(classes)} names were given."
        )
    metadata = {
        "format": FORMAT,
        "config": config.to_json(),
        "classes": json.dumps(list(classes)),
        "mean": json.dumps([float(value) for value in mean]),
        "std": json.dumps([float(value) for value in std]),
        "extra": json.dumps(dict(extra or {})),
    }
    write_tensors(Path(path), inner.state_dict(), metadata)


def strip_prefixes(weights: Weights) -> Weights:
    """Names without the `_orig_mod.` and `module.` that torch.compile and DDP put before them."""
    stripped = {}
    for name, value in weights.items():
        while name.startswith(("_orig_mod.", "module.")):
            name = name.split(".", 1)[1]
        stripped[name] = value
    return stripped


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_weights(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> LoadedModel:
    """The model that `save_weights` wrote, rebuilt from the file alone, in evaluation mode.

    Raises FileNotFoundError where there is no file, and ValueError where it is not safetensors,
    lacks what save_weights writes, or holds other tensors than its configuration asks for.
    """
    path = Path(path)
    weights, metadata = read_tensors(path, "weights file")
    weights = strip_prefixes(weights)
    missing = [key for key in ("config", "classes", "mean", "std") if key not in metadata]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)} in its metadata: it was not written by "
            "vitcore.training.save_weights, so the model it belongs to is not known."
        )
    try:
        config = ViTConfig.from_json(metadata["config"])
        classes, mean, std, extra = (
            json.loads(metadata.get(key, "{}")) for key in ("classes", "mean", "std", "extra")
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"the metadata of {path} cannot be read: {error}") from error
    model = ViT(config)
    expected = model.state_dict()
    if expected.keys() - weights.keys():
        raise ValueError(f"{path} lacks the tensors {_some(expected.keys() - weights.keys())}.")
    if weights.keys() - expected.keys():
        raise ValueError(
            f"{path} holds tensors that its configuration has no place for: "
            f"{_some(weights.keys() - expected.keys())}."
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ValueError(
                f"{name} in {path} has shape {tuple(weights[name].shape)}, but its configuration "
                f"asks for {tuple(value.shape)}."
            )
    model.load_state_dict(weights)
    model.eval().to(resolve_device(device))
    return LoadedModel(model, config, list(classes), tuple(mean), tuple(std), dict(extra))
