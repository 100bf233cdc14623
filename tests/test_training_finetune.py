# SPDX-License-Identifier: MIT
"""A pretrained model on new classes: its head, its rates, its frozen backbone, its features."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, small_images, small_vit
from torch import Tensor, nn

from vitbook.torchvision import import_torchvision
from vitcore import ViT
from vitcore.training import (
    CHECKPOINT,
    TrainConfig,
    accuracy,
    build_optimizers,
    extract_features,
    fit,
    freeze_backbone,
    linear_probe,
    load_weights,
    nearest_neighbours,
    param_groups,
    reset_head,
    save_weights,
)
from vitcore.training.files import read_tensors, write_tensors
from vitcore.weights import PairedViT


def task(count: int = 24, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Images whose mean brightness tells the class."""
    labels = torch.arange(count) % classes
    return small_images(count) * 0.2 + labels.view(-1, 1, 1, 1), labels


def test_a_new_head_is_trained_and_saved(tmp_path: Path) -> None:
    model = randomise(small_vit())
    before = model.pos_embed.detach().clone()  # type: ignore[union-attr]
    reset_head(model, 3)
    assert model.config.num_classes == 3
    assert model.get_parameter("head.weight").abs().max() <= 0.04
    assert not model.get_parameter("head.bias").any()
    images, labels = task()
    loss = F.cross_entropy(model(images), labels).item()
    assert loss == pytest.approx(math.log(3), abs=0.1)
    fit(model, [(images, labels)] * 4, config=TrainConfig(epochs=20, lr=5e-3), progress=False,
        device="cpu")  # fmt: skip
    assert accuracy(model(images), labels).mean() > 0.9
    assert not torch.equal(before, model.pos_embed)  # type: ignore[arg-type]
    stats: Any = {"mean": [0.0] * 3, "std": [1.0] * 3}
    save_weights(tmp_path / "w.safetensors", model, classes=["a", "b", "c"], **stats)
    assert torch.equal(load_weights(tmp_path / "w.safetensors").model(images), model(images))
    reset_head(model, 0)
    assert model(images).shape == (24, 24)


def test_a_paired_head_becomes_a_plain_one(tmp_path: Path) -> None:
    model = PairedViT(small_vit().config, "mean")
    assert extract_features(model, small_images()).shape == (2, 48)
    stats: Any = {"mean": [0.0] * 3, "std": [1.0] * 3}
    names = [str(k) for k in range(model.config.num_classes)]
    with pytest.raises(ValueError, match=r"reads 48 numbers, not the 24 of a ViT's; call reset_"):
        save_weights(tmp_path / "w.safetensors", model, classes=names, **stats)
    assert not list(tmp_path.iterdir())
    reset_head(model, 3)
    save_weights(tmp_path / "w.safetensors", model, classes=["a", "b", "c"], **stats)
    again = load_weights(tmp_path / "w.safetensors").model
    assert type(again) is ViT
    assert torch.equal(again(small_images()), model.eval()(small_images()))


def test_a_frozen_backbone_stays() -> None:
    model = randomise(small_vit(drop_path=0.5)).train()
    freeze_backbone(model)
    reset_head(model, 3)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    assert not model.blocks.training
    before = {name: p.clone() for name, p in model.named_parameters()}
    images, labels = task()
    fit(model, [(images, labels)] * 4, config=TrainConfig(epochs=2), progress=False, device="cpu")
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert moved == ["head.weight", "head.bias"]
    freeze_backbone(model, False)
    assert all(p.requires_grad for p in model.parameters())
    assert model.blocks.training


# --- the rate of each layer ---------------------------------------------------------------------


