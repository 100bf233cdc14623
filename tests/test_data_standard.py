# SPDX-License-Identifier: MIT
"""vitcore.data.standard, and the command line on ImageNet, Pascal VOC and MS COCO."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from vitbook.folders import SCENES, draw, make_coco, make_imagenet, make_voc, scene
from vitcore.__main__ import main
from vitcore.data import Batches, from_torchvision, load_standard
from vitcore.data._torchvision import import_torchvision
from vitcore.data.standard import MEAN, STD, VOC_CLASSES
from vitcore.recipes import RECIPES
from vitcore.records import RunRecord
from vitcore.runs import measures
from vitcore.training import (
    binary_cross_entropy,
    evaluate,
    load_weights,
    mean_average_precision,
    save_weights,
)
from vitcore.vit import ViT

MAKE: dict[str, Any] = {"imagenet": make_imagenet, "voc": make_voc, "coco": make_coco}


def needs(name):
    if name == "coco":
        pytest.importorskip("pycocotools")


def expected(number, classes):
    """1 for what counts, -1 for what is difficult or a crowd alone, 0 for the rest."""
    row = [0.0] * len(classes)
    for name in {name for name, _ in scene(number)}:
        counts = any(n == name and not left_out for n, left_out in scene(number))
        row[classes.index(name)] = 1.0 if counts else -1.0
    return row


def split_by_name(part, start):
    return {int(Path(path).stem.split("_")[-1]) - start: row for path, row in
            zip(part.paths, part.labels.tolist(), strict=True)}  # fmt: skip


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_objects_become_the_labels_of_their_image(name, tmp_path):
    needs(name)
    dataset = load_standard(name, MAKE[name](tmp_path), image_size=16)
    assert dataset.multi_label
    assert dataset.classes == (VOC_CLASSES if name == "voc" else ["person", "cat", "dog"])
    assert [len(p.labels) for p in (dataset.train, dataset.val, dataset.test)] == [36, 4, 20]
    start = 0 if name == "voc" else 139
    found: dict[int, Any] = {}
    for part in (dataset.train, dataset.val, dataset.test):
        found |= split_by_name(part, start)
    assert found == {number: expected(number, dataset.classes) for number in range(60)}
    assert {-1.0, 0.0, 1.0} == {value for row in found.values() for value in row}
    assert min(split_by_name(dataset.test, start)) == 40  # the official division
    for images, labels in Batches(dataset.train, 12, mean=MEAN, std=STD):
        assert images.shape == (12, 3, 16, 16)
        assert labels.shape == (12, len(dataset.classes))
    again = load_standard(name, tmp_path, image_size=16)
    other = load_standard(name, tmp_path, image_size=16, seed=1)
    drawn: list[Any] = [made.val for made in (dataset, again, other)]
    assert drawn[0].paths == drawn[1].paths != drawn[2].paths


def test_voc_2007_has_a_test_and_the_latest_year_is_taken(tmp_path):
    make_voc(tmp_path, "2007", train=10, val=5)
    dataset = load_standard("voc", tmp_path, image_size=16)
    assert [len(p.labels) for p in (dataset.train, dataset.val, dataset.test)] == [9, 1, 5]
    make_voc(tmp_path, "2012", train=20, val=10)
    assert len(load_standard("voc", tmp_path, image_size=16).test.labels) == 10


@pytest.mark.parametrize("form", ["index", "folders", "torchvision"])
def test_imagenet_has_a_folder_for_each_synset(form, tmp_path):
    root = make_imagenet(tmp_path, 10, 3)
    synsets = sorted(path.name for path in (root / "val").iterdir())
    names = ["golden_retriever", "tabby", "groom"]
    if form != "index":
        (root / "imagenet_class_index.json").unlink()
        names = synsets
    if form == "torchvision":
        names = ["golden retriever", "tabby", "groom"]
        known = {s: (name, "another name") for s, name in zip(synsets, names, strict=True)}
        torch.save((known, []), root / "meta.bin")
    dataset = load_standard("imagenet", root, image_size=16)
    assert dataset.classes == names
    assert not dataset.multi_label
    assert dataset.test.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for part in (dataset.train, dataset.test):
        paths: Any = part
        for path, label in zip(paths.paths, part.labels.tolist(), strict=True):
            assert synsets[label] == Path(path).parent.name
    assert len(dataset.train.labels) + len(dataset.val.labels) == 30


def test_torchvisions_own_objects_are_wrapped(tmp_path):
    datasets = import_torchvision().datasets
    make_voc(tmp_path / "voc")
    voc = datasets.VOCDetection(str(tmp_path / "voc"), "2012", "val")
    split = from_torchvision(voc, 16, transform=lambda image: image / 255, workers=0)
    images, labels = next(iter(DataLoader(split, 20)))
    assert images.shape == (20, 3, 16, 16)
    assert labels.tolist() == [expected(number, VOC_CLASSES) for number in range(40, 60)]
    logits = torch.where(labels == 1, 5.0, -5.0)
    assert mean_average_precision(logits, labels) == 1
    assert binary_cross_entropy(logits, labels).max() < 0.01
    make_imagenet(tmp_path / "imagenet", 2, 1)
    folder = datasets.ImageFolder(tmp_path / "imagenet" / "train")
    assert from_torchvision(folder, 16).labels.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(TypeError, match="dataset is a list; give torchvision's ImageFolder"):
        from_torchvision([], 16)
    needs("coco")
    root = make_coco(tmp_path / "coco")
    coco = datasets.CocoDetection(
        root / "val2017", str(root / "annotations/instances_val2017.json")
    )
    assert from_torchvision(coco, 16).labels[3].tolist() == [0, 1, -1]
    assert SCENES[3] == [("cat", True), ("cat", False), ("cat", True), ("dog", True)]


VOC, MAIN = Path("VOCdevkit/VOC2012"), Path("VOCdevkit/VOC2012/ImageSets/Main")
COCO = Path("annotations/instances_train2017.json")


@pytest.mark.parametrize(
    ("name", "file", "text", "words"),
    [
        ("voc", VOC / "Annotations/2012_000003.xml", None, "there is no .*000003.xml: VOC has an"),
        ("voc", VOC / "Annotations/2012_000003.xml", "<annot", "000003.xml is not an annotation"),
        ("voc", VOC / "Annotations/2012_000003.xml", "<a><b>1</b></a>", "000003.xml is not"),
        ("voc", MAIN / "val.txt", None, "there is no .*val.txt: it lists VOC's images"),
        ("coco", COCO, None, "there is no .*instances_train2017.json: unpack COCO's"),
        ("coco", COCO, "{", "instances_train2017.json is not an annotation of COCO"),
        ("coco", COCO, "[]", "instances_train2017.json is not an annotation of COCO"),
        ("coco", COCO, '{"images": [{"id": 1}], "annotations": []}', "not an annotation of COCO"),
    ],
)
def test_what_is_missing_or_broken_is_named(name, file, text, words, tmp_path):
    needs(name)
    root = MAKE[name](tmp_path)
    (root / file).unlink() if text is None else (root / file).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as seen:
        load_standard(name, root, image_size=16)
    assert "\n" not in str(seen.value)


def test_other_folders_are_refused(tmp_path, monkeypatch):
    for name, words in (("imagenet", "train: ImageNet has a folder"), ("voc", "VOC2012: unpack")):
        with pytest.raises(FileNotFoundError, match=words):
            load_standard(name, tmp_path, image_size=16)
    with pytest.raises(
        FileNotFoundError, match=r"there is no .*nowhere: unpack the data set there"
    ):
        load_standard("voc", tmp_path / "nowhere", image_size=16)
    with pytest.raises(ValueError, match="name is 'vok'; give one of 'imagenet', 'voc', 'coco'"):
        load_standard("vok", tmp_path, image_size=16)
    root = make_imagenet(tmp_path, 2, 1)
    (root / "val" / "n10148035").rename(root / "val" / "n09999999")
    with pytest.raises(ValueError, match="differ in their classes: groom, n09999999"):
        load_standard("imagenet", root, image_size=16)
    make_coco(tmp_path / "coco", 2, 1)
    for name in [n for n in sys.modules if n.split(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ImportError, match="COCO needs pycocotools: pip install pycocotools"):
        load_standard("coco", tmp_path / "coco", image_size=16)


# --- from the command line --------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MAKE))
def test_train_eval_predict(name, tmp_path, capsys, monkeypatch):
    needs(name)
    monkeypatch.chdir(tmp_path)
    root, recipe = MAKE[name](tmp_path / "data"), RECIPES[name]
    small: dict[str, Any] = {"image_size": 16, "patch_size": 8, "dim": 16, "depth": 1, "heads": 2}
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **small))
    monkeypatch.setitem(RECIPES, name, recipe.with_train(batch_size=24))
    broken = sorted(root.rglob("*.jp*g"), key=str) + sorted(root.rglob("*.JPEG"), key=str)
    broken[0].write_bytes(b"no picture")
    words = ["--device", "cpu"]
    assert main(["train", name, str(root), "--epochs", "1", *words]) == 0
    out, score = (
        capsys.readouterr().out,
        "accuracy" if name == "imagenet" else "mean average precision",
    )
    assert f"test {score} " in out
    assert f"1 pictures could not be read and were left out: {broken[0]}" in out
    folder = tmp_path / "out" / f"{name}-seed0"
    record = RunRecord.read(folder / "record.json")
    assert record.command == f"python -m vitcore train {name} DIR --epochs 1 --device cpu"
    assert (record.dataset, record.test_images) == (name, 15 if name == "imagenet" else 20)
    assert (record.confusion == []) == (name != "imagenet")
    assert main(["train", name, str(root), "--epochs", "1", "--resume", *words]) == 0
    assert f"holds this run, finished: test {score}" in capsys.readouterr().out

    weights = str(folder / "model.safetensors")
    assert load_weights(weights).metadata.get("multi_label", False) == (name != "imagenet")
    dataset, model = load_standard(name, root, image_size=16), load_weights(weights).model
    scores = evaluate(model, Batches(dataset.val, 24, mean=MEAN, std=STD), **measures(dataset))
    assert scores["loss"] == pytest.approx(record.epochs[-1]["val_loss"], abs=1e-5)
    assert scores["accuracy"] == pytest.approx(record.val_accuracy, abs=1e-9)
    assert main(["eval", weights, str(root), *words]) == 0
    out = capsys.readouterr().out
    assert f"test {score} {record.test_accuracy:.4f}, loss {record.test_loss:.4f} on" in out
    assert "may have been trained on" not in out
    assert main(["eval", weights, *words]) == 2
    assert "add the folder" in capsys.readouterr().err
    picture = str(broken[-1])
    assert main(["predict", weights, picture, "--threshold", "0", *words]) == 0
    named = capsys.readouterr().out.split(": ", 1)[1].split(", ")
    classes = load_weights(weights).classes
    assert sorted(entry.rsplit(" ", 1)[0] for entry in named) == sorted(classes)


def test_predict_names_what_reaches_the_threshold(tmp_path, capsys, monkeypatch):
    model: Any = ViT(image_size=16, patch_size=8, num_classes=3, dim=16, depth=1, heads=2)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.7, 0.2, 0.9]).logit())
    weights, picture = tmp_path / "model.safetensors", tmp_path / "images" / "a.png"
    extra = {"multi_label": True}
    save_weights(weights, model, classes=["a", "b", "c"], mean=MEAN, std=STD, extra=extra)
    draw(picture, ["cat"], 0)
    for threshold, said in (
        ("0.5", "c 90.0%, a 70.0%"),
        ("0.1", "c 90.0%, a 70.0%, b 20.0%"),
        ("0.95", "c 90.0% (below 95%: no class reaches it)"),
    ):
        assert main(["predict", str(weights), str(picture), "--threshold", threshold]) == 0
        assert capsys.readouterr().out == f"{picture}: {said}\n"
    assert main(["predict", str(weights), str(picture), "--threshold", "2"]) == 2
    assert "--threshold is 2.0; give a number between 0 and 1" in capsys.readouterr().err


def test_usage(tmp_path, capsys):
    for words, said in (
        (["train", "voc"], "`train voc DIR`"),
        (["train", "voc", str(tmp_path), "--quick"], "--epochs 1"),
        (["train", "voc", str(tmp_path)], "VOC2012: unpack VOC there"),
        (["train", "imagenet", str(tmp_path / "no")], "unpack the data set there"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
