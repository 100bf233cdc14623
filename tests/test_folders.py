# SPDX-License-Identifier: MIT
"""vitbook.folders: what the annotations say is what was drawn."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from vitbook import folders


def colour_within(path: Path, box: list[int], name: str) -> bool:
    """Whether the object's colour is found inside the box, and nowhere else in its columns."""
    left, upper, right, lower = box
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    near = np.abs(pixels - np.array(folders.COLOURS[name])).sum(-1) < 120
    inside = near[upper:lower, left:right].sum()
    return inside > 20 and inside >= 0.9 * near[:, left - 1 : right + 1].sum()


def test_boxes_of_voc_hold_their_objects(tmp_path: Path) -> None:
    home = folders.make_voc(tmp_path, train=10, val=2, scene=folders.mixed_scene)
    home = home / "VOCdevkit" / "VOC2012"
    seen = 0
    for path in sorted((home / "Annotations").glob("*.xml")):
        number = int(path.stem.split("_")[-1])
        objects = ElementTree.parse(path).getroot().findall("object")
        told = [(o.findtext("name"), o.findtext("difficult") == "1") for o in objects]
        assert told == folders.mixed_scene(number)
        for entry in objects:
            box = [
                int(str(entry.findtext(f"bndbox/{s}"))) for s in ("xmin", "ymin", "xmax", "ymax")
            ]
            picture = home / "JPEGImages" / f"{path.stem}.jpg"
            assert colour_within(picture, box, str(entry.findtext("name")))
            seen += 1
    assert seen > 8


def test_outlines_and_run_lengths_of_coco_are_the_boxes(tmp_path: Path) -> None:
    masks = pytest.importorskip("pycocotools.mask")
    folders.make_coco(tmp_path, train=5, val=5)
    text = json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())
    assert {entry["iscrowd"] for entry in text["annotations"]} == {0, 1}
    for entry in text["annotations"]:
        region, (left, upper, wide, high) = entry["segmentation"], entry["bbox"]
        if entry["iscrowd"]:
            mask = masks.decode(masks.frPyObjects(region, *region["size"]))
        else:
            mask = masks.decode(masks.frPyObjects(region, 30, 40)[0])
        assert mask.sum() == pytest.approx(wide * high, rel=0.05)
        assert mask[upper : upper + high, left : left + wide].mean() > 0.95


def test_mixed_scenes_hold_every_kind_with_and_without_the_mark() -> None:
    scenes = [folders.mixed_scene(number) for number in range(200)]
    assert scenes == [folders.mixed_scene(number) for number in range(200)]
    found = [entry for scene in scenes for entry in scene]
    assert {*found} == {(name, mark) for name in folders.COLOURS for mark in (False, True)}
    assert {len(scene) for scene in scenes} == {0, 1, 2, 3}
