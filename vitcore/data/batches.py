# SPDX-License-Identifier: MIT
"""Batches of images, augmented and normalised on their device (chapter 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import check, check_flag, check_positive, check_whole, shown
from ._inputs import check_seed
from .augment import Augment
from .content import scramble
from .dataset import Split, check_split
from .disk import DiskSplit
from .mixing import Mix
from .pixels import channel_columns, check_statistics


class Batches:
    """Batches of a split: (images floating point (B, C, H, W), labels int64 (B,)), over and over.

    The whole split lies on the device as uint8, or on the disk as a DiskSplit. A batch is taken
    out, divided by 255, augmented (``augment(images, generator)``, values in [0, 1]), mixed
    (``mix(images, labels, generator)``, whose targets, soft labels (B, K), stand in the labels'
    place), resized where ``sizes`` gives a side in pixels for the epoch (one for each; later
    epochs have the last), and normalised with mean and std.

    Each iteration is an epoch. Order, augmentation and mixing follow from (seed, epoch) alone, so a
    run that is resumed at ``set_epoch(e)`` sees what the unbroken run saw. Every batch has its own
    random state, drawn from seed, epoch, batch and rank. With ``world_size`` above 1 each rank has
    its share of every batch of ``world_size * batch_size`` images: none is repeated, and none is
    left out unless ``drop_last``, which gives all ranks the same number of full batches.

    Raises TypeError and ValueError that name the argument.
    """

    def __init__(
        self,
        split: Split | DiskSplit | tuple[Tensor, Tensor],
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        mix: Mix | None = None,
        sizes: Sequence[int] = (),
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        split = check_split(split)
        images, labels = split.images, split.labels
        self.mean, self.std = check_statistics(mean, std, images.shape[1])
        self.batch_size = check_positive("batch_size", batch_size)
        self.shuffle = check_flag("shuffle", shuffle)
        self.drop_last = check_flag("drop_last", drop_last)
        self.seed = check_seed("seed", seed)
        wanted = "a function or None"
        self.augment = None if augment is None else check("augment", augment, Callable, wanted)
        self.mix = None if mix is None else check("mix", mix, Callable, wanted)
        check("sizes", sizes, Sequence, "a list of whole numbers of pixels")
        self.sizes = tuple(check_positive("a value of sizes", size) for size in sizes)
        self.world_size = check_positive("world_size", world_size)
        self.rank = check_whole("rank", rank)
        if self.rank >= self.world_size:
            raise ValueError(f"rank is {rank}; give a number below world_size, {world_size}.")
        try:
            self.device = torch.device(device)
            on_disk = isinstance(images, DiskSplit)
            self.images: Any = images if on_disk else images.to(self.device)
            self.labels = labels.to(self.device)
            self._generator = torch.Generator(device=self.device)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            if "out of memory" in str(error):
                raise
            reason = f"cannot be used ({str(error).split(chr(10))[0].rstrip('.')})"
            raise ValueError(f'device {shown(device)} {reason}; try "cpu".') from error
        self._mean, self._std = channel_columns(self.mean, self.std, device=self.device)
        self.epoch = 0

    @property
    def num_images(self) -> int:
        """How many images an epoch of this rank has."""
        if self.drop_last:
            return len(self) * self.batch_size
        return len(range(self.rank, len(self.labels), self.world_size))

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.labels) // (self.batch_size * self.world_size)
        return -(-self.num_images // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration goes through."""
        self.epoch = check_whole("epoch", epoch)

    def _state(self, *numbers: int) -> int:
        """One seed from several numbers, such that neighbouring numbers share nothing."""
        value = np.zeros(1, np.uint64)
        for number in numbers:
            value = scramble(value ^ np.uint64(number % 2**64))
        return int(value[0] >> np.uint64(1))

    def order(self) -> Tensor:
        """The positions of this rank's images in the split, in the order of this epoch."""
        positions = torch.arange(len(self.labels))
        if self.shuffle:
            # Drawn on the CPU, so that every device goes through the images in the same order.
            generator = torch.Generator().manual_seed(self._state(self.seed, self.epoch))
            positions = torch.randperm(len(positions), generator=generator)
        return positions[self.rank :: self.world_size][: self.num_images]

    def _stored(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches in that order as they are stored: uint8 images and labels."""
        parts = order.split(self.batch_size)[: len(self)]
        if isinstance(self.images, DiskSplit):
            for images, labels in self.images.batches(parts):
                yield images.to(self.device), labels.to(self.device)
            return
        for part in parts:
            chosen = part.to(self.device)
            yield self.images.index_select(0, chosen), self.labels.index_select(0, chosen)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stored = self._stored(self.order())
        epoch, self.epoch = self.epoch, self.epoch + 1  # a loop without set_epoch goes on
        size = self.sizes[min(epoch, len(self.sizes) - 1)] if self.sizes else None
        for batch, (images, labels) in enumerate(stored):
            images = images.float().div_(255)
            self._generator.manual_seed(self._state(self.seed, epoch, batch + 1, self.rank))
            if self.augment is not None:
                images = self.augment(images, self._generator)
            if self.mix is not None:
                images, labels = self.mix(images, labels, self._generator)
            if size is not None and images.shape[-2:] != (size, size):
                images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
            yield (images - self._mean).div_(self._std), labels
