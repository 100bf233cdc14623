# SPDX-License-Identifier: MIT
"""Which images a model was trained on, in some kilobytes that weights can carry (chapter 6).

A test says something only on images that training did not see. A file name or the name of a split
cannot promise that: the same images may be divided anew. The digests of their content can.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._inputs import check_tensor
from .dataset import Split, check_split

SKETCH_SIZE = 1536  # digests in a sketch: 16 KB of text


def image_digests(images: Tensor) -> np.ndarray:
    """One number for each of the uint8 images (N, C, H, W): uint64 (N,), from its pixels alone.

    Equal images have equal digests, whatever their label and place; 4 microseconds an image.
    """
    check_tensor("images", images, "N, C, H, W", floating=False)
    if images.dtype != torch.uint8 or images.is_meta:
        raise TypeError(f"images is {images.dtype} on {images.device}; give uint8 (N, C, H, W).")
    shape = repr(tuple(images.shape[1:])).encode()
    digests = bytearray()
    for image in images.cpu().numpy():
        digests += hashlib.blake2b(shape + image.tobytes(), digest_size=8).digest()
    return np.frombuffer(bytes(digests), "<u8")


def sketch_images(*splits: Split) -> str:
    """What weights keep of the images they were trained on: their number and smallest digests.

    Digests are as good as random, so the smallest ones are a random sample of the images, and the
    same sample wherever these images turn up again. Source: Broder (1997), on min-wise sketches.
    """
    digests = np.unique(np.concatenate([image_digests(check_split(s).images) for s in splits]))
    smallest = digests[:SKETCH_SIZE].astype("<u8").tobytes()
    return f"{len(digests)}:{base64.b64encode(smallest).decode()}"


class Overlap(NamedTuple):
    """How many of ``compared`` images of a split are among those of a sketch."""

    found: int
    compared: int


def overlap(sketch: str, split: Split) -> Overlap:
    """Count which images of ``split`` are among the images that ``sketch_images`` has seen.

    Up to 1,536 images in the sketch, all are compared; beyond, those whose digest falls below the
    sketch's largest, which is a random sample: of 55,000 images about one in 36.

    Raises ValueError for a text that is not a sketch.
    """
    try:
        count, text = sketch.split(":")
        known = np.frombuffer(base64.b64decode(text, validate=True), "<u8")
        if len(known) != min(int(count), SKETCH_SIZE) or (known[1:] <= known[:-1]).any():
            raise ValueError("its digests do not fit its count")
    except (AttributeError, TypeError, ValueError) as error:  # binascii's is a ValueError
        problem = f"this is not a sketch that sketch_images made ({error})"
        raise ValueError(f"{problem}: save the weights anew") from error
    compared = image_digests(check_split(split).images)
    if int(count) > len(known):
        compared = compared[compared <= known[-1]]
    return Overlap(int(np.isin(compared, known).sum()), len(compared))
