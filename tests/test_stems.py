# SPDX-License-Identifier: MIT
"""vitcore.stems: tokens that overlap, by the same interface as linear patches."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vitcore
from vitcore import PATCH_EMBEDS, PatchEmbed, ViT, ViTConfig
from vitcore.stems import ConvStem
from vitcore.training import load_weights, save_weights

CONFIG: dict[str, Any] = {"image_size": 32, "patch_size": 4, "num_classes": 5}
CONFIG |= {"dim": 16, "depth": 1, "heads": 2}


@pytest.mark.parametrize("size", [32, (24, 40)])
@pytest.mark.parametrize(("patch_size", "layers"), [(2, 1), (4, 2), (8, 3)])
def test_the_same_grid_as_linear_patches(size, patch_size, layers):
    stem = ConvStem(size, patch_size, 3, 16)
    linear = PatchEmbed(size, patch_size, 3, 16)
    assert stem.grid == linear.grid
    assert len(stem.convs) == layers
    images = torch.randn(2, 3, *(size if isinstance(size, tuple) else (size, size)))
    tokens, grid = stem(images)
    expected, linear_grid = linear(images)
    assert tokens.shape == expected.shape
    assert grid == linear_grid == stem.grid
    # Another size than the one it was made for, as with linear patches.
    assert stem(torch.randn(1, 3, 16, 48))[1] == (16 // patch_size, 48 // patch_size)


def test_two_layers_by_hand():
    stem = ConvStem(32, 4, 3, 16, hidden=7)
    images = torch.randn(2, 3, 32, 32)
    x = images
    for conv in stem.convs:
        assert isinstance(conv, torch.nn.Conv2d)
        x = F.conv2d(x, conv.weight, conv.bias, padding=1).clamp(min=0)
        windows = F.pad(x, [1, 1, 1, 1], value=-float("inf")).unfold(2, 3, 2).unfold(3, 3, 2)
        x = windows.amax(dim=(-1, -2))
    tokens, _ = stem(images)
    kernels = [tuple(p.shape) for name, p in stem.named_parameters() if name.endswith("weight")]
    assert kernels == [(7, 3, 3, 3), (16, 7, 3, 3)]
    torch.testing.assert_close(tokens, x.flatten(2).mT)  # row by row through the grid


def test_tokens_overlap_and_stay_where_they_are():
    """A token sees 13 x 13 pixels, from 6 before its corner to 6 behind; a linear one its own."""
    images = torch.rand(1, 3, 32, 32)
    changed = images.clone()
    changed[:, :, 12:16, 16:20] += 5  # all pixels of the patch at row 3, column 4
    makers: list[tuple[Any, int, int]] = [(ConvStem, 1, 2), (PatchEmbed, 0, 0)]
    for cls, before_it, behind_it in makers:
        torch.manual_seed(0)
        embed = cls(32, 4, 3, 64)
        before, after = embed(images)[0], embed(changed)[0]
        moved = (before != after).any(dim=2).view(8, 8).nonzero()
        assert moved.min(dim=0).values.tolist() == [3 - before_it, 4 - before_it]
        assert moved.max(dim=0).values.tolist() == [3 + behind_it, 4 + behind_it]


def test_by_name_to_json_and_to_weights(tmp_path):
    config = ViTConfig(**CONFIG, patch_embed="conv_stem", patch_embed_options={"hidden": 12})
    assert PATCH_EMBEDS["conv_stem"] is ConvStem
    config = ViTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert config.patch_embed_options == {"hidden": 12}
    model = ViT(config).eval()
    assert isinstance(model.patch_embed, ConvStem)
    assert model.state_dict()["patch_embed.convs.0.weight"].shape == (12, 3, 3, 3)
    names: dict[str, Any] = {"classes": list("abcde"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    save_weights(tmp_path / "model.safetensors", model, **names)
    images = torch.randn(2, 3, 32, 32)
    loaded = load_weights(tmp_path / "model.safetensors").model.eval()
    assert torch.equal(loaded(images), model(images))


def test_the_model_leaves_its_first_weights_alone():
    """Kernels of the usual 0.02 would let next to nothing through two layers."""
    torch.manual_seed(0)
    model = ViT(**{**CONFIG, "dim": 96}, patch_embed="conv_stem")
    tokens, _ = model.patch_embed(torch.randn(16, 3, 32, 32))
    assert 0.5 < tokens.std() < 3
    biases = [p for name, p in model.patch_embed.named_parameters() if name.endswith("bias")]
    assert len(biases) == 2
    assert all(bias.abs().max() == 0 for bias in biases)


def test_kernels_keep_the_size_of_values_through_a_relu():
    """He et al. (2015), equation 10: a variance of 2 over the number of inputs."""
    torch.manual_seed(0)
    for conv in ConvStem(32, 8, 3, 256).convs:
        assert isinstance(conv, torch.nn.Conv2d)
        wanted = (2 / conv.weight[0].numel()) ** 0.5
        assert conv.weight.std().item() == pytest.approx(wanted, rel=0.05)


def test_sizes_of_numpy_and_images_elsewhere():
    sizes: list[Any] = [np.int64(size) for size in (32, 4, 3, 16, 8)]
    stem = ConvStem(*sizes)
    assert stem(torch.zeros(1, 3, 32, 32))[0].shape == (1, 64, 16)
    with pytest.raises(ValueError, match="images is on meta, the model on cpu; move"):
        stem(torch.zeros(1, 3, 32, 32, device="meta"))


def test_gradients_reach_every_layer():
    model = ViT(**CONFIG, patch_embed="conv_stem")
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    gradients = [p.grad for p in model.patch_embed.parameters()]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((32, 6, 3, 16), ValueError, "does not divide"),
        ((36, 6, 3, 16), ValueError, "power of two"),
        ((32, 1, 3, 16), ValueError, "power of two"),
        ((32, 4, 0, 16), ValueError, "in_channels"),
        ((32, 4, 3, 1.5), TypeError, "dim"),
        ((32, 4, 3, 16, 0), ValueError, "hidden"),
    ],
)
def test_bad_sizes(arguments, error, words):
    with pytest.raises(error, match=words):
        ConvStem(*arguments)


def test_bad_images_and_options():
    stem = ConvStem(32, 4, 3, 16)
    with pytest.raises(TypeError, match="floating point"):
        stem(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        stem(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match="does not divide"):
        stem(torch.zeros(1, 3, 30, 32))
    with pytest.raises(TypeError, match="'width'; the options of ConvStem are hidden"):
        ViT(**CONFIG, patch_embed="conv_stem", patch_embed_options={"width": 3})


def import_copies(folder, stems=None):
    """Import the core alone and with stems from a folder of their own; what Python prints."""
    program = "import alone, together; print(*alone.PATCH_EMBEDS, '-', *together.PATCH_EMBEDS)"
    core = ["__init__", "_inputs", "patches", "embeddings", "attention", "blocks", "vit", "models"]
    for package, names in (("alone", core), ("together", [*core, "stems"])):
        (folder / package).mkdir()
        for name in names:
            shutil.copy(f"{vitcore.__path__[0]}/{name}.py", folder / package)
    if stems is not None:
        (folder / "together" / "stems.py").write_text(stems)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_package_knows_it_by_name_and_the_core_does_without(tmp_path):
    done = import_copies(tmp_path)
    assert done.stdout.strip() == "linear - linear conv_stem", done.stderr


def test_a_broken_stem_is_not_hidden(tmp_path):
    done = import_copies(tmp_path, "import no_such_module")
    assert "No module named 'no_such_module'" in done.stderr
    assert done.returncode != 0


def test_layers_keep_the_size_of_the_values():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    for conv in ConvStem(32, 4, 3, 256).convs:
        y = torch.relu(conv(x))
        assert (y.square().mean() / x.square().mean()).item() == pytest.approx(1, abs=0.2)
        x = y
