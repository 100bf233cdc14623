# SPDX-License-Identifier: MIT
"""What the page trains is what torch trains: gradients, AdamW, the schedule, the saved file."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from core_helpers import randomise
from live_helpers import LIVE, get, node, put
from torch import Tensor, nn

from tools.digit_sample import OUT
from tools.set_repository import ROOT
from vitcore import ViT, ViTConfig
from vitcore.training import TrainConfig, build_optimizers, learning_rate, load_weights

# The page's own names, and what vitcore calls the same.
DEFAULTS: dict[str, Any] = {"patch_size": 7, "dim": 16, "depth": 2, "heads": 2, "batch_size": 6}
KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "class token": {"class_token": True, "depth": 3, "dim": 24, "heads": 3},
    "patches of 4": {"patch_size": 4, "depth": 1, "mlp_ratio": 3},
    "patches of 14": {"patch_size": 14, "heads": 1, "class_token": True},
    "no positions": {"positions": "none", "dim": 20, "heads": 5},
    "no residuals": {"residuals": False},
    "no norms": {"norms": False},
    "unscaled": {"scaled": False},
}
GRADIENTS = """
import { ViT } from "LIVE/train.mjs";
const [options, vectors] = process.argv.slice(2).map((text) => JSON.parse(text));
const model = new ViT(options, vectors);
const names = Object.keys(model.parameters).sort();
for (const name of names) model.parameters[name].value.set(floats(name));
const { loss, right } = model.learn(floats("images"), new Uint8Array(read("labels")));
for (const name of names) save(`${name}.grad`, model.parameters[name].grad);
tell({ loss, right, names });
"""


def same_in_torch(options: dict[str, Any]) -> ViT:
    """vitcore's model of the page's options, with what the page leaves out left out."""
    own = {"residuals": True, "norms": True, "scaled": True, "batch_size": 0}
    own |= {key: options[key] for key in own.keys() & options.keys()}
    shared: dict[str, Any] = {"mlp_ratio": 2, "class_token": False}
    shared |= {key: value for key, value in options.items() if key not in own}
    pool = "cls" if shared["class_token"] else "mean"
    config = ViTConfig(image_size=28, in_channels=1, num_classes=10, pool=pool, **shared)
    model = randomise(ViT(config))
    for block in model.blocks:
        if not own["norms"]:
            block.norm1, block.norm2, model.norm = nn.Identity(), nn.Identity(), nn.Identity()
        if not own["residuals"]:
            block.forward = types.MethodType(branches_alone, block)  # type: ignore[assignment]
        if not own["scaled"]:
            block.attn.attend = unscaled  # type: ignore[union-attr, assignment]
    return model


def branches_alone(block: Any, x: Tensor, layout: object = None, record: object = None) -> Tensor:
    return block.mlp(block.norm2(block.attn(block.norm1(x))))


def unscaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def write_weights(folder: Path, model: nn.Module) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        put(folder / name, parameter.detach())
    return parameters


@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_is_that_of_torch(kind: str, tmp_path: Path) -> None:
    options = DEFAULTS | KINDS[kind]
    model = same_in_torch(options)
    parameters = write_weights(tmp_path, model)
    images = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([3, 0, 9, 3, 1])
    put(tmp_path / "images", images)
    (tmp_path / "labels").write_bytes(bytes(labels.tolist()))
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    for vectors in (True, False):
        told = node(tmp_path, GRADIENTS, json.dumps(options), json.dumps(vectors))
        assert told["names"] == sorted(parameters)
        assert told["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert told["right"] == (logits.argmax(1) == labels).sum()
        for name, parameter in parameters.items():
            expected = parameter.grad.numpy().flatten()  # type: ignore[union-attr]
            error = np.abs(get(tmp_path / f"{name}.grad") - expected).max()
            assert error <= 1e-4 * np.abs(expected).max(), name


ADAMW = """
import { ViT, AdamW } from "LIVE/train.mjs";
const options = JSON.parse(process.argv[2]);
const model = new ViT(options);
const names = Object.keys(model.parameters).sort();
for (const name of names) model.parameters[name].value.set(floats(name));
const optimizer = new AdamW(model.parameters, options);
const lengths = [0, 1, 2].map((step) => {
  for (const name of names) model.parameters[name].grad.set(floats(`${name}.${step}`));
  const length = optimizer.clip(40);
  optimizer.step(0.01 / (step + 1));
  return length;
});
for (const name of names) save(`${name}.after`, model.parameters[name].value);
tell(lengths);
"""


def test_adamw_is_that_of_torch(tmp_path: Path) -> None:
    options = DEFAULTS | {"class_token": True, "betas": [0.9, 0.95], "weight_decay": 0.3}
    model = same_in_torch(DEFAULTS | {"class_token": True})
    parameters = write_weights(tmp_path, model)
    config = TrainConfig(epochs=1, optimizer="adamw", betas=(0.9, 0.95), weight_decay=0.3)
    (optimizer,) = build_optimizers(model, config)
    lengths = []
    for step in range(3):
        for name, parameter in parameters.items():
            # Gradients from large to none, of which some are longer than 40 together.
            parameter.grad = torch.randn_like(parameter) * 10.0 ** (-2 * step)
            put(tmp_path / f"{name}.{step}", parameter.grad)
        lengths.append(nn.utils.clip_grad_norm_(model.parameters(), 40).item())
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (step + 1)
        optimizer.step()
    assert lengths[0] > 40 > lengths[2]
    assert node(tmp_path, ADAMW, json.dumps(options)) == pytest.approx(lengths, rel=1e-4)
    for name, parameter in parameters.items():
        error = np.abs(get(tmp_path / f"{name}.after") - parameter.detach().numpy().flatten())
        assert error.max() <= 1e-6, name


RUN = """
import { Trainer } from "LIVE/train.mjs";
import { readDigits } from "LIVE/digits.mjs";
const { train } = await readDigits(read(process.argv[2]));
const run = (options) => {
  const trainer = new Trainer(train, options);
  const losses = [];
  while (losses.length < 12) losses.push(trainer.train().loss);
  return [losses, [...trainer.model.parameters["blocks.0.attn.qkv.weight"].value]];
};
const small = { dim: 16, depth: 1, heads: 2, batch_size: 16 };
tell([run(small), run(small), run({ ...small, seed: 1 })]);
"""


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, second, other = node(tmp_path, RUN, str(OUT))
    assert first == second
    assert first[0][-1] < first[0][0]
    assert first[0][0] != other[0][0]
    assert first[1] != other[1]


SCHEDULE = """
import { Trainer } from "LIVE/train.mjs";
const digits = { images: new Uint8Array(100 * 784), labels: new Uint8Array(100) };
const trainer = new Trainer(digits, JSON.parse(process.argv[2]));
tell(Array.from({ length: trainer.steps + 1 }, (_, step) => trainer.rate(step)));
"""


@pytest.mark.parametrize("warmup", [0.5, 0.0])
def test_the_learning_rate_is_that_of_chapter_6(warmup: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lr": 0.01, "min_lr": 1e-4, "epochs": 3, "warmup_epochs": warmup}
    found = node(tmp_path, SCHEDULE, json.dumps(options | {"batch_size": 10}))
    config = TrainConfig(**options)
    assert found == pytest.approx([learning_rate(step, config, 10) for step in range(31)])


SAVED = """
import { ViT } from "LIVE/train.mjs";
import { readModel, forward } from "LIVE/vit.mjs";
const told = {};
for (const kind of ["residuals", "norms", "scaled"]) {
  const model = new ViT({ [kind]: false });
  told[kind] = model.whyNotSaved();
  try { model.save(); } catch (error) { told[kind] += " | " + error.message; }
}
const model = new ViT(JSON.parse(process.argv[2]));
for (const { value } of Object.values(model.parameters))
  for (let i = 0; i < value.length; i++) value[i] += model.random.normal() / 10;
