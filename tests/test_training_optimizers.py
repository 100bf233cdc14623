# SPDX-License-Identifier: MIT
"""vitcore.training.optimizers: groups, Muon, the schedule."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from training_helpers import (
    batches,
    sgd,
    tiny_vit,
    toy,
)

from vitcore import training
from vitcore.training import (
    TrainConfig,
    cosine_with_warmup,
    fit,
    learning_rate,
    param_groups,
)
from vitcore.training.optimizers import ExactMuon


def test_param_groups_spare_what_has_no_slack():
    model = tiny_vit(class_token=True, registers=2, layer_scale=1e-4)
    model.register_parameter("temperature", nn.Parameter(torch.ones(2, 1, 1)))
    names = {id(p): name for name, p in model.named_parameters()}
    decay, keep = ([names[id(p)] for p in g["params"]] for g in param_groups(model, 0.3))
    assert [g["weight_decay"] for g in param_groups(model, 0.3)] == [0.3, 0.0]
    assert {"cls_token", "reg_token", "pos_embed", "temperature", "norm.weight"} <= set(keep)
    assert {"blocks.0.ls1.gamma", "blocks.1.attn.qkv.bias"} <= set(keep)
    assert set(decay) == {
        "patch_embed.proj.weight",
        "head.weight",
        *(
            f"blocks.{i}.{part}.weight"
            for i in (0, 1)
            for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
    }
    assert len(decay) + len(keep) == len(names)


def test_param_groups_leave_out_the_frozen():
    model = tiny_vit()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("head")
    assert sum(len(g["params"]) for g in param_groups(model, 0.1)) == 2
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        param_groups(model, 0.1)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_decay_moves_matrices_only(name):
    model = tiny_vit(class_token=True)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    (optimizer,) = training.build_optimizers(
        model, TrainConfig(epochs=1, optimizer=name, lr=0.1, weight_decay=0.5)
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for n, parameter in model.named_parameters():
        shrinks = name == "adamw" and parameter.ndim > 1 and n not in ("cls_token", "pos_embed")
        expected = before[n] * (1 - 0.1 * 0.5) if shrinks else before[n]
        torch.testing.assert_close(parameter.detach(), expected)


def test_schedule():
    def rate(step, **options):
        return cosine_with_warmup(
            step, total_steps=110, warmup_steps=10, lr=1.0, min_lr=0.2, **options
        )

    assert rate(0) == pytest.approx(0.1)
    assert rate(4) == pytest.approx(0.5)
    assert rate(9) == pytest.approx(1.0)
    assert rate(59) == pytest.approx(0.6)  # half of the way down
    assert rate(34) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(109) == pytest.approx(0.2)
    assert rate(500) == pytest.approx(0.2)
    assert all(rate(i) > rate(i + 1) for i in range(9, 109))
    assert cosine_with_warmup(0, total_steps=1, warmup_steps=0, lr=1.0) == pytest.approx(0)


def test_learning_rate_follows_the_config():
    config = TrainConfig(epochs=4, lr=1.0, min_lr=0.0, warmup_epochs=1.0)
    assert learning_rate(9, config, 10) == pytest.approx(1.0)
    assert learning_rate(24, config, 10) == pytest.approx(0.5)
    # A warmup longer than the run would never reach the rate asked for.
    assert learning_rate(4, TrainConfig(epochs=1, lr=1.0, warmup_epochs=5), 10) == 1.0
    constant = TrainConfig(epochs=4, lr=1.0, warmup_epochs=0.5, schedule="constant")
    assert [learning_rate(i, constant, 10) for i in (0, 4, 39)] == [0.2, 1.0, 1.0]


def test_every_step_takes_the_schedules_rate(monkeypatch):
    seen = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(
        "vitcore.training.loop.build_optimizers",
        lambda m, c: [Recording(m.parameters(), lr=c.lr / 2)],
    )
    config = TrainConfig(epochs=3, lr=0.1, warmup_epochs=1)
    history = fit(tiny_vit(), batches(), None, config, progress=False, device="cpu")
    # The group's own rate was half of the configuration's, and stays half of it.
    assert seen == pytest.approx([learning_rate(i, config, 3) / 2 for i in range(9)])
    assert history[-1]["lr"] == pytest.approx(config.min_lr)


def test_gradients_are_clipped_together(monkeypatch):
    monkeypatch.setattr("vitcore.training.loop.build_optimizers", sgd())
    images, labels = toy(16)

    def moved(clip_norm):
        model = tiny_vit()
        before = [p.detach().clone() for p in model.parameters()]
        config = TrainConfig(
            epochs=1, lr=1.0, schedule="constant", warmup_epochs=0, clip_norm=clip_norm
        )
        fit(model, [(images * 50, labels)], None, config, progress=False, device="cpu")
        change = [
            (p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)
        ]
        return torch.cat(change).norm().item()

    assert moved(None) > 0.2
    assert moved(0.1) == pytest.approx(0.1, rel=1e-3)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = tiny_vit(class_token=True, registers=1, layer_scale=1e-2)
    names = {id(p): name for name, p in model.named_parameters()}
    config = TrainConfig(epochs=1, optimizer="muon", weight_decay=0.3, lr=2e-3)
    muon, adamw = training.build_optimizers(model, config)
    assert type(muon) is ExactMuon
    assert type(adamw) is torch.optim.AdamW
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert taken == {f"blocks.{i}.{name}.weight" for i in range(2) for name in matrices}
    rest = {names[id(p)]: g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert taken | set(rest) == set(names.values())
    assert not taken & set(rest)
    assert {name for name, decay in rest.items() if decay} == {
        "patch_embed.proj.weight",
        "head.weight",
    }
    assert muon.param_groups[0]["weight_decay"] == 0.3
    assert muon.param_groups[0]["lr"] == adamw.param_groups[0]["lr"] == 2e-3
    # A step of Muon is as long as one of AdamW: 0.2 lr for each number, in the root mean square.
    (group,) = muon.param_groups
    group["weight_decay"] = 0.0
    before = [p.detach().clone() for p in group["params"]]
    for parameter in group["params"]:
        parameter.grad = torch.randn_like(parameter)
    muon.step()
    for parameter, old in zip(group["params"], before, strict=True):
        step = (parameter.detach() - old).square().mean().sqrt()
        assert 0.7 * 0.2 * 2e-3 < step < 1.4 * 0.2 * 2e-3
    # Nothing but matrices, or none at all.
    (only,) = training.build_optimizers(nn.Sequential(nn.Linear(4, 4, bias=False)), config)
    assert type(only) is ExactMuon
    (only,) = training.build_optimizers(nn.Sequential(nn.LayerNorm(4)), config)
    assert type(only) is torch.optim.AdamW


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_orthogonalise_keeps_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.linspace(1.0, 0.05, min(shape))
    flat = training.orthogonalise(7 * u @ torch.diag(sizes) @ v)
    # In the singular vectors of the matrix it is diagonal, so no direction turned.
    seen = u.T @ flat @ v.T
    torch.testing.assert_close(seen, torch.diag(seen.diagonal()), atol=1e-4, rtol=0)
    assert seen.diagonal().min() > 0.6
    assert seen.diagonal().max() < 1.25
    assert training.orthogonalise(torch.zeros(shape)).count_nonzero() == 0


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_on_the_cpu_takes_torchs_steps_without_its_rounding():
    torch.manual_seed(0)
    config = TrainConfig(epochs=1, optimizer="muon", weight_decay=0.3, lr=2e-2)
    model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.Linear(20, 6, bias=False))
    twin = copy.deepcopy(model)
    (ours,) = training.build_optimizers(model, config)
    assert type(ours) is ExactMuon
    theirs = torch.optim.Muon(
        twin.parameters(), lr=2e-2, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(4):
        for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    for mine, other, first in zip(model.parameters(), twin.parameters(), start, strict=True):
        gap, way = (mine - other).norm(), (mine - first).norm()
        assert gap < 0.02 * way  # bf16 keeps three digits


def test_elsewhere_muon_is_torchs_where_torch_has_it(monkeypatch):
    model = tiny_vit().to("meta")
    config = TrainConfig(epochs=1, optimizer="muon")
    if hasattr(torch.optim, "Muon"):
        muon, _ = training.build_optimizers(model, config)
        assert type(muon) is torch.optim.Muon
        assert muon.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    muon, _ = training.build_optimizers(model, config)
    assert type(muon) is ExactMuon
