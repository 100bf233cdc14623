# SPDX-License-Identifier: MIT
"""The forward pass of the live pages gives the numbers of vitcore's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_helpers import randomise, small_images, small_vit
from live_helpers import LIVE, get, node, put
from PIL import Image
from torch import Tensor

from tools.set_repository import ROOT
from vitbook.checks import BUGS
from vitcore.export import export_web
from vitcore.training import load_weights, save_weights

MNIST = ROOT / "runs/mnist-adamw-seed0/model.safetensors"
CIFAR100 = ROOT / "runs/cifar100-cpu-seed0/model.safetensors"
PROGRAM = """
import { readModel, forward, rollout } from "LIVE/vit.mjs";
const model = readModel(read("model.safetensors"));
const found = forward(model, floats("images"), OPTIONS);
save("logits", found.logits);
for (const name of ["x", "attention", "q", "k", "v", "attn_out", "mlp_out", "tokens"])
  found.layers.forEach((layer, l) => save(`${name}.${l}`, layer[name]));
save("embedding", found.embedding); save("features", found.features); save("pooled", found.pooled);
save("rollout", rollout(found, model));
"""
CAPTURED = ("attention", "q", "k", "v", "attn_out", "mlp_out", "tokens")
USE: dict[str, Any] = {"classes": list("abcde"), "mean": [0.5, 0.4, 0.6], "std": [0.2, 0.3, 0.4]}


def digits(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Test digits of the pages' sample (count, 1, 28, 28) in [0, 1], and their classes."""
    with Image.open(LIVE / "digits.png") as picture:
        sheet = np.asarray(picture).reshape(-1, 28, 100, 28).swapaxes(1, 2).reshape(-1, 28, 28)
    images = sheet[6_000 + first :][:count]
    return torch.from_numpy(images.copy())[:, None] / 255, (torch.arange(count) + first) % 10


def same(found: np.ndarray, expected: Tensor, error: float = 1e-4) -> bool:
    return np.abs(found - expected.detach().numpy().flatten()).max() <= error


def rolled_out(maps: list[Tensor]) -> Tensor:
    """Rollout over the layers' maps (h, N, N) of one image (Abnar and Zuidema, 2020)."""
    mixed = [(heads.mean(0) + torch.eye(heads.shape[-1])) / 2 for heads in maps]
    return torch.linalg.multi_dot(mixed[::-1])


@pytest.mark.parametrize(
    ("weights", "count"), [(MNIST, 200), (CIFAR100, 4)], ids=["mnist", "cifar100"]
)
def test_every_number_is_that_of_torch(weights: Path, count: int, tmp_path: Path) -> None:
    export_web(weights, tmp_path / "model.safetensors", half=False)
    loaded = load_weights(weights)
    if weights == MNIST:
        images, _ = digits(0, count)
    else:
        images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    put(tmp_path / "images", images)
    node(tmp_path, PROGRAM.replace("OPTIONS", "{}"))
    with torch.no_grad():
        logits, captured = loaded.model.forward_with(  # type: ignore[operator]
            loaded.normalise(images), [*CAPTURED, "embedding", "features", "pooled"]
        )
    assert same(get(tmp_path / "logits"), logits)
    for name in ("embedding", "features", "pooled"):
        assert same(get(tmp_path / name), captured[name]), name
    for name in CAPTURED:
        for layer, expected in enumerate(captured[name]):
            assert same(get(tmp_path / f"{name}.{layer}"), expected), f"{name} of layer {layer}"
    assert same(get(tmp_path / "rollout"), rolled_out([maps[0] for maps in captured["attention"]]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "mean"},
        {"pool": "mean", "class_token": False, "positions": "none"},
        {"qkv_bias": False, "mlp_ratio": 1.5, "dim": 21},
        {"patch_embed": "conv_stem", "pool": "mean", "class_token": False},
        {"attention": "locally_enhanced"},
    ],
    ids=str,
)
def test_models_of_other_kinds(options: dict[str, Any], tmp_path: Path) -> None:
    model = randomise(small_vit(**options))
    save_weights(tmp_path / "model.safetensors", model, **USE)
    images = small_images().sigmoid()
    put(tmp_path / "images", images)
    node(tmp_path, PROGRAM.replace("OPTIONS", "{}"))
    loaded = load_weights(tmp_path / "model.safetensors")
    assert same(get(tmp_path / "logits"), loaded.model(loaded.normalise(images)))


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_is_that_of_the_book(name: str, tmp_path: Path) -> None:
    model = randomise(small_vit())
    save_weights(tmp_path / "model.safetensors", model, **USE)
    images = small_images(3).sigmoid()
    put(tmp_path / "images", images)
    node(tmp_path, PROGRAM.replace("OPTIONS", f'{{ bug: "{name}" }}'))
    loaded = load_weights(tmp_path / "model.safetensors")
    right, wrong = loaded.model, BUGS[name].plant(loaded.model)  # type: ignore[arg-type]
    found = get(tmp_path / "logits")
    assert same(found, wrong(loaded.normalise(images)))
    assert not same(found, right(loaded.normalise(images)), 1e-2)