save("model.safetensors", new Uint8Array(model.save({ steps: 3 })));
save("logits", model.forward(floats("images")));
const tryIt = readModel(read("model.safetensors"));
save("logits.vit", forward(tryIt, floats("pixels")).logits);
tell(told);
"""


@pytest.mark.parametrize("kind", ["mean", "class token", "patches of 4", "no positions"])
def test_the_saved_model_is_vitcores(kind: str, tmp_path: Path) -> None:
    pixels = torch.rand(6, 1, 28, 28)
    put(tmp_path / "pixels", pixels)
    put(tmp_path / "images", (pixels - 0.1306649576194114) / 0.3081148863431429)
    told = node(tmp_path, SAVED, json.dumps(DEFAULTS | KINDS[kind]))
    loaded = load_weights(tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = loaded.model(loaded.normalise(pixels)).flatten().numpy()
    assert np.abs(expected).max() > 0.3
    for name in ("logits", "logits.vit"):
        assert np.abs(get(tmp_path / name) - expected).max() <= 1e-4, name
    assert loaded.classes == list("0123456789")
    assert loaded.metadata == {"steps": 3}
    for missing, words in NOT_SAVED.items():
        assert told[missing] == f"{words} | vitcore has no ViT {words}."


NOT_SAVED = {
    "residuals": "without residual connections",
    "norms": "without norms",
    "scaled": "without the division by √d",
}
PRODUCTS = """
import { Kernel, HAS_VECTORS } from "LIVE/kernel.mjs";
const sizes = JSON.parse(process.argv[2]);
for (const vectors of [true, false])
  for (const [m, n, k] of sizes) {
    const kernel = new Kernel(m * n + m * k + k * n, vectors);
    const [C, A, B] = [m * n, m * k, k * n].map((count) => kernel.array(count));
    A.forEach((_, i) => (A[i] = Math.sin(i)));
    B.forEach((_, i) => (B[i] = Math.cos(i)));
    kernel.multiply(C, A, B, m, n, k);
    save(`${vectors} ${m} ${n} ${k}`, C);
    kernel.multiply(C, A, B, m, n, k, 1, m);
    save(`${vectors} ${m} ${n} ${k} turned`, C);
  }
