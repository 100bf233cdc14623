# SPDX-License-Identifier: MIT
"""Patch embeddings by other ways of cutting: overlapping, shifted, flexible, merged in stages;
chapter 10 compares them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import check_place, check_positive, check_tensor, check_whole, shown
from .blocks import Block
from .embeddings import TokenLayout, sincos_positions_2d
from .patches import PatchEmbed, patch_grid, patchify, register_patch_embed

__all__ = [
    "FlexiblePatchEmbed",
    "HierarchicalPatchEmbed",
    "OverlappingPatchEmbed",
    "PatchMerging",
    "ShiftedPatchEmbed",
    "resize_projection",
]


@register_patch_embed("overlapping")
class OverlappingPatchEmbed(PatchEmbed):
    """Linear patches that reach beyond their own square: one convolution of stride P whose kernel
    has P + 2 · ``overlap`` pixels, with zeros around the image; the grid is that of linear patches.

    Args:
        image_size, patch_size, in_channels, dim: as of linear patches.
        overlap: how many pixels a patch reaches over each of its edges; None for P / 2.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Wang et al. (2022), PVT v2, section 3.2: overlapping patch embedding.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        dim: int,
        overlap: int | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, in_channels, dim)
        overlap = check_whole("overlap", self.patch_size // 2 if overlap is None else overlap)
        side = self.patch_size + 2 * overlap
        self.proj = nn.Conv2d(in_channels, dim, side, stride=self.patch_size, padding=overlap)


@register_patch_embed("shifted")
class ShiftedPatchEmbed(nn.Module):
    """Shifted patch tokenisation: each token sees its patch and, beside it as further channels,
    what lies there once the image moves by half a patch along each of the four diagonals.

    Zeros come in from outside. The 5 · C · P · P numbers of a token go through a LayerNorm and one
    linear map to D.

    ``image_size``, ``patch_size``, ``in_channels``, ``dim``: as of linear patches; P is at least 2.
    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Lee, Lee and Song (2021), "Vision transformer for small-size datasets", section 3.1,
    equations 1 to 3.
    """

    def __init__(
        self, image_size: int | tuple[int, int], patch_size: int, in_channels: int, dim: int
    ) -> None:
        super().__init__()
        self.in_channels = check_positive("in_channels", in_channels)
        dim = check_positive("dim", dim)
        self.grid = patch_grid(image_size, patch_size)
        self.patch_size = int(patch_size)
        if self.patch_size < 2:
            raise ValueError(f"patch_size is {patch_size}; give at least 2, to move by half of it.")
        numbers = 5 * self.in_channels * self.patch_size**2
        self.norm = nn.LayerNorm(numbers)
        self.proj = nn.Linear(numbers, dim)

    def shift(self, images: Tensor) -> Tensor:
        """Put the four moved images behind the image, (B, 5 · C, H, W): what stood up left of each
        pixel, up right, down left and down right of it."""
        half, (height, width) = self.patch_size // 2, images.shape[-2:]
        wide = F.pad(images, (half, half, half, half))
        corners = [(down, right) for down in (0, 2 * half) for right in (0, 2 * half)]
        moved = [wide[..., down : down + height, right : right + width] for down, right in corners]
        return torch.cat([images, *moved], dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, C, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        check_tensor("images", images, f"B, {self.in_channels}, H, W")
        check_place("images", images, self.proj.weight)
        grid = patch_grid(images.shape[2:], self.patch_size)
        shifted = self.shift(images.to(self.proj.weight.dtype))
        return self.proj(self.norm(patchify(shifted, self.patch_size))), grid


@torch.compiler.disable
@functools.lru_cache(maxsize=32)
def _resizing(old: int, new: int) -> Tensor:
    """Give the pseudoinverse (old², new²) of resizing a patch from ``old`` to ``new`` pixels."""
    with torch.inference_mode(False):  # it is kept, for training too
        basis = torch.eye(old * old, device="cpu").view(-1, 1, old, old)
        resized = F.interpolate(basis, size=(new, new), mode="bicubic", antialias=True)
        return torch.linalg.pinv(resized.flatten(1)).T


def resize_projection(weight: Tensor, patch_size: int) -> Tensor:
    """Carry the kernel of a patch projection to another patch size by the pseudoinverse.

    A kernel (D, C, P, P) becomes (D, C, ``patch_size``, ``patch_size``) such that it gives for a
    patch that was enlarged what the old kernel gives for the patch before, and for one that was
    shrunk the nearest to that. Bicubic with antialiasing, as in timm's ``resample_patch_embed``.

    Raises TypeError, ValueError for a kernel of other axes, or not square.
    Source: Beyer et al. (2023), FlexiViT, section 3.4, equation 4.
    """
    check_tensor("weight", weight, "D, C, P, P")
    old, new = weight.shape[-1], check_positive("patch_size", patch_size)
    if weight.shape[-2] != old:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; give a square kernel.")
    if new == old:
        return weight
    kind = "cpu" if weight.is_meta else weight.device.type
    with torch.autocast(kind, enabled=False):
        resized = weight.flatten(2).float() @ _resizing(old, new).to(weight.device)
    return resized.unflatten(2, (new, new)).to(weight.dtype)


@register_patch_embed("flexible")
class FlexiblePatchEmbed(PatchEmbed):
    """Linear patches of any size with one set of weights: the kernel is resized to the size asked.

    While training, each batch draws one of ``patch_sizes`` that divides its images; when
    evaluating, the size is :attr:`patch_size`, which may be set: ``model.patch_embed.patch_size =
    8``. Positions are resized with the grid, as for images of other sizes.

    Args:
        image_size, patch_size, in_channels, dim: as of linear patches; the kernel has this size.
        patch_sizes: the sizes to draw from in training; empty for ``patch_size`` alone.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Beyer et al. (2023), FlexiViT, section 3.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        dim: int,
        patch_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__(image_size, patch_size, in_channels, dim)
        if not isinstance(patch_sizes, (list, tuple)):
            raise TypeError(f"patch_sizes is {shown(patch_sizes)}; give a list, such as [4, 8].")
        self.patch_sizes = [check_positive("patch_sizes", size) for size in patch_sizes]
        for size in self.patch_sizes:
            patch_grid(image_size, size)  # refuses what does not divide

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, C, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        check_tensor("images", images, f"B, {self.in_channels}, H, W")
        check_place("images", images, self.proj.weight)
        size = self.patch_size
        if self.training and self.patch_sizes:
            size = self.patch_sizes[int(torch.randint(len(self.patch_sizes), ()))]
        grid = patch_grid(images.shape[2:], size)
        kernel = resize_projection(self.proj.weight, size)
        features = F.conv2d(images.to(kernel.dtype), kernel, self.proj.bias, stride=size)
        return torch.flatten(features, 2).transpose(1, 2), grid  # (B, N, D)


class PatchMerging(nn.Module):
    """Merge each 2 x 2 tokens of a grid into one: their numbers side by side, a LayerNorm, a
    linear map without bias.

    ``dim`` is the width of the tokens, ``out_dim`` that of those merged.
    Raises TypeError, ValueError for sizes that do not fit, or a grid of odd sides.
    Source: Liu et al. (2021), Swin Transformer, section 3.1; names and order are timm's.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        dim, out_dim = check_positive("dim", dim), check_positive("out_dim", out_dim)
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Turn tokens (B, N, D) of a grid into (B, N / 4, out_dim) and the grid of these."""
        rows, cols = patch_grid(grid, 2)
        pattern = "b (r two_r c two_c) d -> b (r c) (two_c two_r d)"
        x = rearrange(x, pattern, r=rows, c=cols, two_r=2, two_c=2)
        return self.reduction(self.norm(x)), (rows, cols)


@register_patch_embed("hierarchical")
class HierarchicalPatchEmbed(nn.Module):
    """Small patches first, then larger ones: linear patches of P / 2^s pixels, and s stages that
    each mix their tokens in some blocks and merge 2 x 2 of them into one of twice the width.

    What leaves the last stage is a grid of patches of P pixels with D numbers each, as if P-pixel
    patches had been cut: the model goes on with it. The stages have fixed positions (sines).

    Args:
        image_size, in_channels, dim: as of linear patches; D must divide by 4 · 2^s.
        patch_size: P, the pixels from one token to the next behind all stages.
        stages: s, how many times tokens are merged; 2^s must divide P.
        depth: blocks per stage.
        head_dim: the width of one head in the stages; it divides D / 2^s.
        window: the side in patches of what each patch of a stage sees, odd; None for everything.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Liu et al. (2021), Swin Transformer, section 3.1, for the stages; windows here lie
    around each patch.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        patch_size: int,
        in_channels: int,
        dim: int,
        stages: int = 1,
        depth: int = 1,
        head_dim: int = 8,
        window: int | None = 3,
    ) -> None:
        super().__init__()
        dim, stages = check_positive("dim", dim), check_positive("stages", stages)
        depth, head_dim = check_positive("depth", depth), check_positive("head_dim", head_dim)
        self.grid = patch_grid(image_size, patch_size)
        self.patch_size, times = int(patch_size), 2**stages
        if self.patch_size % times:
            raise ValueError(
                f"patch_size is {patch_size}; give one divisible by {times}, 2^stages."
            )
        if dim % (4 * times) or (dim // times) % head_dim:
            raise ValueError(
                f"dim is {dim}; give one divisible by {4 * times}, such that the first stage's "
                f"dim / {times} divides into heads of head_dim {head_dim}."
            )
        first = self.patch_size // times
        self.patches = PatchEmbed(image_size, first, in_channels, dim // times)
        widths = [dim // times * 2**stage for stage in range(stages)]
        kind: dict[str, object] = {}
        if window is not None:
            options = {"window": window, "local_share": 1.0}
            kind = {"attention": "hybrid", "attention_options": options}
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(width, width // head_dim, **kind) for _ in range(depth))  # type: ignore[arg-type]
            for width in widths
        )
        self.merges = nn.ModuleList(PatchMerging(width, 2 * width) for width in widths)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn images (B, C, H, W) into tokens (B, N, D) and the grid (rows, columns)."""
        check_tensor("images", images, f"B, {self.patches.in_channels}, H, W")
        patch_grid(images.shape[2:], self.patch_size)
        x, grid = self.patches(images)
        old = tuple(side * 2 ** len(self.stages) for side in self.grid)
        x = x + sincos_positions_2d(grid, x.shape[-1], old).to(x)  # type: ignore[arg-type]
        for blocks, merge in zip(self.stages, self.merges, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, TokenLayout(grid, 0))
            x, grid = merge(x, grid)
        return x, grid
