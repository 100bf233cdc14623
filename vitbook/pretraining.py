# SPDX-License-Identifier: MIT
"""Two ways to teach a ViT beyond its labels, each in small: a masked autoencoder and a teacher.

Chapter 11 (11_pretrained.ipynb) builds the masking and both losses; benchmarks/transfer.py trains
with them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcore.blocks import Block
from vitcore.embeddings import sincos_positions_2d
from vitcore.patches import patchify
from vitcore.training import predict
from vitcore.vit import ViT, ViTConfig

__all__ = [
    "DistilledViT",
    "MaskedAutoencoder",
    "TaughtBatches",
    "hard_distillation",
    "hide_patches",
    "reconstruction_error",
]


def hide_patches(tokens: Tensor, noise: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep in each image the ``count`` patches with the least noise, in the order of the noise.

    tokens (B, N, D), noise (B, N). Returns what is kept (B, count, D), and its places (B, count).
    """
    places = noise.argsort(dim=1)[:, :count]
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2])), places


def reconstruction_error(guess: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of guess to patches (B, N, P), of hidden patches (B, N) alone: (B,).

    Each patch is brought to mean 0 and deviation 1 first. Source: He et al. (2022), section 3.
    """
    target = F.layer_norm(patches, patches.shape[-1:], eps=1e-6)
    error = (guess - target).square().mean(dim=-1)  # (B, N)
    return (error * hidden).sum(dim=1) / hidden.sum(dim=1)


class MaskedAutoencoder(nn.Module):
    """A ViT that sees a part of the patches, and a small decoder that guesses the others.

    Images (B, C, H, W) give the error of each, (B,). What is learned is in ``encoder``, a ViT with
    no token before its patches; the decoder is thrown away.

    Source: He et al. (2022), "Masked autoencoders are scalable vision learners".
    """

    def __init__(
        self, encoder: ViT, seen: float = 0.25, dim: int = 48, depth: int = 1, heads: int = 3
    ) -> None:
        super().__init__()
        c = encoder.config
        if c.prefix_tokens:
            given = f"the encoder has {c.prefix_tokens} tokens before its patches"
            raise ValueError(f"{given}; give class_token=False, registers=0.")
        self.encoder = encoder
        self.count = max(1, round(seen * encoder.grid[0] * encoder.grid[1]))
        self.enter = nn.Linear(c.dim, dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.leave = nn.Linear(dim, c.in_channels * c.patch_size**2)

    def guess(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Guess all patches (B, N, C·P·P) from a few; with 1 where one was hidden, (B, N)."""
        tokens, _ = self.encoder.embed(images)  # (B, N, D), positions added
        noise = torch.rand(tokens.shape[:2], device=tokens.device)
        x, places = hide_patches(tokens, noise, self.count)
        for block in self.encoder.blocks:  # a quarter of the tokens: a quarter of the work
            x = block(x)
        x = self.enter(self.encoder.norm(x))  # (B, count, D of the decoder)
        every = self.mask_token.to(x.dtype).expand(*noise.shape, -1)
        every = every.scatter(1, places[..., None].expand_as(x), x)  # each back in its place
        table = sincos_positions_2d(self.encoder.grid, x.shape[2]).to(x)
        guess = self.leave(self.norm(self.blocks(every + table)))
        return guess, torch.ones_like(noise).scatter(1, places, 0.0)

    def forward(self, images: Tensor) -> Tensor:
        """Give the error of each image, (B,)."""
        guess, hidden = self.guess(images)
        patches = patchify(images, self.encoder.config.patch_size)
        return reconstruction_error(guess.float(), patches, hidden)


def hard_distillation(by_label: Tensor, by_teacher: Tensor, labels: Tensor, told: Tensor) -> Tensor:
    """Half the cross-entropy of one head to the labels, half that of the other to the teacher.

    by_label, by_teacher: logits (B, K); labels, told (B,): the true classes, and those that the
    teacher says. Source: Touvron et al. (2021), equation 3.
    """
    return (F.cross_entropy(by_label, labels) + F.cross_entropy(by_teacher, told)) / 2


class DistilledViT(ViT):
    """A ViT with a distillation token, its first register, and a second head that reads it.

    In training mode images give the logits of both heads, (B, 2, K), else their mean, (B, K).
    Source: Touvron et al. (2021), "Training data-efficient image transformers", section 4.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(replace(config, registers=1))
        self.head_dist = copy.deepcopy(self.head)  # the same start, read from another token

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits of both heads, or their mean."""
        features = self.forward_features(images)
        told = features[:, int(self.config.class_token)]
        both = torch.stack([self.head(self.pool(features)), self.head_dist(told)], dim=1)
        return both if self.training else both.mean(dim=1)


class TaughtBatches:
    """Batches whose targets (B, 2) are the labels and what a teacher says of the same images."""

    def __init__(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        teacher: nn.Module,
        precision: str = "fp32",
    ) -> None:
        self.dataset, self.teacher, self.precision = batches, teacher, precision

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on."""
        getattr(self.dataset, "set_epoch", lambda epoch: None)(epoch)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.dataset:
            told = predict(self.teacher, images, precision=self.precision).argmax(dim=1)
            yield images, torch.stack([labels, told], dim=1)