def test_the_mistakes_are_those_of_the_book(tmp_path: Path) -> None:
    assert node(tmp_path, 'import { BUGS } from "LIVE/vit.mjs"; tell(BUGS);') == list(BUGS)


def test_a_head_that_is_silenced(tmp_path: Path) -> None:
    model = randomise(small_vit())
    save_weights(tmp_path / "model.safetensors", model, **USE)
    images = small_images().sigmoid()
    put(tmp_path / "images", images)
    node(tmp_path, PROGRAM.replace("OPTIONS", '{ zeroed: new Set(["1.2"]) }'))
    loaded = load_weights(tmp_path / "model.safetensors")
    with torch.no_grad():  # what head 2 of 3 gathers, 8 of 24 numbers, counts for nothing
        loaded.model.blocks[1].attn.proj.weight[:, 16:] = 0  # type: ignore[union-attr, index]
    assert same(get(tmp_path / "logits"), loaded.model(loaded.normalise(images)))


SHIPPED = """
import { readModel, forward } from "LIVE/vit.mjs";
import { readDigits } from "LIVE/digits.mjs";
const model = readModel(read(process.argv[2] + "/mnist.safetensors"));
const { test } = await readDigits(read(process.argv[2] + "/digits.png"));
const answers = { labels: [...test.labels] };
for (const bug of [null, "across-the-batch"]) {
  answers[bug] = [];
  for (let i = 0; i < 1000; i += 50) {
    const grey = test.images.subarray(i * 784, (i + 50) * 784);
    const { logits } = forward(model, Float32Array.from(grey, (v) => v / 255), { bug });
    for (let b = 0; b < 50; b++) {
      const row = logits.subarray(b * 10, b * 10 + 10);
      answers[bug].push(row.indexOf(Math.max(...row)));
    }
  }
}
tell(answers);
"""


def test_a_thousand_digits_with_the_shipped_weights(tmp_path: Path) -> None:
    found = node(tmp_path, SHIPPED, str(LIVE))
    images, classes = digits(0, 1_000)
    assert found["labels"] == classes.tolist()
    right, whole = load_weights(LIVE / "mnist.safetensors"), load_weights(MNIST).model
    wrong = BUGS["across-the-batch"].plant(right.model)  # type: ignore[arg-type]
    for name, model in {"null": right.model, "across-the-batch": wrong}.items():
        answers = torch.tensor(found[name])
        with torch.no_grad():
            logits = torch.cat([model(part) for part in right.normalise(images).split(50)])
        # Where two classes are level, rounding decides.
        sure = (logits.topk(2).values.diff().abs() > 1e-3).flatten()
        assert (answers == logits.argmax(1))[sure].all()
        assert sure.sum() >= 998
        if name == "null":
            assert sure.all()
            assert (answers == classes).float().mean() > 0.98
            with torch.no_grad():
                expected = whole(right.normalise(images)).argmax(1)
            assert (answers == expected).all(), "float16 changes an answer"
        else:
            assert (answers == classes).float().mean() < 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"registers": 2}, "This page cannot run registers = 2."),
        ({"layer_scale": 0.1}, "This page cannot run layer_scale = 0.1."),
        ({"positions": "sincos"}, "This page cannot run positions = sincos."),
        ({"pool_norm": "after"}, "This page cannot run pool_norm = after."),
        ({"class_position": False}, "This page cannot run class_position = false."),
    ],
)
def test_what_it_cannot_run_it_refuses(change: dict, sentence: str, tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", small_vit(**change), **USE)
    program = """
    import { readModel } from "LIVE/vit.mjs";
    try { readModel(read("model.safetensors")); } catch (error) { tell(error.message); }
    """
    assert node(tmp_path, program) == sentence