def test_layer_decay_is_that_of_timm() -> None:
    import_torchvision()  # before timm, which imports it
    timm = pytest.importorskip("timm", reason="timm is a development dependency")
    optim = pytest.importorskip("timm.optim")
    model = ViT(image_size=32, patch_size=8, dim=24, depth=3, heads=3, num_classes=5)
    theirs = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5
    )

    def by_name(groups: list, module: nn.Module) -> dict[str, tuple[float, float]]:
        names = {id(p): name for name, p in module.named_parameters()}
        return {
            names[id(p)]: (group["lr_scale"], group["weight_decay"])
            for group in groups
            for p in group["params"]
        }

    wanted = optim.param_groups_layer_decay(
        theirs, 0.05, no_weight_decay_list=theirs.no_weight_decay(), layer_decay=0.65
    )
    found = by_name(param_groups(model, 0.05, layer_decay=0.65), model)
    assert found == by_name(wanted, theirs)
    assert found["patch_embed.proj.weight"] == (0.65**4, 0.05)
    assert found["head.weight"] == (1.0, 0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adam"])
def test_the_optimisers_have_the_rates(optimizer: str) -> None:
    model = small_vit()  # two blocks
    config = TrainConfig(epochs=1, lr=0.01, layer_decay=0.5, optimizer=optimizer)
    rates = {
        id(p): group["lr"]
        for made in build_optimizers(model, config)
        for group in made.param_groups
        for p in group["params"]
    }
    found = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert len(rates) == len(found)
    assert found["pos_embed"] == found["patch_embed.proj.bias"] == 0.01 * 0.5**3
    assert found["blocks.0.mlp.fc1.weight"] == 0.01 * 0.5**2
    assert found["blocks.1.norm1.bias"] == found["norm.weight"] == 0.01 * 0.5
    assert found["head.weight"] == 0.01


def test_early_layers_move_less() -> None:
    model = randomise(small_vit(depth=3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(epochs=2, lr=1e-3, layer_decay=0.3, weight_decay=0.0)
    images, labels = task(classes=5)
    fit(model, [(images, labels)] * 4, config=config, progress=False, device="cpu")
    moved = {name: (p - before[name]).abs().mean().item() for name, p in model.named_parameters()}
    layers = [moved[f"blocks.{layer}.mlp.fc1.weight"] for layer in range(3)]
    assert layers[0] < 0.5 * layers[1] < 0.25 * layers[2]


def test_layer_decay_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match="a model of blocks"):
        param_groups(nn.Linear(2, 2), 0.1, layer_decay=0.5)
    for value in (0.0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            TrainConfig(epochs=1, layer_decay=value)


def test_a_checkpoint_from_before_a_setting_is_resumed(tmp_path: Path) -> None:
    images, labels = task()
    batches = [(images, labels)] * 2

    def train(epochs: int, resume: bool) -> int:
        reset_head(model := randomise(small_vit()), 3)
        config = TrainConfig(epochs=epochs, warmup_epochs=0)
        return len(fit(model, batches, config=config, out=tmp_path, resume=resume, device="cpu",
                       progress=False))  # fmt: skip

    train(2, False)
    path = tmp_path / CHECKPOINT
    tensors, metadata = read_tensors(path, "checkpoint")
    text = json.dumps(metadata)
    assert "layer_decay" in text
    older = {
        key: value.replace(', "layer_decay": 1.0', "").replace('"layer_decay": 1.0, ', "")
        for key, value in metadata.items()
    }
    assert older != metadata
    write_tensors(path, tensors, older)
    assert train(2, True) == 2


# --- features alone -----------------------------------------------------------------------------


def test_features_are_what_the_head_reads() -> None:
    model, images = randomise(small_vit()), small_images(5)
    features = extract_features(model, images, batch_size=2)
    assert torch.allclose(model.head(features), model(images), atol=1e-5)


def test_a_linear_probe_is_the_best_linear_head() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator) * torch.tensor([1.0, 30.0, 0.1, 1.0]) + 5
    labels = (features[:, 2] > 5).long()
    head = linear_probe(features, labels, weight_decay=1e-2)
    assert accuracy(head(features), labels).mean() > 0.9
    # At the optimum of the penalised loss on scaled features the gradient is zero.
    std = features.std(dim=0)
    weight = (head.weight * std).detach().requires_grad_()
    bias = (head.bias + head.weight @ features.mean(dim=0)).detach().requires_grad_()
    logits = (features - features.mean(dim=0)) / std @ weight.T + bias
    loss = F.cross_entropy(logits, labels) + 0.5e-2 * weight.square().sum()
    assert max(g.abs().max().item() for g in torch.autograd.grad(loss, [weight, bias])) < 1e-3


def test_nearest_neighbours_vote_by_likeness() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    queries = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
    shares = nearest_neighbours(features, labels, queries, k=2, temperature=0.1).exp()
    likeness = torch.tensor([1.0, 0.9 / math.hypot(0.9, 0.1)])
    assert torch.allclose(shares[0, :2], (likeness / 0.1).softmax(0))
    assert shares[0, 2] == 0
    assert accuracy(shares, torch.tensor([0, 1])).all()
    assert nearest_neighbours(features, labels, features, k=1).argmax(1).tolist() == labels.tolist()


def test_what_is_refused() -> None:
    features, labels = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match="class numbers"):
        linear_probe(features, labels[:3])
    with pytest.raises(ValueError, match="NaN"):
        linear_probe(features * math.nan, labels)
    with pytest.raises(ValueError, match="queries"):
        nearest_neighbours(features, labels, torch.randn(2, 4))
    with pytest.raises(TypeError, match="a ViT"):
        reset_head(nn.Linear(2, 2), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes"):
        reset_head(small_vit(), -1)
