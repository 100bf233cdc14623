# SPDX-License-Identifier: MIT
"""Data sets as uint8 tensors that say where they came from, and batches of them (chapter 6).

Images are kept as uint8 (N, C, H, W) and become floating point one batch at a time: a quarter of
the memory, and a whole data set fits on the device. A file is believed for its content, not for
its name: the official MNIST and CIFAR-100 splits are recognised by fingerprints, whatever order
their images stand in, and what cannot be recognised is called unverified.
"""

# ruff: noqa: F401  (what the rooms of this package offer)
from .augment import Augment, Mix, build_augment, build_mix
from .batches import Batches
from .dataset import SPLITS, ImageDataset, Source, Split
from .disk import DiskSplit
from .download import DOWNLOAD_TIMEOUT, DataUnavailableError, DownloadError, cache_dir
from .folder import load_folder
from .images import IMAGE_SUFFIXES, read_image
from .known import (
    CIFAR100_CLASSES,
    CIFAR100_GROUP_OF,
    CIFAR100_GROUPS,
    FILES,
    KNOWN,
    MIRRORS,
    Known,
)
from .load import load_dataset
from .paper import Digit, read_digit
from .pixels import normalise
from .seen import Overlap, image_digests, overlap, sketch_images
from .standard import STANDARD, from_torchvision, load_standard
