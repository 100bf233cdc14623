# SPDX-License-Identifier: MIT
"""What the tests share: a cache of their own, one thread, and small generated data sets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vitcore import data
from vitcore.data import _standin
from vitcore.data.load import build_dataset
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RunRecord
from vitcore.runs import train_recipe

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def cache() -> Iterator[Path]:
    """An empty cache for the whole run, so that no test reads or fills the user's own."""
    before = os.environ.get("VITCORE_CACHE")
    with tempfile.TemporaryDirectory(prefix="vitcore-cache-") as folder:
        os.environ["VITCORE_CACHE"] = folder
        yield Path(folder)
    if before is None:
        del os.environ["VITCORE_CACHE"]
    else:
        os.environ["VITCORE_CACHE"] = before


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has no images: an empty cache, no directory named, no stand-in asked for."""
    for name in ("VITCORE_DATA", "VITCORE_STANDIN"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "cache"
    monkeypatch.setenv("VITCORE_CACHE", str(empty))
    return empty


def _small(name: str, train: int, test: int, validation: int) -> data.ImageDataset:
    arrays = _standin.generate(name, train=train, test=test)
    return build_dataset(name, arrays, "generated", validation, 0)


@pytest.fixture(scope="session")
def small_mnist() -> data.ImageDataset:
    """400 training, 100 validation and 100 test images of the stand-in for MNIST."""
    return _small("mnist", 500, 100, 100)


@pytest.fixture(scope="session")
def small_cifar100() -> data.ImageDataset:
    """400 training, 100 validation and 100 test images of the stand-in for CIFAR-100."""
    return _small("cifar100", 500, 100, 100)


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, small_mnist: data.ImageDataset
) -> tuple[Path, RunRecord]:
    """A folder of runs as the repository's, with one run in it."""
    folder = tmp_path_factory.mktemp("published") / "runs"
    values = RECIPES["mnist"].quick().to_dict()
    values |= {"images": [80, 40, 40]}
    values["model"] |= {"dim": 8, "depth": 1, "heads": 2}
    recipe = Recipe.from_dict(values).with_train(epochs=1)
    run = train_recipe(recipe, small_mnist, device="cpu", out=folder / "tiny", progress=False)
    record = RunRecord.from_run(run, small_mnist, "python -m vitcore train mnist")
    record.write(folder / "tiny" / "record.json")
    return folder, record
