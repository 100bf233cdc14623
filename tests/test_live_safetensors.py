# SPDX-License-Identifier: MIT
"""Weights go from vitcore to a page and back: the pages' reader and writer of safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from live_helpers import node
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitcore import ViT, ViTConfig
from vitcore.training import load_weights

COPY = """
import { readSafetensors, writeSafetensors } from "LIVE/safetensors.mjs";
const { tensors, metadata } = readSafetensors(read("in.safetensors"));
save("out.safetensors", writeSafetensors(tensors, metadata, { half: HALF }));
tell(Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, shape])));
"""


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
@pytest.mark.parametrize("half", [False, True])
def test_numbers_stay_what_they_are(tmp_path: Path, kind: torch.dtype, half: bool) -> None:
    torch.manual_seed(0)
    edges = torch.tensor([0.0, -0.0, 1, -1, 2**-14, 2**-24, -(2**-20), 65504, 1 / 3])
    tensors = {"b": torch.randn(5, 7, 3) * 0.05, "a.c": edges, "scalar": torch.tensor(2.5)}
    tensors = {name: tensor.to(kind) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "in.safetensors", metadata={"what": "ü, 数"})
    shapes = node(tmp_path, COPY.replace("HALF", str(half).lower()))
    assert shapes == {name: list(tensor.shape) for name, tensor in tensors.items()}
    written = load_file(tmp_path / "out.safetensors")
    for name, tensor in tensors.items():
        assert torch.equal(written[name], tensor.to(torch.float16 if half else torch.float32)), name
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.metadata() == {"what": "ü, 数"}


def test_vitcore_loads_what_a_page_writes(tmp_path: Path) -> None:
    config = ViTConfig(
        image_size=8, patch_size=4, in_channels=1, num_classes=3, dim=8, depth=1, heads=2
    )
    model = ViT(config)
    metadata = {
        "config": json.dumps(config.to_dict()),
        "classes": '["a", "b", "c"]',
        "mean": "[0.5]",
        "std": "[1]",
    }
    save_file(model.state_dict(), tmp_path / "in.safetensors", metadata=metadata)
    node(tmp_path, COPY.replace("HALF", "false"))
    loaded = load_weights(tmp_path / "out.safetensors")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.model(images), model.eval()(images))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("data.slice(0, 5)", "This is not a safetensors file, or not a complete one."),
        ("data.slice(0, 40)", "This is not a safetensors file, or not a complete one."),
        ("data.slice(0, -4)", "a is not complete: the file may be damaged, or cut off."),
        ("writeSafetensors({ a: { shape: [2], data: [1] } })", "a has 1 numbers"),
        ("writeSafetensors({ a: { shape: [1], data: [1e6] } }, {}, { half: true })", "not finite"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, damage: str, sentence: str) -> None:
    program = f"""
    import {{ readSafetensors, writeSafetensors }} from "LIVE/safetensors.mjs";
    const data = writeSafetensors({{ a: {{ shape: [3], data: [1, 2, 3] }} }});
    try {{ readSafetensors({damage}); }} catch (error) {{ tell(error.message); }}
    """
    assert sentence in node(tmp_path, program)


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "in.safetensors")
    program = COPY.replace("HALF", "false").replace("const {", "try { const {", 1)
    program = program.replace("tell(", "} catch (error) { tell(error.message) } //")
    assert node(tmp_path, program) == "a is I64; only F16 and F32 are read here."


def test_the_header_is_plain(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "in.safetensors")
    node(tmp_path, COPY.replace("HALF", "true"))
    data = (tmp_path / "out.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["a"] == {
        "dtype": "F16", "shape": [3], "data_offsets": [0, 6],
    }  # fmt: skip
