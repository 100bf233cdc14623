# SPDX-License-Identifier: MIT
"""Patch embeddings that look beyond one patch; chapter 7 compares them with the linear one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._inputs import check_place, check_positive, check_tensor
from .patches import patch_grid, register_patch_embed

__all__ = ["ConvStem"]


@register_patch_embed("conv_stem")
class ConvStem(nn.Module):
    """Tokens from 3x3 convolutions with pooling: neighbours overlap, where patches only touch.

    Each layer is a convolution, a max-pooling over 3x3 pixels that halves both sides, and ReLU.
    As many layers as it takes to make one token of P x P pixels: two for P = 4, so that 32 pixels
    give 8 x 8 tokens, as many as linear patches of that size, each of which sees 13 x 13 pixels.

    Args:
        image_size, in_channels: as of linear patches.
        patch_size: P, the pixels from one token to the next, a power of two from 2.
        dim: D, the width of the model, and the channels of the last layer.
        hidden: the channels of the layers before; None for D / 2.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Hassani et al. (2021), section 3.2; Xiao et al. (2021) on what it does for training.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        dim: int,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        in_channels, dim = check_positive("in_channels", in_channels), check_positive("dim", dim)
        hidden = check_positive("hidden", max(1, dim // 2) if hidden is None else hidden)
        self.grid = patch_grid(image_size, patch_size)
        patch_size = int(patch_size)
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise ValueError(f"patch_size is {patch_size}; give a power of two from 2, such as 4.")
        self.patch_size = patch_size
        self.in_channels = in_channels
        depth = patch_size.bit_length() - 1
        widths = [in_channels, *[hidden] * (depth - 1), dim]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], kernel_size=3, padding=1) for i in range(depth)
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels so that a ReLU after each keeps the size of the values (He, 2015)."""
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, C, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        weight = next(self.parameters())
        check_tensor("images", images, f"B, {self.in_channels}, H, W")
        check_place("images", images, weight)
        grid = patch_grid(images.shape[2:], self.patch_size)
        # With the channels of a pixel side by side pooling is faster, and tokens lie in order.
        images = images.to(weight.dtype, memory_format=torch.channels_last)
        for conv in self.convs:
            # The same as pooling after the ReLU, which then sees a quarter of the numbers.
            images = torch.relu(self.pool(conv(images)))
        return torch.flatten(images, 2).transpose(1, 2), grid  # (B, N, D)
