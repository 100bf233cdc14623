# SPDX-License-Identifier: MIT
"""Small folders in the true formats of ImageNet, Pascal VOC and MS COCO, for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = {"cat": (200, 40, 40), "dog": (40, 200, 40), "person": (40, 40, 200)}
# By picture: its objects, each with whether it does not count. By turns, from the number.
SCENES = [
    [("cat", False)],
    [("dog", False), ("person", False)],
    [("person", True)],
    [("cat", True), ("cat", False), ("cat", True), ("dog", True)],
    [],
]


def scene(number: int) -> list[tuple[str, bool]]:
    return SCENES[number % len(SCENES)]


def draw(path: Path, names: list[str], number: int, size: tuple[int, int] = (40, 30)) -> None:
    """A picture with a stripe of its own colour for each object."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(80, 120, (size[1], size[0], 3)).astype(np.uint8)
    for place, name in enumerate(names):
        pixels[5 + 8 * place : 11 + 8 * place, 6:34] = COLOURS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_imagenet(root: Path, train: int = 20, val: int = 5) -> Path:
    """train/ and val/ with a folder for each synset, as their tar files unpack, and the index."""
    synsets = {"n02123045": "tabby", "n02099601": "golden_retriever", "n10148035": "groom"}
    for part, count in (("train", train), ("val", val)):
        for name, (synset, _) in zip(COLOURS, synsets.items(), strict=True):
            for number in range(count):
                stem = f"{synset}_{number}" if part == "train" else f"ILSVRC2012_val_{number:08}"
                draw(root / part / synset / f"{stem}.JPEG", [name], number)
    index = {str(i): item for i, item in enumerate(sorted(synsets.items()))}
    (root / "imagenet_class_index.json").write_text(json.dumps(index))
    return root


OBJECT = """  <object>
    <name>{name}</name>
    <pose>Frontal</pose>
    <truncated>0</truncated>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>6</xmin><ymin>5</ymin><xmax>34</xmax><ymax>11</ymax></bndbox>
    <part>
      <name>head</name>
      <bndbox><xmin>6</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
    </part>
  </object>
"""
ANNOTATION = """<annotation>
  <folder>VOC{year}</folder>
  <filename>{stem}.jpg</filename>
  <source><database>The VOC{year} Database</database><image>flickr</image></source>
  <size><width>40</width><height>30</height><depth>3</depth></size>
  <segmented>0</segmented>
{objects}</annotation>
"""


def make_voc(root: Path, year: str = "2012", train: int = 40, val: int = 20) -> Path:
    """VOCdevkit/VOC2012 with Annotations, ImageSets/Main and JPEGImages."""
    home = root / "VOCdevkit" / f"VOC{year}"
    parts = ("trainval", "test") if year == "2007" else ("train", "val")
    (home / "ImageSets" / "Main").mkdir(parents=True)
    (home / "Annotations").mkdir()
    number = 0
    for part, count in zip(parts, (train, val), strict=True):
        stems = [f"{year}_{n:06}" for n in range(number, number + count)]
        (home / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            shown = scene(number)
            draw(home / "JPEGImages" / f"{stem}.jpg", [name for name, _ in shown], number)
            objects = "".join(OBJECT.format(name=n, difficult=int(d)) for n, d in shown)
            text = ANNOTATION.format(year=year, stem=stem, objects=objects)
            (home / "Annotations" / f"{stem}.xml").write_text(text)
            number += 1
    return root


def make_coco(root: Path, train: int = 40, val: int = 20) -> Path:
    """train2017/, val2017/ and annotations/, with a crowd's region as run lengths."""
    categories = {1: "person", 17: "cat", 18: "dog"}  # COCO's numbers have gaps
    known = {name: key for key, name in categories.items()}
    (root / "annotations").mkdir(parents=True)
    number = 0
    for part, count in (("train2017", train), ("val2017", val)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for key in range(number + 139, number + 139 + count):
            shown, file = scene(key - 139), f"{key:012}.jpg"
            draw(root / part / file, [name for name, _ in shown], key)
            images.append({"id": key, "file_name": file, "height": 30, "width": 40})
            for name, crowd in shown:
                outline = [[6.0, 5.0, 34.0, 5.0, 34.0, 11.0, 6.0, 11.0]]
                region = {"counts": [185, 6, 1009], "size": [30, 40]} if crowd else outline
                box = {"bbox": [6.0, 5.0, 28.0, 6.0], "area": 168.0, "segmentation": region}
                place = {"id": len(annotations) + 1, "image_id": key, "iscrowd": int(crowd)}
                annotations.append({**place, "category_id": known[name], **box})
        number += count
        text: dict[str, Any] = {"info": {"year": 2017}, "licenses": [], "images": images}
        text["annotations"] = annotations
        text["categories"] = [
            {"id": k, "name": n, "supercategory": "any"} for k, n in categories.items()
        ]
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(text))
    return root
