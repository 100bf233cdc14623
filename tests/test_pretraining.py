# SPDX-License-Identifier: MIT
"""vitbook.pretraining, which chapter 11 (11_pretrained.ipynb) builds: the masked autoencoder hides
what it says it hides, the distilled model has two heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbook import pretraining
from vitcore import ViT

SMALL: dict[str, Any] = {
    "image_size": 16, "patch_size": 4, "in_channels": 3, "num_classes": 5, "dim": 16, "depth": 2,
    "heads": 2, "class_token": False, "pool": "mean",
}  # fmt: skip


def test_hidden_patches_are_out_of_sight() -> None:
    """What the encoder reads does not change when the pixels of hidden patches do."""
    torch.manual_seed(0)
    model = pretraining.MaskedAutoencoder(ViT(**SMALL, init_std=0.2)).eval()
    images = torch.rand(2, 3, 16, 16)

    def guess(images: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        return model.guess(images)

    first, hidden = guess(images)
    assert hidden.sum(dim=1).tolist() == [12.0, 12.0]  # a quarter of 16 is seen
    pixels = F.interpolate(hidden.view(2, 1, 4, 4), scale_factor=4)
    other, again = guess(images + pixels * torch.rand(2, 3, 16, 16))
    assert torch.equal(hidden, again)
    assert torch.equal(first, other)
    seen, _ = guess(images + (1 - pixels))
    assert not torch.allclose(first, seen)


def test_the_encoder_has_a_quarter_of_the_tokens() -> None:
    model = pretraining.MaskedAutoencoder(ViT(**SMALL))
    counts = []
    hook = model.encoder.blocks[0].register_forward_hook(
        lambda module, given, result: counts.append(given[0].shape[1])
    )
    model(torch.rand(2, 3, 16, 16)).mean().backward()
    hook.remove()
    assert counts == [4]
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert {n for n, _ in model.named_parameters()} - learned == {
        "encoder.head.weight",
        "encoder.head.bias",
    }
    with pytest.raises(ValueError, match="class_token=False"):
        pretraining.MaskedAutoencoder(ViT(**{**SMALL, "class_token": True}))


def test_kept_patches_go_back_to_their_places() -> None:
    tokens = torch.arange(24.0).view(2, 4, 3)
    kept, places = pretraining.hide_patches(tokens, torch.tensor([[3, 1, 0, 2.0], [0, 1, 2, 3]]), 2)
    assert places.tolist() == [[2, 1], [0, 1]]
    assert torch.equal(kept[0], tokens[0, [2, 1]])


def test_the_error_is_of_hidden_patches_alone() -> None:
    patches = torch.rand(2, 3, 8)
    hidden = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    mean, deviation = patches.mean(-1, keepdim=True), patches.std(-1, unbiased=False, keepdim=True)
    perfect = (patches - mean) / (deviation**2 + 1e-6).sqrt()
    assert pretraining.reconstruction_error(perfect, patches, hidden).max() < 1e-10
    worse = perfect + (1 - hidden)[..., None]  # wrong where it was seen
    assert pretraining.reconstruction_error(worse, patches, hidden).max() < 1e-10
    worse = perfect + hidden[..., None] * torch.tensor([2.0, 1.0])[:, None, None]
    found = pretraining.reconstruction_error(worse, patches, hidden)
    assert torch.allclose(found, torch.tensor([4.0, 1.0]))


def test_two_heads_learn_from_two_sources() -> None:
    torch.manual_seed(0)
    model = pretraining.DistilledViT(ViT(**SMALL).config)
    images = torch.rand(4, 3, 16, 16)
    both = model(images)
    assert both.shape == (4, 2, 5)
    assert torch.allclose(model.eval()(images), both.mean(dim=1), atol=1e-6)
    labels, told = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 4, 4])
    loss = pretraining.hard_distillation(both[:, 0], both[:, 1], labels, told)
    by_hand = (F.cross_entropy(both[:, 0], labels) + F.cross_entropy(both[:, 1], told)) / 2
    assert torch.allclose(loss, by_hand)


def test_the_teacher_sees_the_images_of_the_student() -> None:
    class Bright(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.mean(dim=(1, 2, 3))
            return torch.stack([-mean, mean], dim=1)

    given = [(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4), torch.tensor([1, 1]))]
    ((images, targets),) = pretraining.TaughtBatches(given, Bright())
    assert images is given[0][0]
    assert targets.tolist() == [[1, 0], [1, 1]]
