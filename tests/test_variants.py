# SPDX-License-Identifier: MIT
"""vitbook.variants and what each variant must do: one small model each, all by the same tests."""

# mypy: ignore-errors
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from training_helpers import ROOT

from vitbook.ladders import BUILDS_ON
from vitbook.variants import GPU_VARIANTS, VARIANT_CHANGES, VARIANTS
from vitcore import ViT, ViTConfig, explain
from vitcore.recipes import RECIPES
from vitcore.runs import training_pflop
from vitcore.training import load_weights, save_weights

RESNET = {"weights": None, "frozen": False, "stage": 1}
CHANGES = {
    **VARIANT_CHANGES,
    # No recipe is of these: what they are worth hangs on the weights that they bring.
    "resnet": {"patch_embed": "resnet", "patch_embed_options": RESNET},
    "resnet-patches": {
        "patch_embed": "resnet", "patch_embed_options": {**RESNET, "reading": "patches"}
    },
}  # fmt: skip
"""What each variant changes in the configuration of the base."""

EXCEPTIONS = {
    # A flexible patch size is drawn for each batch, on the processor: torch.compile breaks there.
    ("flexible", "fullgraph"): "draws a patch size",
    # Nothing stands in a table of positions.
    **{(name, "position_similarity"): "no table" for name in ("none", "relative", "rotary")},
    # What brings pixels in is no kernel of one patch.
    **{(name, "patch_filters"): "no kernel" for name in ("stem", "shifted", "hierarchical")},
    **{(name, "patch_filters"): "no kernel" for name in ("resnet", "resnet-patches")},
}
"""What a variant cannot do, and why; every other pair is tested to work, and these not to."""

each = pytest.mark.parametrize("name", CHANGES)
LABELS = {"classes": list("abcd"), "mean": (0.5,) * 3, "std": (0.25,) * 3}


def small(name, **more):
    torch.manual_seed(0)
    fields = {
        "image_size": 16, "patch_size": 4, "num_classes": 4, "dim": 32, "depth": 2, "heads": 4,
        "mlp_ratio": 2.0, "class_token": False, "pool": "mean", "init_std": 0.1,
    }  # fmt: skip
    return ViT(ViTConfig(**{**fields, **CHANGES[name], **more}))


def task(count=32, side=16):
    """Images of noise, one quarter of which is bright: which one is to be told."""
    generator = torch.Generator().manual_seed(0)
    images = 0.5 * torch.randn(count, 3, side, side, generator=generator)
    labels = torch.arange(count) % 4
    half = side // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = half * (label // 2), half * (label % 2)
        image[:, top : top + half, left : left + half] += 1
    return images, labels


@each
def test_trains_in_bf16_saves_and_runs_at_another_size(name, tmp_path):
    model, (images, labels) = small(name), task()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        grads = [p.grad for p in model.parameters()]
        assert all(g is not None and g.isfinite().all() for g in grads)
        optimizer.step()
        losses.append(loss.item())
    # Without positions the mean cannot tell where: it has only the patches' edges to learn from.
    assert min(losses[-3:]) < (1.0 if name == "none" else 0.7) * losses[0], losses
    path = tmp_path / "model.safetensors"
    save_weights(path, model.eval(), **LABELS)
    loaded = load_weights(path).model.eval()
    assert loaded.config == ViTConfig.from_dict(json.loads(json.dumps(model.config.to_dict())))
    for size in ((16, 16), (32, 24)):
        larger = torch.randn(2, 3, *size)
        with torch.no_grad():
            logits = model(larger)
            assert torch.equal(loaded(larger), logits)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(larger)
        assert rounded.dtype == torch.bfloat16
        assert (rounded - logits).abs().max() < 0.1 * logits.abs().max() + 0.1
    assert model.bfloat16()(larger.bfloat16()).isfinite().all()


