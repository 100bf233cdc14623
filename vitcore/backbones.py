# SPDX-License-Identifier: MIT
"""A ResNet of torchvision's as patch embedding, in two readings; chapter 10 uses both."""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import check_choice, check_flag, check_place, check_positive, check_tensor
from .patches import patch_grid, register_patch_embed

__all__ = ["ResNetPatchEmbed"]

RESTORING: ContextVar[bool] = ContextVar("restoring", default=False)
"""Whether the weights of a file follow, so that none have to be fetched."""


@register_patch_embed("resnet")
class ResNetPatchEmbed(nn.Module):
    """Tokens from a ResNet: ``backbone``, its stem and stages, then ``proj``, a linear map to D.

    "feature_map": the ResNet sees the whole image; each pixel of the map behind a stage, which
    stands for P x P pixels of the image, is a token. "patches": it sees each patch by itself, all
    in one batch; the mean over what comes out is the token, which knows nothing of its neighbours.

    ``transforms`` is what belongs to the weights, or None: its ``mean`` and ``std`` are those that
    images are to be normalised by; ``enlarge`` stands for its resizing.

    Args:
        image_size, patch_size, dim: as of linear patches. in_channels: 3.
        network: a ResNet by its name in torchvision.models.
        weights: a name in torchvision's enum of its weights, which are downloaded once, or None
            for random ones.
        reading: "feature_map" or "patches".
        stage: the last stage used, 1 to 4. None: in "patches" the last, else the last that fits.
        frozen: no gradient reaches the ResNet's weights, and its BatchNorm stays as in evaluation.
        enlarge: how many times as large the ResNet sees an image or a patch.

    Raises TypeError, ValueError for what does not fit, ImportError without torchvision,
    DownloadError for weights that cannot be had.
    Source: Dosovitskiy et al. (2021), section 3.1, "Hybrid Architecture"; He et al. (2016).
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        dim: int,
        network: str = "resnet18",
        weights: str | None = "DEFAULT",
        reading: str = "feature_map",
        stage: int | None = None,
        frozen: bool = True,
        enlarge: int = 1,
    ) -> None:
        super().__init__()
        if check_positive("in_channels", in_channels) != 3:
            raise ValueError(f"in_channels is {in_channels}; give 3, as a ResNet has.")
        dim, self.enlarge = check_positive("dim", dim), check_positive("enlarge", enlarge)
        self.grid = patch_grid(image_size, patch_size)
        self.patch_size, self.frozen = int(patch_size), check_flag("frozen", frozen)
        self.reading = check_choice("reading", reading, ("feature_map", "patches"))
        made, self.weights = self.make_network(network, weights)
        self.transforms = None if self.weights is None else self.weights.transforms()
        self.backbone, channels = self._cut(made, stage)
        self.backbone.requires_grad_(not self.frozen)
        self.proj = nn.Linear(channels, dim)
        self.train()
        self.reset_parameters()

    def make_network(self, network: str, weights: str | None) -> tuple[nn.Module, Any]:
        """Make the ResNet, and the member of its enum of weights; derive to make another."""
        from .data._torchvision import import_torchvision

        models = import_torchvision().models
        known = [name for name in models.list_models(module=models) if "resne" in name]
        made = models.get_model(check_choice("network", network, known), weights=None)
        if weights is None:
            return made, None
        enum = models.get_model_weights(network)
        return made, enum[check_choice("weights", weights, list(enum.__members__))]

    def _cut(self, network: nn.Module, stage: int | None) -> tuple[nn.Sequential, int]:
        """Keep stem and stages, up to the last that is used; give the channels behind it too."""
        parts: list[tuple[str, nn.Module]] = []
        ends: list[tuple[int, int, int]] = []  # by stage: parts, channels, pixels for each of its
        x = torch.zeros(1, 3, 64, 64)
        for name, part in network.eval().named_children():
            if len(ends) < 4:
                x = part(x).detach()
                parts.append((name, part))
                if name.startswith("layer"):
                    ends.append((len(parts), x.shape[1], 64 // x.shape[-1]))
        steps, wanted = [step for _, _, step in ends], self.patch_size * self.enlarge
        fit = [n for n, step in enumerate(steps, 1) if step == wanted or self.reading == "patches"]
        last = (fit or [0])[-1] if stage is None else stage
        if last not in fit:
            raise ValueError(
                f"stage is {stage} and patch_size times enlarge {wanted}; give two that fit, for a "
                f"pixel behind stages 1 to 4 is {', '.join(map(str, steps))} pixels of the image."
            )
        count, channels, _ = ends[last - 1]
        return nn.Sequential(OrderedDict(parts[:count])), channels

    def reset_parameters(self) -> None:
        """Set the ResNet to its start: pretrained, or drawn as He et al. (2015) say."""
        if self.proj.weight.is_meta or RESTORING.get():
            return
        if self.weights is not None:
            found = self._fetch()  # with the head
            self.backbone.load_state_dict({k: found[k] for k in self.backbone.state_dict()})
        for module in self.backbone.modules() if self.weights is None else ():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _fetch(self) -> dict[str, Tensor]:
        """Have torchvision download the weights, or take them from its cache."""
        from .data import DownloadError

        try:
            how: dict[str, Any] = {"check_hash": True, "weights_only": True, "progress": False}
            return self.weights.get_state_dict(map_location="cpu", **how)
        except Exception as error:  # of the network, the disk, the checksum or the file
            place = Path(torch.hub.get_dir(), "checkpoints", self.weights.url.rsplit("/", 1)[-1])
            told = " ".join(str(error).split())[:100]
            raise DownloadError(
                f"could not download {self.weights} ({told}); try again, put {self.weights.url} "
                f"at {place}, or give weights=None for random ones."
            ) from error

    def train(self, mode: bool = True) -> ResNetPatchEmbed:
        """Go into training, in which a frozen ResNet stays as in evaluation."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, 3, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        check_tensor("images", images, "B, 3, H, W")
        check_place("images", images, self.proj.weight)
        grid = patch_grid(images.shape[2:], self.patch_size)
        x, p, alone = images.to(self.proj.weight.dtype), self.patch_size, self.reading == "patches"
        if alone:
            x = rearrange(x, "b c (rows p1) (cols p2) -> (b rows cols) c p1 p2", p1=p, p2=p)
        if self.enlarge > 1:
            x = F.interpolate(x, scale_factor=float(self.enlarge), mode="bilinear")
        x = self.backbone(x.contiguous(memory_format=torch.channels_last))
        if alone:  # (B·N, C', h, w) to (B, N, C')
            x = x.mean(dim=(2, 3)).unflatten(0, (-1, grid[0] * grid[1]))
        else:  # (B, C', rows, columns) to (B, N, C')
            x = x.flatten(2).transpose(1, 2)
        return self.proj(x), grid
