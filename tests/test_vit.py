# SPDX-License-Identifier: MIT
"""Proves `vitcore/vit.py`, which chapter 5 builds."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit
from torch import nn

from vitcore import ViT, ViTConfig, create_model

ONCE = ["embedding", "features", "pooled"]
PER_LAYER = ["tokens", "attention", "q", "k", "v", "attn_out", "mlp_out"]

VARIANTS = {
    "plain": {},
    "mean": {"pool": "mean"},
    "mean without class token": {"pool": "mean", "class_token": False},
    "norm after the mean": {"pool": "mean", "pool_norm": "after"},
    "norm after reading the class token": {"pool_norm": "after"},
    "registers": {"registers": 4},
    "registers, mean, no class token": {"registers": 2, "pool": "mean", "class_token": False},
    "no class position": {"class_position": False, "registers": 1},
    "sincos": {"positions": "sincos"},
    "no positions": {"positions": "none"},
    "layer scale and drop path": {"layer_scale": 1e-4, "drop_path": 0.1},
    "no qkv bias": {"qkv_bias": False},
    "features alone": {"num_classes": 0},
    "written-out attention": {"attention_options": {"kernel": "explicit"}},
}


# -- configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_configuration_survives_json(options):
    config = small_vit(**options).config
    again = ViTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.image_size == (12, 16)
    assert isinstance(again.image_size, tuple)
    assert hash(again) == hash(config)
    assert ViTConfig.from_dict(config.to_dict()) == config


def test_configuration_is_plain_json():
    text = ViTConfig(image_size=(12, 16), attention_options={"kernel": "fused"}).to_dict()
    values = json.loads(json.dumps(text))
    assert values["image_size"] == [12, 16]
    assert values["attention_options"] == {"kernel": "fused"}
    assert set(values) == set(ViTConfig.__dataclass_fields__)


def test_configuration_takes_a_list_as_a_pair():
    assert ViTConfig(image_size=[12, 16]).image_size == (12, 16)


def test_configuration_does_not_change():
    with pytest.raises(FrozenInstanceError):
        ViTConfig().dim = 3


def test_the_ways_to_make_a_model():
    config = ViTConfig(image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=2)
    assert ViT(config).config == config
    assert ViT(config, num_classes=4).config == replace(config, num_classes=4)
    assert ViT(**config.to_dict()).config == config
    assert ViT(config=config).config == config
    assert ViTConfig().dim == 768
    assert ViTConfig().depth == 12


def test_prefix_tokens():
    assert ViTConfig().prefix_tokens == 1
    assert ViTConfig(registers=4).prefix_tokens == 5
    assert ViTConfig(registers=4, class_token=False, pool="mean").prefix_tokens == 4


# -- shapes and results ------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_shapes_and_one_path(options):
    model = small_vit(**options)
    randomise(model)
    images = small_images()
    logits, seen = model.forward_with(images, ONCE + PER_LAYER)
    config = model.config
    count = config.prefix_tokens + 12
    assert logits.shape == (2, config.num_classes or config.dim)
    assert set(seen) == {*ONCE, *PER_LAYER}
    assert seen["embedding"].shape == seen["features"].shape == (2, count, 24)
    assert seen["pooled"].shape == (2, 24)
    for name in PER_LAYER:
        assert len(seen[name]) == config.depth
        shape = {"attention": (2, 3, count, count)}.get(name, (2, count, 24))
        shape = (2, 3, count, 8) if name in "qkv" else shape
        assert all(x.shape == shape for x in seen[name])
    assert torch.equal(logits, model(images))
    assert torch.equal(seen["features"], model.forward_features(images))
    assert torch.equal(logits, model.head(seen["pooled"]))


def test_without_classes_the_features_come_out():
    model = small_vit(num_classes=0)
    logits, seen = model.forward_with(small_images(), ["pooled"])
    assert torch.equal(logits, seen["pooled"])
    assert not any(name.startswith("head") for name in model.state_dict())


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("registers", [0, 3])
def test_mean_pooling_leaves_prefix_tokens_out(class_token, registers):
    model = randomise(small_vit(pool="mean", class_token=class_token, registers=registers))
    _, seen = model.forward_with(small_images(), ["features", "pooled"])
    patches = seen["features"][:, int(class_token) + registers :]
    assert patches.shape[1] == 12
    torch.testing.assert_close(seen["pooled"], patches.mean(1))


def test_the_class_token_is_read_out():
    model = randomise(small_vit(registers=2))
    _, seen = model.forward_with(small_images(), ["features", "pooled"])
    assert torch.equal(seen["pooled"], seen["features"][:, 0])


def test_norm_before_and_after_pooling():
    before, after = (small_vit(pool="mean", pool_norm=when) for when in ("before", "after"))
    assert isinstance(before.fc_norm, nn.Identity)
    assert isinstance(after.norm, nn.Identity)
    randomise(after)
    _, seen = after.forward_with(small_images(), ["tokens", "features", "pooled"])
    assert torch.equal(seen["features"], seen["tokens"][-1])
    want = F.layer_norm(
        seen["features"][:, 1:].mean(1), (24,), after.fc_norm.weight, after.fc_norm.bias, 1e-6
    )
    torch.testing.assert_close(seen["pooled"], want)
    randomise(before)
    _, seen = before.forward_with(small_images(), ["tokens", "features"])
    torch.testing.assert_close(seen["features"], before.norm(seen["tokens"][-1]))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_images_do_not_see_each_other(options):
    model = randomise(small_vit(**options))
    images = small_images(13)  # as many images as patches and class token
    features = model.forward_features(images)
    one = model.forward_features(images[4:5])
    torch.testing.assert_close(features[4:5], one, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(images)[4:5], model(images[4:5]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_any_number_of_channels(channels):
    model = small_vit(in_channels=channels)
    assert model.patch_embed.proj.weight.shape == (24, channels, 4, 4)
    assert model(small_images(channels=channels)).shape == (2, 5)


@pytest.mark.parametrize("size", [(12, 16), (16, 12), (8, 8), (24, 32), (4, 20)])
@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("class_position", [True, False])
def test_images_of_other_sizes(size, positions, class_position):
    model = small_vit(positions=positions, class_position=class_position, registers=1)
    images = small_images(size=size)
    count = size[0] * size[1] // 16
    logits, seen = model.forward_with(images, ["attention.0"])
    assert logits.shape == (2, 5)
    assert seen["attention.0"].shape == (2, 3, 2 + count, 2 + count)
    assert torch.isfinite(logits).all()


def test_an_empty_batch():
    assert small_vit()(torch.zeros(0, 3, 12, 16)).shape == (0, 5)


def test_double_precision():
    model = randomise(small_vit()).double()
    images = small_images().double()
    assert model(images).dtype == torch.float64
    torch.testing.assert_close(model(images).float(), model.float()(images.float()))


# -- captures ----------------------------------------------------------------------------------


def test_captures_are_the_tensors_of_the_pass():
    model = randomise(small_vit(depth=3, layer_scale=0.5))
    _, seen = model.forward_with(small_images(), ONCE + PER_LAYER)
    before = [seen["embedding"], *seen["tokens"][:-1]]
    for index, (x, block) in enumerate(zip(before, model.blocks, strict=True)):
        torch.testing.assert_close(
            x + seen["attn_out"][index] + seen["mlp_out"][index], seen["tokens"][index]
        )
        torch.testing.assert_close(seen["attention"][index], block.attn.weights(block.norm1(x)))
        q, k, v = block.attn.split(block.norm1(x))
        for name, value in (("q", q), ("k", k), ("v", v)):
            torch.testing.assert_close(seen[name][index], value)
    rows = torch.stack(seen["attention"]).sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_one_layer_alone():
    model = randomise(small_vit(depth=3))
    _, seen = model.forward_with(small_images(), PER_LAYER)
    names = ["attention.0", "attention.2", "attention.-1", "tokens.-3", "q.1", "mlp_out.2"]
    _, single = model.forward_with(small_images(), names)
    assert list(single) == names or set(single) == set(names)
    for name in names:
        base, layer = name.split(".")
        assert torch.equal(single[name], seen[base][int(layer)])


def test_one_layer_beside_all_layers():
    model = small_vit(depth=3)
    _, seen = model.forward_with(small_images(), ["attention", "attention.1", "tokens.1"])
    assert len(seen["attention"]) == 3
    assert torch.equal(seen["attention"][1], seen["attention.1"])
    assert seen["tokens.1"].shape == (2, 13, 24)


def test_nothing_is_captured_where_nothing_is_asked():
    logits, seen = small_vit().forward_with(small_images(), [])
    assert seen == {}
    assert torch.equal(logits, small_vit()(small_images()))


def test_only_what_is_asked_for_is_computed(monkeypatch):
    """The maps of all layers are large: none is made where one is asked for."""
    made = []
    import vitcore.attention as module

    right = module.attention_weights
    monkeypatch.setattr(
        module, "attention_weights", lambda q, k: made.append(q.shape) or right(q, k)
    )
    model = small_vit(depth=3)
    model(small_images())
    model.forward_with(small_images(), ["q", "tokens"])
    assert made == []
    model.forward_with(small_images(), ["attention.1"])
    assert len(made) == 1
    model.forward_with(small_images(), ["attention"])
    assert len(made) == 4


@pytest.mark.parametrize("name", ["q", "k", "v", "attn_out", "mlp_out", "tokens"])
def test_gradients_flow_through_captures(name):
    model = randomise(small_vit())
    logits, seen = model.forward_with(small_images(), [name, "embedding", "features", "pooled"])
    for tensor in (*seen[name], seen["embedding"], seen["features"], seen["pooled"]):
        (slope,) = torch.autograd.grad(logits.square().sum(), tensor, retain_graph=True)
        assert slope.abs().max() > 0


def test_gradients_flow_from_the_attention_weights():
    model = randomise(small_vit())
    _, seen = model.forward_with(small_images(), ["attention.-1"])
    seen["attention.-1"][:, :, 0, 1:].square().sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().max() > 0
    assert model.blocks[-1].attn.qkv.weight.grad.abs().max() > 0


def test_the_logits_depend_on_the_attention_weights_where_written_out():
    model = randomise(small_vit(attention_options={"kernel": "explicit"}))
    images = small_images()
    logits, seen = model.forward_with(images, ["v.1", "attention.1"])
    (slope,) = torch.autograd.grad(logits.sum(), seen["v.1"])
    assert slope.abs().max() > 0


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_learns(options):
    model = randomise(small_vit(**options))
    model(small_images()).square().sum().backward()
    # where the mean of the patches is read and nothing else, prefix tokens act through attention
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# -- parameters --------------------------------------------------------------------------------


def test_parameter_names():
    names = set(small_vit(depth=1, registers=1, layer_scale=0.1).state_dict())
    layers = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    want = {f"blocks.0.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    want |= {"cls_token", "reg_token", "pos_embed", "blocks.0.ls1.gamma", "blocks.0.ls2.gamma"}
    want |= {f"{name}.{kind}" for name in ("patch_embed.proj", "norm", "head")
             for kind in ("weight", "bias")}  # fmt: skip
    assert names == want


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_no_persistent_buffers(options):
    model = small_vit(**options)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def truncated_normal(tensor: torch.Tensor, std: float = 0.02) -> None:
    """A normal distribution cut at two deviations keeps 0.8796 of its deviation."""
    tensor = tensor * (0.02 / std)
    count = tensor.numel()
    assert tensor.abs().max() <= 0.04 + 1e-6
    assert abs(tensor.mean().item()) < 5 * 0.0176 / math.sqrt(count)
    assert tensor.std().item() == pytest.approx(0.0176, rel=max(0.03, 4 / math.sqrt(count)))
    assert tensor.abs().max() > 0.03


@pytest.mark.parametrize("std", [0.02, 0.08])
def test_initialisation(std):
    torch.manual_seed(0)
    model = ViT(image_size=32, patch_size=4, num_classes=50, dim=96, depth=2, heads=3, registers=4,
                layer_scale=1e-3, init_std=std)  # fmt: skip
    seen = set()
    for name, parameter in model.named_parameters():
        seen.add(name)
        if "norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, name.endswith("weight")))
        elif name.endswith("bias"):
            assert not parameter.any()
        elif name.endswith("gamma"):
            assert torch.equal(parameter, torch.full_like(parameter, 1e-3))
        else:  # head, tokens and positions keep 0.02, whatever the other maps start from
            inner = name.endswith("weight") and name != "head.weight"
            truncated_normal(parameter.detach(), std if inner else 0.02)
    assert {"cls_token", "reg_token", "pos_embed"} <= seen


def test_the_seed_decides_the_weights():
    first, again = small_vit(), small_vit()
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    first.reset_parameters()
    assert not torch.equal(first.pos_embed, again.pos_embed)
    assert not torch.equal(first.head.weight, again.head.weight)


def test_the_loss_before_training_is_that_of_a_guess():
    torch.manual_seed(0)
    model = ViT(image_size=32, patch_size=4, num_classes=100, dim=192, depth=6, heads=3).eval()
    loss = F.cross_entropy(model(torch.randn(64, 3, 32, 32)), torch.arange(64))
    assert loss.item() == pytest.approx(math.log(100), abs=0.15)


def test_one_batch_is_learned_by_heart():
    model = small_vit().train()
    images, labels = small_images(8), torch.arange(8) % 5
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05


def test_importing_the_core_loads_the_core_alone():
    code = (  # torch imports some packages by itself
        "import sys, torch, einops; before = set(sys.modules); import vitcore; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "bad = {'torchvision', 'matplotlib', 'tqdm', 'safetensors', 'PIL', 'timm'} & new; "
        "assert not bad, bad; print(vitcore.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.1.0"


# -- parameters anew ---------------------------------------------------------------------------


def tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.mark.parametrize("options", [*VARIANTS.values(), {"patch_embed": "conv_stem"}])
def test_reset_parameters_leaves_nothing_of_what_was_there(options):
    fresh, used = small_vit(**options), small_vit(**options)
    with torch.no_grad():
        for tensor in tensors(used).values():
            tensor.fill_(float("nan"))
    for model in (fresh, used):
        torch.manual_seed(3)
        model.reset_parameters()
    for name, tensor in tensors(fresh).items():
        assert torch.equal(tensor, tensors(used)[name]), name


@pytest.mark.parametrize("options", [*VARIANTS.values(), {"patch_embed": "conv_stem"}])
def test_a_model_from_the_meta_device_starts_as_any_other(options):
    with torch.device("meta"):
        model = small_vit(**options)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in tensors(model).values():
            tensor.fill_(float("nan"))
    fresh = small_vit(**options)
    for one in (model, fresh):
        torch.manual_seed(3)
        one.reset_parameters()
    for name, tensor in tensors(fresh).items():
        assert torch.equal(tensor, tensors(model)[name]), name


def test_a_model_with_sincos_positions_can_be_copied_and_sent():
    model = small_vit(positions="sincos").bfloat16()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(small_images()), model(small_images()))


def test_an_example_that_does_not_fit_is_refused_after_tracing():
    for images in (small_images(size=(12, 18)), small_images(channels=1)):
        with pytest.raises((RuntimeError, torch.jit.TracingCheckError), match=r"12 x 18|channels"):
            torch.jit.trace(small_vit(), images)


def test_modules_of_ones_own_start_as_they_say():
    class Scaled(nn.Linear):
        def reset_parameters(self):
            nn.init.constant_(self.weight, 0.5)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Scaled(24, 24, bias=False)
            self.gate = nn.Parameter(torch.empty(1))
            self.plain = nn.Linear(24, 24)

        def reset_parameters(self):
            nn.init.constant_(self.gate, self.inner.weight[0, 0].item())

    model = small_vit()
    model.blocks[0].mlp = Outer()
    model.blocks[1].mlp = type("PlainLinear", (nn.Linear,), {})(24, 24)
    with torch.no_grad():
        model.blocks[0].mlp.inner.weight.zero_()
    model.reset_parameters()
    outer = model.blocks[0].mlp
    assert (outer.inner.weight == 0.5).all()
    assert outer.gate.item() == 0.5  # from the inside out
    for linear in (outer.plain, model.blocks[1].mlp):
        assert linear.weight.abs().max() <= 0.04
        assert not linear.bias.any()


# -- tracing, exporting, other types -----------------------------------------------------------

EXPORTED = {
    "learned": {},
    "learned, prefix without positions": {"class_position": False, "registers": 2},
    "sincos": {"positions": "sincos", "attention_options": {"kernel": "explicit"}},
    "none": {"positions": "none", "pool": "mean"},
    "conv stem": {"patch_embed": "conv_stem", "depth": 1},
}
OTHER_SIZES = [(12, 16), (16, 12), (24, 20), (8, 8)]


@pytest.mark.parametrize("options", EXPORTED.values(), ids=EXPORTED)
def test_a_traced_model_takes_images_of_other_sizes(options, recwarn):
    model = randomise(small_vit(**options))
    traced = torch.jit.trace(model, small_images())
    assert not [w for w in recwarn if issubclass(w.category, torch.jit.TracerWarning)]
    for size in OTHER_SIZES:
        images = small_images(3, size)
        torch.testing.assert_close(traced(images), model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "strict"),
    [("learned", (12, 16), False), ("learned", (8, 20), True), ("sincos", (12, 16), True),
     ("learned, prefix without positions", (8, 20), False), ("conv stem", (12, 16), False)],
)  # fmt: skip
def test_an_exported_model_takes_images_of_other_sizes(name, size, strict):
    """Whether or not the example has the size that the model was made for."""
    model = randomise(small_vit(**{**EXPORTED[name], "depth": 1}))
    height, width = (4 * torch.export.Dim(name, min=2, max=64) for name in ("rows", "cols"))
    shapes = {"images": {0: torch.export.Dim("batch"), 2: height, 3: width}}
    exported = torch.export.export(
        model, (small_images(size=size),), dynamic_shapes=shapes, strict=strict
    ).module()
    for other in OTHER_SIZES:
        images = small_images(3, other)
        torch.testing.assert_close(exported(images), model(images), atol=1e-5, rtol=1e-5)


def test_onnx_keeps_the_positions_that_it_cannot_resize(monkeypatch):
    monkeypatch.setattr("torch.onnx.is_in_onnx_export", lambda: True)
    graph = str(torch.jit.trace(small_vit(), small_images()).inlined_graph)
    assert "bicubic" not in graph
    sincos = torch.jit.trace(small_vit(positions="sincos"), small_images(size=(16, 12)))
    assert sincos(small_images(size=(8, 8))).shape == (2, 5)


@pytest.mark.parametrize("patch_embed", ["linear", "conv_stem"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_images_are_converted_to_the_type_of_the_model(kind, patch_embed):
    model = randomise(small_vit(patch_embed=patch_embed)).to(kind)
    images = small_images()
    assert model(images).dtype == kind
    assert torch.equal(model(images), model(images.to(kind)))
    back = model.float()
    assert back(images.to(kind)).dtype == torch.float32


def test_autocast_takes_tokens_of_its_own_type():
    model = randomise(small_vit(layer_scale=0.5, attention_options={"kernel": "explicit"}))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(small_images())
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(small_images()), atol=0.2, rtol=0.1)


def test_a_quantised_model_still_runs():
    from torch.ao.quantization import quantize_dynamic

    model = randomise(small_vit())
    small = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    torch.testing.assert_close(small(small_images()), model(small_images()), atol=0.3, rtol=0.3)


def test_numbers_of_numpy_are_numbers():
    wanted = {"image_size": (12, 16), "depth": 1, "mlp_ratio": 2.0, "drop_path": 0.25}
    given = {"image_size": (np.int64(12), np.int32(16)), "depth": np.uint8(1)}
    given |= {"mlp_ratio": np.float32(2), "drop_path": np.float64(0.25)}
    model = small_vit(**given, patch_size=np.int64(4), num_classes=np.int16(5), dim=np.int64(24))
    assert model.config == small_vit(**wanted).config
    assert type(model.config.image_size[0]) is type(model.config.depth) is int
    assert type(model.config.mlp_ratio) is float
    assert ViTConfig(image_size=np.int64(32)).image_size == 32
    assert create_model("vit_mnist", depth=np.int64(1)).config.depth == 1


def test_options_of_a_configuration_are_its_own():
    options = {"kernel": "fused"}
    config = ViTConfig(attention_options=options)
    options["kernel"] = "explicit"
    assert config.attention_options == {"kernel": "fused"}


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small_vit(image_size=30, patch_size=7), (30, 7)),
        (lambda: small_vit(image_size=4, patch_size=8), ("larger", 8)),
        (lambda: small_vit(image_size=0), ("image_size is 0",)),
        (lambda: small_vit(image_size=(12, -16)), ("(12, -16)",)),
        (lambda: small_vit(patch_size=0), ("patch_size is 0",)),
        (lambda: small_vit(patch_size=-4), ("patch_size is -4",)),
        (lambda: small_vit(in_channels=0), ("in_channels is 0",)),
        (lambda: small_vit(dim=0), ("dim is 0",)),
        (lambda: small_vit(depth=0), ("depth is 0",)),
        (lambda: small_vit(heads=-3), ("heads is -3",)),
        (lambda: small_vit(heads=7), ("dim 24", "7 heads")),
        (lambda: small_vit(num_classes=-1), ("num_classes is -1", "at least 0")),
        (lambda: small_vit(registers=-1), ("registers is -1",)),
        (lambda: small_vit(pool="max"), ("pool is 'max'", "'cls'", "'mean'")),
        (lambda: small_vit(pool=None), ("pool is None",)),
        (lambda: small_vit(pool=["cls"]), ("pool is ['cls']",)),
        (lambda: small_vit(pool_norm="never"), ("pool_norm is 'never'", "'before'")),
        (lambda: small_vit(positions="turned"), ("positions is 'turned'", "'learned'", "'sincos'")),
        (lambda: small_vit(positions="sincos", dim=18), ("dim is 18", "divisible by 4")),
        (lambda: small_vit(class_token=False), ("pool is 'cls'", "pool='mean'")),
        (lambda: small_vit(patch_embed="conv"), ("'conv'", "linear")),
        (lambda: small_vit(mlp_ratio=0), ("mlp_ratio is 0",)),
        (lambda: small_vit(init_std=0.0), ("init_std is 0.0", "positive")),
        (lambda: small_vit(init_std=-1), ("init_std is -1",)),
        (lambda: small_vit(mlp_ratio=float("nan")), ("mlp_ratio is nan",)),
        (lambda: small_vit(mlp_ratio=0.01), ("hidden_dim is 0",)),
        (lambda: small_vit(init_std=float("inf")), ("init_std is inf",)),
        (lambda: small_vit(layer_scale=float("nan")), ("layer_scale is nan", "finite")),
        (lambda: small_vit(layer_scale=1e300), ("layer_scale is 1e+300", "float32")),
        (lambda: small_vit(dim=2**31), ("dim is 2147483648", "at most 2147483647")),
        (lambda: small_vit(image_size=2**31), ("image_size is 2147483648",)),
        (lambda: small_vit(attention=["global"]), ("attention is ['global']", "'global'")),
        (lambda: small_vit(patch_embed=["linear"]), ("patch_embed is ['linear']",)),
        (lambda: small_vit(positions={"a": 1}), ("positions is {'a': 1}",)),
        (lambda: create_model(["vit_mnist"]), ("model is ['vit_mnist']", "vit_cifar")),
        (lambda: create_model(None), ("model is None",)),
        (lambda: small_vit().positions_for((0, 4)), ("grid is (0, 4)",)),
        (lambda: small_vit().pool(torch.zeros(2, 24)), ("features has shape (2, 24)",)),
        (lambda: small_vit()(torch.zeros(2, 3, 12, 16, device="meta")), ("meta", "cpu", "move")),
        (lambda: create_model("vit_huge"), ("'vit_huge'", "vit_tiny_patch16_224")),
        (lambda: small_vit()(torch.zeros(2, 3, 12, 18)), ("12 x 18", 4)),
        (lambda: small_vit()(torch.zeros(2, 1, 12, 16)), ("(2, 1, 12, 16)", "(B, 3, H, W)")),
        (lambda: small_vit()(torch.zeros(3, 12, 16)), ("(3, 12, 16)", "(B, 3, H, W)")),
        (lambda: small_vit()(torch.zeros(2, 12)), ("(2, 12)",)),
        (lambda: small_vit().forward_with(small_images(), ["maps"]), ("'maps'", "attention")),
        (lambda: small_vit().forward_with(small_images(), ["attention.2"]), ("0 to 1",)),
        (lambda: small_vit().forward_with(small_images(), ["attention.-3"]), ("'attention.-3'",)),
        (lambda: small_vit().forward_with(small_images(), ["attention."]), ("'attention.'",)),
        (lambda: small_vit().forward_with(small_images(), ["attention.x"]), ("'attention.x'",)),
        (lambda: small_vit().forward_with(small_images(), ["pooled.0"]), ("'pooled.0'",)),
        (lambda: small_vit().forward_with(small_images(), ["q.--1"]), ("'q.--1'",)),
    ],
)
def test_values_that_do_not_fit(call, words):
    says_in_one_sentence(ValueError, call, *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small_vit(image_size=12.0), ("image_size is 12.0",)),
        (lambda: small_vit(image_size=None), ("image_size is None",)),
        (lambda: small_vit(patch_size="4"), ("patch_size is '4'",)),
        (lambda: small_vit(dim=24.0), ("dim is 24.0",)),
        (lambda: small_vit(depth=True), ("depth is True",)),
        (lambda: small_vit(num_classes=5.0), ("num_classes is 5.0",)),
        (lambda: small_vit(num_classes=None), ("num_classes is None",)),
        (lambda: small_vit(registers=True), ("registers is True",)),
        (lambda: small_vit(drop_path="high"), ("drop_path is 'high'",)),
        (lambda: small_vit(mlp_ratio=None), ("mlp_ratio is None",)),
        (lambda: small_vit(layer_scale="no"), ("layer_scale is 'no'",)),
        (lambda: small_vit(init_std="wide"), ("init_std is 'wide'",)),
        (lambda: small_vit(width=24), ("'width'", "dim")),
        (lambda: ViTConfig.from_dict({"dimm": 3, "size": 4}), ("'dimm'", "dim")),
        (lambda: ViT({"dim": 24}), ("{'dim': 24}", "ViTConfig")),
        (lambda: ViT("vit_tiny_patch16_224"), ("'vit_tiny_patch16_224'", "create_model")),
        (lambda: create_model("vit_mnist", classes=3), ("'classes'", "num_classes")),
        (lambda: small_vit()(torch.zeros(2, 3, 12, 16, dtype=torch.uint8)), ("uint8", "255")),
        (lambda: small_vit()(torch.zeros(2, 3, 12, 16, dtype=torch.bool)), ("bool",)),
        (lambda: small_vit()([[0.0]]), ("list",)),
        (lambda: small_vit().forward_with(small_images(), "attention"), ("'attention'", "list")),
        (lambda: small_vit(class_token=1), ("class_token is 1", "True or False")),
        (lambda: small_vit(class_position=None), ("class_position is None",)),
        (lambda: small_vit(qkv_bias="yes"), ("qkv_bias is 'yes'",)),
        (lambda: small_vit(image_size=(12, True)), ("(12, True)",)),
        (lambda: small_vit(image_size=np.zeros((2, 3))), ("image_size is array",)),
        (lambda: small_vit(dim=np.float32(24)), ("dim is",)),
        (lambda: small_vit(dim=torch.tensor(24)), ("dim is tensor(24)",)),
        (lambda: small_vit(drop_path=True), ("drop_path is True",)),
        (lambda: small_vit(attention_options={"dim": 24}), ("'dim'", "kernel")),
        (lambda: small_vit(attention_options={"qkv_bias": False}), ("'qkv_bias'", "kernel")),
        (lambda: small_vit(attention_options={3: 4}), ("must be strings",)),
        (lambda: small_vit(attention_options=None), ("attention_options is None",)),
        (lambda: small_vit(patch_embed_options={"dim": 24}), ("'dim'", "none")),
        (lambda: small_vit(patch_embed_options=["a"]), ("patch_embed_options is ['a']",)),
        (lambda: ViTConfig.from_dict(None), ("None", "dict")),
        (lambda: ViTConfig.from_dict([("dim", 3)]), ("[('dim', 3)]",)),
        (lambda: ViTConfig.from_dict({3: 4}), ("must be strings",)),
        (lambda: small_vit().forward_with(small_images(), [3]), ("capture is [3]", "names")),
        (lambda: small_vit().forward_with(small_images(), None), ("capture is None", "list")),
        (lambda: small_vit().forward_with(small_images(), 3), ("capture is 3",)),
        (lambda: small_vit().forward_with(small_images(), np.array(3)), ("capture is array(3)",)),
        (lambda: small_vit().pool([1.0]), ("features is a list",)),
        (lambda: small_vit().positions_for(2.5), ("grid is 2.5",)),
        (lambda: small_vit(attention_options={"window": 3}), ("'window'",)),
        (lambda: small_vit(patch_embed_options={"overlap": 3}), ("'overlap'",)),
        (lambda: small_vit(attention_options=3), ("attention_options is 3",)),
    ],
)
def test_types_that_do_not_fit(call, words):
    says_in_one_sentence(TypeError, call, *words)
