# SPDX-License-Identifier: MIT
"""Pictures that stay on the disk and are read a batch at a time (chapter 12)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .._inputs import check_tensor, check_whole, to_pair
from .images import read_image


class DiskSplit(Dataset[Any]):
    """Picture files with their labels, in the place of a Split that is too large for memory.

    paths: N picture files. labels: class numbers, int64 (N,), or what each image shows, float
    (N, K), see `vitcore.training.binary_cross_entropy`. Each picture is resized to cover
    ``image_size`` and cut about its centre. `Batches` reads it in ``workers`` processes (default:
    a core less than there are, at most 8).

    It is a torch Dataset as well: item i is (image uint8 (C, H, W), label), with what ``transform``
    makes of the image, so that a DataLoader over it suits `fit` and `evaluate`. A picture that
    cannot be read is left out of its batch, and ``unreadable`` names it afterwards.

    Raises TypeError and ValueError that name the argument.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Tensor,
        image_size: int | tuple[int, int],
        *,
        channels: int = 3,
        transform: Callable[[Tensor], Any] | None = None,
        workers: int | None = None,
    ) -> None:
        several = ", K" if getattr(labels, "ndim", 1) > 1 else ""
        check_tensor("labels", labels, f"{len(paths)}{several}", floating=bool(several))
        self.paths, self.labels, self.transform = list(map(str, paths)), labels, transform
        self.shape = (len(self.paths), channels, *to_pair(image_size))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        most = min(8, (cores or 1) - 1)
        self.workers = most if workers is None else check_whole("workers", workers)
        # In memory that the workers share, so that what they could not read is known here.
        self._failed = torch.zeros(len(self.paths), dtype=torch.bool).share_memory_()

    @property
    def images(self) -> DiskSplit:
        """Itself: what has the shape (N, C, H, W) of the images."""
        return self

    @property
    def unreadable(self) -> list[str]:
        """The pictures that could not be read so far."""
        return [self.paths[index] for index in self._failed.nonzero().flatten().tolist()]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        image = read_image(self.paths[index], self.shape[2:], self.shape[1])
        return image if self.transform is None else self.transform(image), self.labels[index]

    def _read(self, indices: Sequence[int]) -> list[tuple[Any, Tensor]]:
        items = []
        for index in indices:
            try:
                items.append(self[index])
            except (ValueError, OSError):
                self._failed[index] = True
        return items

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Tensor]]:
        """What a DataLoader collates; ValueError where nothing of a whole batch can be read."""
        if items := self._read(indices):
            return items
        given = ", ".join(self.paths[index] for index in indices[:3])
        raise ValueError(
            f"none of {len(indices)} pictures can be read ({given}); give larger batches."
        )

    def _stack(self, indices: Sequence[int]) -> tuple[Tensor, Tensor] | None:
        columns = zip(*self._read(indices), strict=True)
        parts = [torch.stack(column) for column in columns]
        return (parts[0], parts[1]) if parts else None

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The pictures at each of ``parts``, positions (B,), and their labels; a batch of which
        nothing can be read is passed over."""
        lists: Any = [part.tolist() for part in parts]
        # A generator of its own leaves torch's random numbers to the training.
        own: dict[str, Any] = {"num_workers": self.workers, "generator": torch.Generator()}
        loader = DataLoader(lists, batch_size=None, collate_fn=self._stack, **own)
        return (batch for batch in loader if batch is not None)

    def take(self, keep: Tensor) -> DiskSplit:
        """The pictures at the positions ``keep`` (n,)."""
        paths = [self.paths[index] for index in keep.tolist()]
        options: Any = {"channels": self.shape[1], "workers": self.workers}
        size = (self.shape[2], self.shape[3])
        return DiskSplit(paths, self.labels[keep], size, transform=self.transform, **options)
