# SPDX-License-Identifier: MIT
"""vitcore.backbones: a ResNet as patch embedding in both readings, frozen or not, saved and loaded,
and what is said where its weights cannot be downloaded."""

# mypy: ignore-errors
from __future__ import annotations

import copy
import subprocess
import sys
import urllib.error

import pytest
import torch
from core_helpers import says_in_one_sentence

from vitbook.torchvision import import_torchvision
from vitcore import PATCH_EMBEDS, ViT
from vitcore.data import DownloadError
from vitcore.training import load_weights, save_weights

READINGS = ("feature_map", "patches")
LABELS = {"classes": list("abcd"), "mean": (0.5,) * 3, "std": (0.25,) * 3}


def embedding(image_size=16, patch_size=4, dim=12, **options):
    torch.manual_seed(0)
    return PATCH_EMBEDS["resnet"](image_size, patch_size, 3, dim, **{"weights": None, **options})


def vit(**options):
    torch.manual_seed(0)
    options = {"weights": None, **options}
    return ViT(image_size=16, patch_size=4, num_classes=4, dim=24, depth=1, heads=2, init_std=0.1,
               patch_embed="resnet", patch_embed_options=options)  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """In place of torchvision's download: every ResNet-18 has weights that are known here."""
    models = import_torchvision().models
    torch.manual_seed(7)
    network = models.resnet18(weights=None)
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    found = network.state_dict()
    asked = []

    def get_state_dict(self, **options):
        asked.append((str(self), options))
        return found

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", get_state_dict)
    return network, asked


