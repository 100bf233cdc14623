# SPDX-License-Identifier: MIT
"""From an image to a sequence of patches and back; chapter 1 of the book builds it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from ._inputs import T, check_place, check_positive, check_tensor, is_recorded, register, to_pair


def patch_grid(image_size: int | tuple[int, ...], patch_size: int) -> tuple[int, int]:
    """Count the (rows, columns) of patches in an image of ``image_size`` pixels.

    Raises TypeError, ValueError for sizes that are not positive ints or that do not divide.
    """
    height, width = to_pair(image_size)
    patch_size = check_positive("patch_size", patch_size)
    if not is_recorded() and (height % patch_size or width % patch_size):
        image, least = f"image of {height} x {width} pixels", min(height, width)
        if patch_size > least:
            raise ValueError(
                f"patch_size {patch_size} is larger than the {image}; give at most {least}."
            )
        raise ValueError(
            f"an {image} does not divide into patches of {patch_size}; choose a patch_size that "
            "divides both sides, or pad, crop or resize the image."
        )
    return height // patch_size, width // patch_size


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into square patches and lay each out as one row of numbers.

    Patches follow each other row by row through the grid. Inside a patch the order is
    (channel, row, column), the order in which a convolution stores its kernel, so that a linear
    map on these rows is the convolution of :class:`PatchEmbed`.

    Images (B, C, H, W) of any type and patches of P pixels give (B, N, C·P·P), N = H/P · W/P.
    Raises TypeError, ValueError if the images have not four axes or do not divide into patches.
    Source: Dosovitskiy et al. (2021), section 3.1: x in R^(H·W·C) becomes x_p in R^(N·(P²·C)).
    """
    check_tensor("images", images, "B, C, H, W", floating=False)
    patch_grid(images.shape[2:], patch_size)
    pattern = "b c (rows p1) (cols p2) -> b (rows cols) (c p1 p2)"
    return rearrange(images, pattern, p1=patch_size, p2=patch_size)


def unpatchify(tokens: Tensor, patch_size: int, image_size: int | tuple[int, int]) -> Tensor:
    """Put patches back together into images: the inverse of :func:`patchify`.

    Tokens (B, N, C·P·P), patches of P pixels and a size (H, W) or H = W give (B, C, H, W).
    Raises TypeError, ValueError if the number or length of the tokens does not fit the sizes.
    """
    rows, cols = patch_grid(image_size, patch_size)
    check_tensor("tokens", tokens, f"B, {rows * cols}, C·P·P", floating=False)
    if tokens.shape[2] % patch_size**2:
        raise ValueError(
            f"tokens has {tokens.shape[2]} numbers each; give C times {patch_size}², as many as a "
            f"patch of patch_size {patch_size} has."
        )
    pattern = "b (rows cols) (c p1 p2) -> b c (rows p1) (cols p2)"
    return rearrange(tokens, pattern, rows=rows, p1=patch_size, p2=patch_size)


PATCH_EMBEDS: dict[str, type[nn.Module]] = {}
"""The patch embeddings by name; each gives ``(tokens, (rows, columns))`` and has ``.grid``."""


def register_patch_embed(name: str) -> Callable[[T], T]:
    """Make a class available as ``ViTConfig(patch_embed=name)``.

    The class is made as ``cls(image_size, patch_size, in_channels, dim, **options)``, has
    ``.grid``, the (rows, columns) for ``image_size``, and its ``forward(images)`` gives
    ``(tokens (B, N, D), (rows, columns))``. It owns its size checks.
    """
    return register(PATCH_EMBEDS, name)


@register_patch_embed("linear")
class PatchEmbed(nn.Module):
    """Project every patch to D numbers: :func:`patchify` and one linear map, as a convolution.

    Kernel and stride are both P, so that every patch is seen once and by itself.

    ``image_size`` is H = W in pixels, or (H, W), for which ``.grid`` holds; ``patch_size`` P in
    pixels, ``in_channels`` C of an image, ``dim`` D, the width of the model.
    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Dosovitskiy et al. (2021), equation 1: the patch embedding projection E.
    """

    def __init__(
        self, image_size: int | tuple[int, int], patch_size: int, in_channels: int, dim: int
    ) -> None:
        super().__init__()
        self.in_channels = check_positive("in_channels", in_channels)
        dim = check_positive("dim", dim)
        self.grid = patch_grid(image_size, patch_size)
        self.patch_size = int(patch_size)
        self.proj = nn.Conv2d(self.in_channels, dim, self.patch_size, stride=self.patch_size)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, C, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        check_tensor("images", images, f"B, {self.in_channels}, H, W")
        check_place("images", images, self.proj.weight)
        grid = patch_grid(images.shape[2:], self.patch_size)
        features = self.proj(images.to(self.proj.weight.dtype))  # (B, D, rows, columns)
        return torch.flatten(features, 2).transpose(1, 2), grid  # (B, N, D)
