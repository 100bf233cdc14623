# SPDX-License-Identifier: MIT
"""ImageNet, Pascal VOC and MS COCO through torchvision's classes, streamed (chapter 12).

The objects of VOC and COCO become the labels of their image: 1 for a class with an object, -1 for
one whose objects are all difficult (VOC) or a crowd (COCO), which the benchmarks leave out of the
evaluation, and 0 for the others.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from .._inputs import check_choice
from ._inputs import check_path, check_seed
from ._torchvision import import_torchvision
from .dataset import ImageDataset, Source
from .disk import DiskSplit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the field shares
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
]  # fmt: skip

Part = tuple[list[str], Tensor, list[str]]  # picture files, labels, names of the classes


def load_standard(
    name: str,
    path: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int],
    seed: int = 0,
) -> ImageDataset:
    """ "imagenet", "voc" or "coco" from the folder into which its files were unpacked:

    imagenet: train/ and val/ with a folder for each synset (n01440764/…); names from torchvision's
        meta.bin or from imagenet_class_index.json, where there is one;
    voc: VOCdevkit/VOC2007 to VOC2012 (the latest) with Annotations, ImageSets/Main, JPEGImages;
    coco: annotations/instances_{train,val}2017.json, train2017/ and val2017/ (or another year).

    The test images are those of the official val (of VOC2007 test); a tenth of the training
    images, at most 10,000, drawn by ``seed``, serves for the choice of weights. Memory holds names
    and labels alone. Raises FileNotFoundError and ValueError, with a sentence that names the file,
    and ImportError where COCO lacks pycocotools.
    """
    root = _there(check_path("path", path), "unpack the data set there")
    first, last = STANDARD[check_choice("name", name, STANDARD)](root)
    if (classes := first[2]) != last[2]:
        differ = ", ".join(sorted({*classes} ^ {*last[2]})[:5])
        raise ValueError(f"training and test images of {root} differ in their classes: {differ}")
    whole, test = (DiskSplit(paths, labels, image_size) for paths, labels, _ in (first, last))
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    order = torch.randperm(len(whole), generator=generator)
    held = min(10_000, max(1, len(whole) // 10))
    train, val = (whole.take(part.sort().values) for part in (order[held:], order[:held]))
    source = Source(
        "unverified", f"{len(whole):,} and {len(test):,} pictures in the form of {name}"
    )
    parts: Any = {"train": train, "val": val, "test": test}
    return ImageDataset(name, **parts, classes=classes, mean=MEAN, std=STD, source=source)


def from_torchvision(dataset: Any, image_size: int | tuple[int, int], **options: Any) -> DiskSplit:
    """The pictures and labels of torchvision's ImageFolder, ImageNet, VOCDetection or
    CocoDetection, for `fit`, `evaluate` and DataLoader; options and errors as of DiskSplit."""
    for kind, read in (("ImageFolder", _classes), ("VOCDetection", _voc), ("CocoDetection", _coco)):
        if isinstance(dataset, getattr(import_torchvision().datasets, kind)):
            paths, labels, _ = read(dataset)
            return DiskSplit(paths, labels, image_size, **options)
    wanted = "torchvision's ImageFolder, ImageNet, VOCDetection or CocoDetection"
    raise TypeError(f"dataset is a {type(dataset).__name__}; give {wanted}.")


def _there(path: Path, advice: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: {advice}")
    return path


def _classes(dataset: Any) -> Part:
    paths, labels = zip(*dataset.samples, strict=True)
    # ImageNet's class has several names for a class.
    names = [name if isinstance(name, str) else name[0] for name in dataset.classes]
    return list(paths), torch.tensor(labels), names


def _several(shown: Iterable[Iterable[tuple[int, bool]]], count: int, classes: int) -> Tensor:
    """Labels (N, K) of objects, each a class and whether it does not count: difficult, a crowd."""
    labels = torch.zeros(count, classes)
    for row, objects in zip(labels, shown, strict=True):
        for index, left_out in objects:
            row[index] = 1 if not left_out or row[index] == 1 else -1
    return labels


def _voc(dataset: Any) -> Part:
    def objects(path: str) -> list[tuple[int, bool]]:
        _there(Path(path), "VOC has an annotation for each image, so unpack it anew")
        try:
            tree = dataset.parse_voc_xml(ElementTree.parse(path).getroot())
            found = tree["annotation"]["object"]
            return [(VOC_CLASSES.index(o["name"]), o.get("difficult") == "1") for o in found]
        except (ElementTree.ParseError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not an annotation of VOC ({error})") from error

    labels = _several(map(objects, dataset.annotations), len(dataset), len(VOC_CLASSES))
    return list(dataset.images), labels, VOC_CLASSES


def _coco(dataset: Any) -> Part:
    coco, number = dataset.coco, {key: i for i, key in enumerate(sorted(dataset.coco.cats))}
    paths = [str(Path(dataset.root) / coco.imgs[key]["file_name"]) for key in dataset.ids]
    shown = (
        [(number[o["category_id"]], bool(o.get("iscrowd"))) for o in coco.imgToAnns[key]]
        for key in dataset.ids
    )
    labels = _several(shown, len(paths), len(number))
    return paths, labels, [coco.cats[key]["name"] for key in number]


def _load_imagenet(root: Path) -> list[Part]:
    datasets, parts = import_torchvision().datasets, ("train", "val")
    folders = [_there(root / part, "ImageNet has a folder for each class there") for part in parts]
    if (root / "meta.bin").exists():
        return [_classes(datasets.ImageNet(str(root), part)) for part in parts]
    index, names = root / "imagenet_class_index.json", {}
    if index.exists():  # {"0": ["n01440764", "tench"], …}
        names = dict(json.loads(index.read_text("utf-8")).values())
    found = [_classes(datasets.ImageFolder(folder)) for folder in folders]
    return [(paths, labels, [names.get(n, n) for n in ids]) for paths, labels, ids in found]


def _load_voc(root: Path) -> list[Part]:
    homes = sorted(root.glob("VOCdevkit/VOC20[01][0-9]"))
    home = homes[-1] if homes else _there(root / "VOCdevkit" / "VOC2012", "unpack VOC there")
    parts = ("trainval", "test") if home.name == "VOC2007" else ("train", "val")
    for part in parts:
        _there(home / "ImageSets" / "Main" / f"{part}.txt", "it lists VOC's images; unpack it anew")
    kind = import_torchvision().datasets.VOCDetection
    return [_voc(kind(str(root), home.name[3:], part)) for part in parts]


def _load_coco(root: Path) -> list[Part]:
    found = sorted(root.glob("annotations/instances_train*.json"))
    year = found[-1].stem[-4:] if found else "2017"
    kind, parts = import_torchvision().datasets.CocoDetection, []
    for part in (f"train{year}", f"val{year}"):
        file = root / "annotations" / f"instances_{part}.json"
        _there(file, "unpack COCO's annotations there")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress
                parts.append(_coco(kind(str(root / part), str(file))))
        except ModuleNotFoundError as error:
            raise ImportError("COCO needs pycocotools: pip install pycocotools") from error
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise ValueError(f"{file} is not an annotation of COCO ({error!r})") from error
    return parts


STANDARD: dict[str, Callable[[Path], list[Part]]] = {
    "imagenet": _load_imagenet,
    "voc": _load_voc,
    "coco": _load_coco,
}
