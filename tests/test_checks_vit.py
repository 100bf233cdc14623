# SPDX-License-Identifier: MIT
"""Checks of chapter 5, which judge whole models: right ones pass, mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import copy

import pytest
import torch
from answers import count, front
from check_helpers import ALL_CHECKS
from core_helpers import randomise, small_images, small_vit
from torch import nn

from vitbook import checks
from vitbook.checks import CheckFailed
from vitbook.checks.counts import _parameter_parts
from vitcore import Block, PatchEmbed, ViT, ViTConfig

ON_MODELS = [
    "check_shapes", "check_permutation_equivariance", "check_positions_used",
    "check_class_token_position", "check_identity_at_zero", "check_final_norm", "check_readout",
    "check_initial_loss",
]  # fmt: skip


@pytest.mark.parametrize("name", ON_MODELS)
def test_right_models_pass(name, capsys):
    assert ALL_CHECKS[name](small_vit()) is None
    assert capsys.readouterr().out.startswith("check passed: ")


class ReadersViT(nn.Module):
    """A ViT as a reader would write it after chapter 5: no configuration, no captures."""

    def __init__(self, reads=0, positions=True, std=0.02, probabilities=False, twice=False):
        super().__init__()
        self.patch_embed = PatchEmbed((12, 16), 4, 3, 24)
        self.cls_token = nn.Parameter(std * torch.randn(1, 1, 24))
        self.pos_embed = nn.Parameter(std * torch.randn(1, 13, 24)) if positions else None
        self.blocks = nn.Sequential(Block(24, 3), Block(24, 3))
        self.norm = nn.LayerNorm(24, eps=1e-6)
        self.head = nn.Linear(24, 5)
        self.reads, self.probabilities, self.twice = reads, probabilities, twice
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=std)

    def forward(self, images):
        x = front(self.patch_embed(images)[0], self.cls_token)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        x = self.norm(self.blocks(x))
        if self.twice:
            x = self.norm(x)
        logits = self.head(x[:, self.reads] if isinstance(self.reads, int) else self.reads(x))
        return logits.softmax(1) if self.probabilities else logits


@pytest.mark.parametrize("name", [*ON_MODELS[1:], "check_independent_of_batch"])
def test_a_model_without_configuration(name, capsys):
    ALL_CHECKS[name](ReadersViT(), small_images(4))
    assert capsys.readouterr().out.startswith("check passed")
    with pytest.raises(TypeError, match="pass images"):
        ALL_CHECKS[name](ReadersViT())


def test_more_wrong_models():
    x = small_images(4)
    for reads, words in [
        (-1, "the last one"),
        (3, "reads token 3, meant is the class token"),
        (lambda x: x.mean(1), "reads all tokens"),
        (lambda x: x[:, 1:].mean(1), "reads 12 of 13 tokens"),
        (lambda x: 0 * x.detach()[:, 0], "nothing of what"),
    ]:
        with pytest.raises(CheckFailed, match=words):
            checks.check_readout(ReadersViT(reads), x)
    checks.check_readout(ReadersViT(lambda x: x[:, 1:].mean(1)), x, pool="mean")
    with pytest.raises(CheckFailed, match="without the 1 tokens"):
        checks.check_readout(ReadersViT(lambda x: x.mean(1)), x, pool="mean")
    with pytest.raises(CheckFailed, match="same share"):
        checks.check_readout(
            ReadersViT(lambda x: x[:, 1:7].mean(1) + 2 * x[:, 7:].mean(1)), x, pool="mean"
        )
    with pytest.raises(CheckFailed, match="not applied once"):
        checks.check_readout(ReadersViT(twice=True), x)
    with pytest.raises(CheckFailed, match="opinion"):
        checks.check_initial_loss(ReadersViT(std=1.0), x)
    with pytest.raises(CheckFailed, match="probabilities"):
        checks.check_initial_loss(ReadersViT(probabilities=True), x)
    with pytest.raises(CheckFailed, match=r"logits \(B, K\)"):
        checks.check_initial_loss(ReadersViT(lambda x: x), x)
    with pytest.raises(CheckFailed, match="something else happens"):
        checks.check_final_norm(ReadersViT(lambda x: 2 * x[:, 0]), x)
    with pytest.raises(CheckFailed, match="no table"):
        checks.check_positions_used(ReadersViT(positions=False), x)
    with pytest.raises(CheckFailed, match="must not matter"):
        checks.check_permutation_equivariance(ReadersViT(lambda x: x[:, 5]), x)
    without = ReadersViT()
    without.norm = nn.Identity()
    with pytest.raises(CheckFailed, match="there is no final norm"):
        checks.check_final_norm(without, x)


def test_positions_that_are_used_in_part():
    class Part(ViT):
        def positions_for(self, grid):
            return torch.cat([self.pos_embed[:, :9], self.pos_embed[:, :4]], 1)

    model = small_vit()
    model.__class__ = Part
    with pytest.raises(CheckFailed, match="4 of the 13 vectors"):
        checks.check_positions_used(model)


def test_no_positions_found_by_their_vectors():
    with pytest.raises(CheckFailed, match="not added"):
        checks.check_positions_used(checks.BUGS["no-positions"].plant(small_vit()))
    with pytest.raises(CheckFailed, match="gets no position"):
        checks.check_positions_used(checks.BUGS["class-token-without-position"].plant(small_vit()))


def test_wrong_shapes_are_found():
    class Wide(ViT):
        def pool(self, features):
            return features

    model = small_vit()
    model.__class__ = Wide
    with pytest.raises(CheckFailed, match="logits has shape"):
        checks.check_shapes(model)


def test_something_between_the_blocks():
    class Louder(ViT):
        def embed(self, images):
            x, layout = super().embed(images)
            return (x.abs() if len(self.blocks) else x), layout

    model = small_vit()
    model.__class__ = Louder
    with pytest.raises(CheckFailed, match="without blocks"):
        checks.check_identity_at_zero(model)


def test_same_logits():
    model, x = randomise(small_vit()), small_images()
    twin = copy.deepcopy(model)
    twin.train()
    checks.check_same_logits(model, twin, x)
    assert twin.training
    assert not model.training
    checks.check_same_logits(model, lambda images: model(images) + 1e-3, x, tolerance=1e-2)
    with pytest.raises(CheckFailed, match="are the weights the same"):
        checks.check_same_logits(model, small_vit(), x)
    with pytest.raises(CheckFailed, match="are the weights the same"):
        checks.check_same_logits(model, lambda images: model(images) + 1e-3, x)
    with pytest.raises(CheckFailed, match="shapes"):
        checks.check_same_logits(model, small_vit(num_classes=3), x)
    for module in twin.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3
    with pytest.raises(CheckFailed, match="eps of the norms differs"):
        checks.check_same_logits(model, twin, x)
    twin = copy.deepcopy(model)
    for block in twin.blocks:
        block.mlp.act = nn.GELU(approximate="tanh")
    with pytest.raises(CheckFailed, match="kind of GELU differs"):
        checks.check_same_logits(model, twin, x)


@pytest.mark.parametrize("name", ["check_multi_head", *ON_MODELS, "check_block", "check_mlp"])
def test_checks_leave_the_model_and_the_random_state_alone(name):
    model = randomise(small_vit(drop_path=0.1)).train()
    model = small_vit(drop_path=0.1).train() if name == "check_initial_loss" else model
    weights = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    ALL_CHECKS[name](model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key])
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("part", _parameter_parts(ViTConfig()))
@pytest.mark.parametrize(("sign", "words"), [(-1, "short by exactly"), (1, "too much")])
def test_every_part_of_a_count_is_named(part, sign, words):
    with pytest.raises(CheckFailed, match=words) as caught:
        checks.check_parameter_count(lambda c: count(c) + sign * _parameter_parts(c)[part])
    assert part in str(caught.value)
