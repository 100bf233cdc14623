# SPDX-License-Identifier: MIT
"""The table of parity: it is made of the sources' own classes, and it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import parity
from tools.set_repository import ROOT
from vitbook import studies
from vitbook.torchvision import import_torchvision

import_torchvision()  # before timm, which imports it
pytest.importorskip("timm", reason="timm is a development dependency")
SMALL = parity.Scale(48, 2, 3, 32, 8, 7, ((32, 32), (24, 40), (48, 48)))


def test_a_small_table(tmp_path: Path) -> None:
    record = parity.run(tmp_path, SMALL, ("timm", "torchvision", "a package that nobody has"))
    assert studies.ParityRecord.read(tmp_path / "record.json").to_dict() == record
    assert record["left_out"] == ["transformers"]
    assert len(record["rows"]) == 7 * 3 + 2
    names = {row["family"] for row in record["rows"]}
    assert {"timm", "torchvision", "DeiT, distilled", "DeiT-3", "DINOv2, registers"} <= names


def test_a_difference_is_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = parity.published_table

    def plain(table: torch.Tensor, size: parity.Size, scale: parity.Scale, registers: bool):
        return published(table * 1.001, size, scale, registers)

    monkeypatch.setattr(parity, "published_table", plain)
    with pytest.raises(ValueError, match=r"DINOv2.*is no agreement"):
        parity.run(tmp_path, SMALL, ("timm",))


def test_the_committed_table_has_every_family() -> None:
    record = studies.ParityRecord.read(ROOT / "runs" / "parity" / "record.json")
    assert record.left_out == []
    families = {row["family"] for row in record.rows}
    wanted = ("timm", "torchvision", "DeiT, distilled", "DeiT-3", "DINOv2", "DINOv2, registers",
              "Hugging Face, ViT", "Hugging Face, DeiT", "Hugging Face, DINOv2")  # fmt: skip
    assert families >= set(wanted)
    for family in families:
        sizes = {tuple(row["size"]) for row in record.rows if row["family"] == family}
        assert len(sizes) >= 3, family
