# SPDX-License-Identifier: MIT
"""Small folders in the true formats of ImageNet, Pascal VOC and MS COCO, drawn (chapter 12)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["SCENES", "draw", "make_coco", "make_imagenet", "make_voc", "mixed_scene", "scene"]

Objects = list[tuple[str, bool]]  # each with whether it does not count: difficult, or a crowd
Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels; the last two lie outside

COLOURS = {"cat": (200, 40, 40), "dog": (40, 200, 40), "person": (40, 40, 200)}
SIZE = (40, 30)  # width and height
SYNSETS = {"n02123045": "tabby", "n02099601": "golden_retriever", "n10148035": "groom"}
CATEGORIES = {1: "person", 17: "cat", 18: "dog"}  # COCO's numbers have gaps
# By turns, from the number of the picture.
SCENES: list[Objects] = [
    [("cat", False)],
    [("dog", False), ("person", False)],
    [("person", True)],
    [("cat", True), ("cat", False), ("cat", True), ("dog", True)],
    [],
]


def scene(number: int) -> Objects:
    """The objects of a picture, the same five scenes by turns."""
    return SCENES[number % len(SCENES)]


def mixed_scene(number: int) -> Objects:
    """The objects of a picture: each kind in two of five, one in seven of them not to count."""
    rng = np.random.default_rng([7, number])
    return [(name, bool(rng.random() < 1 / 7)) for name in COLOURS if rng.random() < 0.4]


def boxes(count: int, number: int) -> list[Box]:
    """Where the objects of a picture stand: side by side, each at a height of its own."""
    rng = np.random.default_rng([11, number])
    wide = SIZE[0] // max(count, 3)
    tops = rng.integers(2, SIZE[1] - 14, count).tolist()
    return [(i * wide + 1, top, (i + 1) * wide - 1, top + 12) for i, top in enumerate(tops)]


def draw(path: Path, names: list[str], number: int) -> list[Box]:
    """Write a picture with a disc, a block or a bar in its own colour for each object; return
    where they stand."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(80, 120, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    places = boxes(len(names), number)
    for name, (left, upper, right, lower) in zip(names, places, strict=True):
        across = np.abs(2 * columns - left - right) / (right - left)  # 0 in the middle, 1 outside
        down = np.abs(2 * rows - upper - lower) / (lower - upper)
        inside = {"cat": np.hypot(across, down), "dog": np.maximum(across, down)}
        pixels[inside.get(name, np.maximum(2 * across, down)) < 1] = COLOURS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return places


def make_imagenet(root: Path, train: int = 20, val: int = 5) -> Path:
    """train/ and val/ with a folder for each synset, as their tar files unpack, and the index."""
    for part, count in (("train", train), ("val", val)):
        for name, (synset, _) in zip(COLOURS, SYNSETS.items(), strict=True):
            for number in range(count):
                stem = f"{synset}_{number}" if part == "train" else f"ILSVRC2012_val_{number:08}"
                draw(root / part / synset / f"{stem}.JPEG", [name], number)
    index = {str(i): item for i, item in enumerate(sorted(SYNSETS.items()))}
    (root / "imagenet_class_index.json").write_text(json.dumps(index))
    return root


OBJECT = """  <object>
    <name>{name}</name>
    <pose>Frontal</pose>
    <truncated>0</truncated>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
    <part>
      <name>head</name>
      <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{1}</ymax></bndbox>
    </part>
  </object>
"""
ANNOTATION = """<annotation>
  <folder>VOC{year}</folder>
  <filename>{stem}.jpg</filename>
  <source><database>The VOC{year} Database</database><image>flickr</image></source>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>0</segmented>
{objects}</annotation>
"""


def make_voc(
    root: Path,
    year: str = "2012",
    train: int = 40,
    val: int = 20,
    scene: Callable[[int], Objects] = scene,
) -> Path:
    """VOCdevkit/VOC2012 with Annotations, ImageSets/Main and JPEGImages."""
    home = root / "VOCdevkit" / f"VOC{year}"
    parts = ("trainval", "test") if year == "2007" else ("train", "val")
    (home / "ImageSets" / "Main").mkdir(parents=True)
    (home / "Annotations").mkdir()
    numbers = itertools.count()
    for part, count in zip(parts, (train, val), strict=True):
        chosen = list(itertools.islice(numbers, count))
        stems = [f"{year}_{number:06}" for number in chosen]
        (home / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems) + "\n")
        for number, stem in zip(chosen, stems, strict=True):
            shown = scene(number)
            places = draw(home / "JPEGImages" / f"{stem}.jpg", [name for name, _ in shown], number)
            objects = "".join(
                OBJECT.format(*box, name=name, difficult=int(difficult))
                for (name, difficult), box in zip(shown, places, strict=True)
            )
            about = {"year": year, "stem": stem, "width": SIZE[0], "height": SIZE[1]}
            (home / "Annotations" / f"{stem}.xml").write_text(
                ANNOTATION.format(**about, objects=objects)
            )
    return root


def _region(box: Box, crowd: bool) -> Any:
    """COCO's outline of an object, or the run lengths of a crowd: down the columns, from a 0."""
    left, upper, right, lower = box
    if not crowd:
        return [[left, upper, right, upper, right, lower, left, lower]]
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    mask[upper:lower, left:right] = True
    runs = [(value, len(list(run))) for value, run in itertools.groupby(mask.T.ravel().tolist())]
    counts = [0] * runs[0][0] + [length for _, length in runs]
    return {"counts": counts, "size": [SIZE[1], SIZE[0]]}


def make_coco(
    root: Path, train: int = 40, val: int = 20, scene: Callable[[int], Objects] = scene
) -> Path:
    """train2017/, val2017/ and annotations/, with a crowd's region as run lengths."""
    known = {name: key for key, name in CATEGORIES.items()}
    (root / "annotations").mkdir(parents=True)
    numbers = itertools.count()
    for part, count in (("train2017", train), ("val2017", val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in itertools.islice(numbers, count):
            key, shown = number + 139, scene(number)
            file = f"{key:012}.jpg"
            places = draw(root / part / file, [name for name, _ in shown], key)
            images.append({"id": key, "file_name": file, "height": SIZE[1], "width": SIZE[0]})
            for (name, crowd), (left, upper, right, lower) in zip(shown, places, strict=True):
                wide, high = right - left, lower - upper
                region = _region((left, upper, right, lower), crowd)
                about = {"bbox": [left, upper, wide, high], "area": wide * high}
                place = {"id": len(annotations) + 1, "image_id": key, "iscrowd": int(crowd)}
                more = {"category_id": known[name], "segmentation": region}
                annotations.append({**place, **more, **about})
        text: dict[str, Any] = {"info": {"year": 2017}, "licenses": [], "images": images}
        text["annotations"] = annotations
        text["categories"] = [
            {"id": key, "name": name, "supercategory": "any"} for key, name in CATEGORIES.items()
        ]
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(text))
    return root