@each
def test_explains_itself(name):
    model, (images, _) = small(name).eval(), task(2)
    tokens = model.config.prefix_tokens + 16
    weights = explain.attention_maps(model, images)
    assert weights.shape == (2, 2, 4, tokens, tokens)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 4, tokens))
    for matrix in (explain.rollout(model, images), explain.relevance(model, images)):
        assert explain.patch_map(model, images, matrix).shape == (2, 4, 4)
        assert matrix.isfinite().all()
    assert explain.attention_distance(model, images).shape == (2, 2, 4)
    assert explain.gradient_times_input(model, images).shape == (2, 4, 4)
    torch.testing.assert_close(explain.logit_lens(model, images)[:, -1], model(images))
    assert explain.token_similarity(model, images, 5).shape == (2, 2, 4, 4)
    for tool in (explain.position_similarity, explain.patch_filters):
        if (name, tool.__name__) in EXCEPTIONS:
            with pytest.raises(ValueError, match="; give"):
                tool(model)
        else:
            tool(model)


@each
def test_compiles(name):
    """What torch records is one graph, and gives the same; the compiler behind it is torch's."""
    model, (images, _) = small(name, depth=1), task(2)
    torch.compiler.reset()
    fullgraph = (name, "fullgraph") not in EXCEPTIONS
    compiled = torch.compile(model.eval(), backend="eager", fullgraph=fullgraph)
    torch.testing.assert_close(compiled(images), model(images))
    if not fullgraph:
        with pytest.raises(Exception, match=r"(?i)graph|unsupported|data.dependent"):
            torch.compile(model.train(), backend="eager", fullgraph=True)(images)
        torch.compiler.reset()
        assert torch.compile(model, backend="eager")(images).shape == (2, 4)


TWO = r"""
import json, os, sys
import torch, torch.distributed as dist
sys.path.insert(0, "tests")
torch.set_num_threads(1)
from test_variants import CHANGES, F, small, task

folder = sys.argv[1]
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
images, labels = task(8)
apart = {}
for name in CHANGES:
    alone = small(name, depth=1).eval()
    parallel = torch.nn.parallel.DistributedDataParallel(small(name, depth=1).eval())
    F.cross_entropy(alone(images), labels).backward()
    F.cross_entropy(parallel(images[rank::2]), labels[rank::2]).backward()
    pairs = zip(alone.parameters(), parallel.module.parameters())
    apart[name] = max((a.grad - b.grad).abs().max().item() for a, b in pairs)
    parallel.train()(images[rank::2]).sum().backward()  # refused if a parameter had no part
dist.barrier()
dist.destroy_process_group()
if rank:
    os._exit(0)
os.wait()
print(json.dumps(apart))
"""


@pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="needs fork and gloo"
)
def test_two_processes_have_the_gradient_of_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    apart = json.loads(done.stdout.splitlines()[-1])
    assert list(apart) == list(CHANGES)
    assert {name: value for name, value in apart.items() if value > 1e-5} == {}


# --- the recipes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [VARIANTS, GPU_VARIANTS], ids=["small", "gpu"])
def test_each_recipe_is_the_base_with_one_change_at_the_same_arithmetic(names):
    base = RECIPES[names[0]]
    pflop = {}
    for name, changes in zip(names, VARIANT_CHANGES.values(), strict=True):
        recipe = RECIPES[name]
        assert name not in BUILDS_ON if recipe is base else BUILDS_ON[name] == base.name
        before, after = base.to_dict(), recipe.to_dict()
        differ = {key for key in before["model"] if before["model"][key] != after["model"][key]}
        assert differ == {key for key in changes if before["model"][key] != after["model"][key]}
        differ = {key for key in before["train"] if before["train"][key] != after["train"][key]}
        assert differ <= {"epochs", "warmup_epochs"}
        with torch.device("meta"):
            model = ViT(recipe.model).eval()  # a flexible patch has its own size there
        pflop[name] = training_pflop(recipe, model, 10_000)
    # Epochs are whole: half of one is the most that the arithmetic can be off.
    for name, value in pflop.items():
        assert abs(value / pflop[base.name] - 1) <= 0.51 / RECIPES[name].train.epochs, name