tell(HAS_VECTORS);
"""


def test_products_of_all_shapes(tmp_path: Path) -> None:
    sizes = [(8, 16, 5), (1, 1, 1), (4, 8, 1), (5, 9, 7), (3, 24, 2), (12, 7, 3), (17, 17, 8)]
    assert node(tmp_path, PRODUCTS, json.dumps(sizes)), "Node has WebAssembly's vectors"
    for m, n, k in sizes:
        A, B = np.sin(np.arange(m * k)), np.cos(np.arange(k * n)).reshape(k, n)
        for vectors in ("true", "false"):
            found = get(tmp_path / f"{vectors} {m} {n} {k}").reshape(m, n)
            assert np.abs(found - A.reshape(m, k) @ B).max() < 1e-5
            turned = get(tmp_path / f"{vectors} {m} {n} {k} turned").reshape(m, n)
            assert np.abs(turned - A.reshape(k, m).T @ B).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"patch_size": 5}, "Patches of 5 pixels do not divide 28; give 4, 7 or 14."),
        ({"dim": 30}, "dim 30 does not divide into 4 heads."),
        ({"depth": 0}, "depth is 0; give a whole number above 0."),
        ({"positions": "sincos"}, 'positions is sincos; give "learned" or "none".'),
        ({"width": 3}, "There is no option width"),
    ],
)
def test_options_that_do_not_fit(options: dict, sentence: str, tmp_path: Path) -> None:
    program = """
    import { ViT } from "LIVE/train.mjs";
    try { new ViT(JSON.parse(process.argv[2])); } catch (error) { tell(error.message); }
    """
    assert node(tmp_path, program, json.dumps(options)).startswith(sentence)


def test_the_page_says_what_the_record_holds() -> None:
    record = json.loads((LIVE / "train-it.json").read_text("utf-8"))
    page = " ".join((ROOT / "book" / "train_it.md").read_text("utf-8").split())
    for name, run in record["experiments"].items():
        card = page.split(f"```{{live}} {name} ")[0].split(":class-item:")[-1]
        assert f"Here: {100 * run['accuracies'][-1]:.1f} %" in card, name
    assert f"{100 * record['plain']['accuracies'][-1]:.1f} % of the test digits here" in page
    reached = [100 * run["accuracies"][-1] for run in record["defaults"]]
    assert f"reads {min(reached):.1f} to {max(reached):.1f} %" in page
    assert min(reached) >= 95
    seconds = max(run["processor_seconds"] for run in record["defaults"])
    assert f"in {seconds:.0f} seconds" in page
    assert seconds <= 60