# --- tokens ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("size", [(16, 16), (24, 8)])
def test_the_same_grid_as_linear_patches(reading, size):
    embed = embedding(reading=reading, stage=1)
    tokens, grid = embed(torch.randn(2, 3, *size))
    assert embed.grid == (4, 4)
    assert grid == (size[0] // 4, size[1] // 4)
    assert tokens.shape == (2, grid[0] * grid[1], 12)


@pytest.mark.parametrize(("patch_size", "enlarge", "stage"), [(4, 1, 1), (8, 1, 2), (4, 4, 3)])
def test_the_feature_map_is_torchvisions(hub, patch_size, enlarge, stage):
    """Of torchvision's own network and its own normal forward, with its images enlarged before."""
    network, _ = hub
    embed = embedding(patch_size=patch_size, enlarge=enlarge, weights="DEFAULT").eval()
    images = torch.randn(2, 3, 16, 16)
    seen = []
    layer = getattr(network.eval(), f"layer{stage}")
    hook = layer.register_forward_hook(lambda module, given, result: seen.append(result))
    side = 16 * enlarge
    network(torch.nn.functional.interpolate(images, size=side, mode="bilinear"))
    hook.remove()
    tokens, (rows, columns) = embed(images)
    want = embed.proj(seen[0].permute(0, 2, 3, 1).reshape(2, rows * columns, -1))
    torch.testing.assert_close(tokens, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("enlarge", [1, 2])
def test_patches_by_themselves_are_a_loop_over_patches(hub, enlarge):
    """Each token is what torchvision's network says of one patch before its head."""
    network, _ = hub
    network = copy.deepcopy(network).eval()
    network.fc = torch.nn.Identity()
    embed = embedding(reading="patches", weights="DEFAULT", enlarge=enlarge).eval()
    images = torch.randn(2, 3, 8, 12)
    tokens, (rows, columns) = embed(images)
    calls = []
    embed.backbone.register_forward_hook(lambda module, given, result: calls.append(given[0].shape))
    embed(images)
    assert calls == [(2 * 6, 3, 4 * enlarge, 4 * enlarge)]  # one call for all patches
    for row in range(rows):
        for column in range(columns):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            patch = torch.nn.functional.interpolate(
                patch, scale_factor=float(enlarge), mode="bilinear"
            )
            want = embed.proj(network(patch))
            torch.testing.assert_close(
                tokens[:, row * columns + column], want, atol=1e-4, rtol=1e-4
            )


def test_only_the_feature_map_sees_beyond_a_patch():
    images = torch.randn(1, 3, 16, 16)
    changed = images.clone()
    changed[:, :, :4, :4] += 1  # the first patch
    for reading, others in (("patches", False), ("feature_map", True)):
        embed = embedding(reading=reading, stage=1).eval()
        moved = (embed(changed)[0] - embed(images)[0]).abs().amax(dim=(0, 2)) > 1e-6
        assert moved[0]
        assert bool(moved[1:].any()) is others


def test_bf16_autocast_and_bf16_weights():
    model, images = vit(stage=1).eval(), torch.randn(2, 3, 16, 16)
    logits = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(images)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - logits).abs().max() < 0.1 * logits.abs().max() + 0.1
    assert model.bfloat16()(images).isfinite().all()


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", READINGS)
def test_frozen_has_no_gradient_and_keeps_its_statistics(hub, reading):
    model = vit(reading=reading, weights="DEFAULT")
    backbone = model.patch_embed.backbone
    assert not backbone.training  # also before anybody calls train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    model.train()(images).square().sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert images.grad.abs().max() > 0  # maps of what pixels count still work
    assert all(p.grad is not None for p in model.patch_embed.proj.parameters())
    assert model.patch_embed.proj.training
    after = backbone.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_fine_tuned_has_a_gradient_and_statistics_of_its_own(hub):
    model = vit(weights="DEFAULT", frozen=False)
    backbone = model.patch_embed.backbone
    before = backbone.bn1.running_mean.clone()
    model.train()(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert not torch.equal(backbone.bn1.running_mean, before)
    assert not model.eval().patch_embed.backbone.training


def test_the_model_does_not_draw_over_pretrained_weights(hub):
    network, asked = hub
    model = vit(weights="IMAGENET1K_V1")
    for start in range(2):
        theirs = network.state_dict()
        for name, value in model.patch_embed.backbone.state_dict().items():
            assert torch.equal(value, theirs[name]), (start, name)
        model.reset_parameters()
    assert {name for name, _ in asked} == {"ResNet18_Weights.IMAGENET1K_V1"}
    assert all(options["weights_only"] and options["check_hash"] for _, options in asked)
    assert model.patch_embed.transforms.mean == [0.485, 0.456, 0.406]


def test_random_weights_keep_the_size_of_the_values():
    """Not the narrow draw of a ViT's linear maps, with which a deep ResNet would fade."""
    embed = vit(frozen=False, stage=1).patch_embed
    conv = embed.backbone.conv1.weight
    assert conv.std().item() == pytest.approx((2 / (64 * 7 * 7)) ** 0.5, rel=0.05)
    assert embed.transforms is None


@pytest.mark.parametrize("reading", READINGS)
def test_saved_and_loaded_without_a_download(hub, tmp_path, reading, monkeypatch):
    _, asked = hub
    model = vit(reading=reading, weights="DEFAULT", frozen=False).train()
    model(torch.randn(4, 3, 16, 16))  # which moves the statistics of BatchNorm
    path = tmp_path / "model.safetensors"
    save_weights(path, model.eval(), **LABELS)
    asked.clear()
    loaded = load_weights(path).model
    assert asked == []
    assert loaded.config == model.config
    images = torch.randn(2, 3, 24, 16)
    assert torch.equal(loaded(images), model(images))
    vit(weights="DEFAULT")
    assert asked  # afterwards they are fetched again


def test_nothing_is_fetched_for_a_model_without_memory(hub):
    with torch.device("meta"):
        vit(weights="DEFAULT")
    assert hub[1] == []


# --- what is refused ------------------------------------------------------------------------------


def test_a_missing_download_is_told_in_one_sentence(monkeypatch):
    models = import_torchvision().models

    def fail(url, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(models._api, "load_state_dict_from_url", fail)
    words = ("ResNet18_Weights.IMAGENET1K_V1", "no network", "resnet18-", "weights=None")
    says_in_one_sentence(DownloadError, lambda: vit(weights="DEFAULT"), *words)
    assert vit(weights=None)(torch.randn(1, 3, 16, 16)).shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_channels": 1}, "give 3"),
        ({"network": "vgg11"}, "'resnet18'"),
        ({"weights": "best"}, "'IMAGENET1K_V1'"),
        ({"reading": "rows"}, "'feature_map', 'patches'"),
        ({"patch_size": 2}, "4, 8, 16, 32 pixels"),  # finer than any stage
        ({"stage": 2}, "4, 8, 16, 32 pixels"),  # coarser than the patches
        ({"stage": 5, "reading": "patches"}, "stage is 5"),
        ({"frozen": 1}, "True or False"),
        ({"enlarge": 0}, "enlarge is 0"),
    ],
)
def test_what_does_not_fit_is_refused(options, words):
    given = {"image_size": 16, "patch_size": 4, "in_channels": 3, "dim": 8, "weights": None}
    kind = TypeError if "frozen" in options else ValueError
    says_in_one_sentence(kind, lambda: PATCH_EMBEDS["resnet"](**{**given, **options}), words)


def test_images_that_do_not_fit_are_refused():
    embed = embedding(stage=1)
    says_in_one_sentence(ValueError, lambda: embed(torch.randn(1, 1, 16, 16)), "(B, 3, H, W)")
    says_in_one_sentence(ValueError, lambda: embed(torch.randn(1, 3, 15, 16)), "15 x 16")


def test_torchvision_is_imported_only_when_it_is_used():
    program = (
        "import sys, vitcore\n"
        "print('torchvision' in sys.modules, 'resnet' in vitcore.PATCH_EMBEDS)\n"
        "vitcore.PATCH_EMBEDS['resnet'](8, 4, 3, 8, weights=None)\n"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr
