# SPDX-License-Identifier: MIT
"""Data sets as uint8 tensors that say where they came from, and batches of them (chapter 6).

Images are kept as uint8 (N, C, H, W) and become floating point one batch at a time: a quarter of
the memory, and a whole data set fits on the device. A file is believed for its content, not for
its name: the official MNIST and CIFAR-100 splits are recognised by fingerprints, whatever order
their images stand in, and what cannot be recognised is called unverified.
"""

from ._torchvision import import_torchvision
from .augment import Augment, Mix, build_augment, build_mix
from .batches import Batches
from .dataset import SPLITS, ImageDataset, Source, Split
from .download import (
    DOWNLOAD_ATTEMPTS,
    DOWNLOAD_TIMEOUT,
    DataUnavailableError,
    DownloadError,
    cache_dir,
)
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
from .pixels import denormalise, normalise
from .seen import Overlap, image_digests, overlap, sketch_images

__all__ = [
    "CIFAR100_CLASSES",
    "CIFAR100_GROUPS",
    "CIFAR100_GROUP_OF",
    "DOWNLOAD_ATTEMPTS",
    "DOWNLOAD_TIMEOUT",
    "FILES",
    "IMAGE_SUFFIXES",
    "KNOWN",
    "MIRRORS",
    "SPLITS",
    "Augment",
    "Batches",
    "DataUnavailableError",
    "Digit",
    "DownloadError",
    "ImageDataset",
    "Known",
    "Mix",
    "Overlap",
    "Source",
    "Split",
    "build_augment",
    "build_mix",
    "cache_dir",
    "denormalise",
    "image_digests",
    "import_torchvision",
    "load_dataset",
    "load_folder",
    "normalise",
    "overlap",
    "read_digit",
    "read_image",
    "sketch_images",
]
