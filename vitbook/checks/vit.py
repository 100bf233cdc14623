# SPDX-License-Identifier: MIT
"""Checks of chapter 5: the model as a whole, its readout and its parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcore.patches import patchify, unpatchify
from vitcore.vit import ViT, ViTConfig

from .blocks import judge_identity
from .embeddings import CLASS_BARE, NO_POSITIONS, ONE_POSITION
from .frame import (
    CheckFailed,
    Unsolved,
    WrongUse,
    call,
    check,
    compare,
    images_for,
    lively,
    need,
    parts_of,
    replaced,
    same_values,
)


def _patch_size(model: Any) -> int:
    if isinstance(getattr(model, "config", None), ViTConfig):
        return cast(int, model.config.patch_size)
    need(model, "patch_embed")
    return cast(int, model.patch_embed.proj.kernel_size[0])


def _unsolved_model(model: Any) -> None:
    if model is None or model is ...:
        raise Unsolved("there is no model to check so far")


@check("every shape is right")
def check_shapes(model: Any, images: Tensor | None = None) -> None:
    """Every tensor of the model has the right shape: what all thirteen of ``BUGS`` pass."""
    _unsolved_model(model)
    twin, images = copy.deepcopy(model).cpu().float().eval(), images_for(model, images)
    config: ViTConfig = twin.config
    batch, width = images.shape[0], config.dim
    grid = [side // config.patch_size for side in images.shape[2:]]
    count = grid[0] * grid[1] + config.prefix_tokens
    logits, seen = twin.forward_with(images, ["embedding", "tokens", "features", "pooled"])
    found = {
        "logits": (logits, (batch, config.num_classes or width)),
        "embedding": (seen["embedding"], (batch, count, width)),
        "features": (seen["features"], (batch, count, width)),
        "pooled": (seen["pooled"], (batch, width)),
    }
    found.update({f"tokens.{i}": (x, (batch, count, width)) for i, x in enumerate(seen["tokens"])})
    for name, (tensor, want) in found.items():
        if tuple(tensor.shape) != want:
            raise CheckFailed(f"{name} has shape {tuple(tensor.shape)}, expected is {want}")


@check("shuffled patches matter with positions, and do not matter without them")
def check_permutation_equivariance(model: Any, images: Tensor | None = None) -> None:
    """Shuffled patches change the logits where there are positions, and leave them otherwise."""
    _unsolved_model(model)
    twin, images, size = _lively(model), images_for(model, images), _patch_size(model)
    tokens = patchify(images, size)
    order = torch.randperm(tokens.shape[1])
    shuffled = unpatchify(tokens[:, order], size, (images.shape[2], images.shape[3]))
    table = getattr(twin, "pos_embed", None)
    if table is not None:
        if same_values(call(twin, images), call(twin, shuffled)):
            raise CheckFailed(
                "an image and the same image with its patches shuffled give the same logits: "
                "the model does not know where a patch comes from. Are the positions added, "
                "and does every token get a vector of its own?"
            )
        with torch.no_grad():
            table.zero_()
    if not same_values(call(twin, images), call(twin, shuffled)):
        raise CheckFailed(
            "without positions the order of the patches must not matter, and it does: are the "
            "tokens squares of the image, each treated like all others?"
        )


def _positions_that_matter(twin: Any, images: Tensor) -> list[bool]:
    """Which vectors of the position table move the logits, by their gradients."""
    table = twin.pos_embed.requires_grad_()
    logits = call(twin, images)
    (slope,) = torch.autograd.grad(
        (logits * torch.randn_like(logits)).sum(), table, allow_unused=True
    )
    if slope is None:
        return [False] * table.shape[-2]
    return cast("list[bool]", slope.ne(0).any(dim=-1).flatten().tolist())


def _lively(model: Any) -> Any:
    """A lively copy whose positions are a table that it holds, also where they are sines."""
    twin = lively(model)
    if isinstance(twin, ViT) and twin.config.positions == "sincos":
        table = twin.positions_for(twin.grid)
        assert table is not None
        twin.pos_embed = nn.Parameter(table)
        twin.config = replace(twin.config, positions="learned")
    return twin


def _with_table(model: Any) -> Any:
    _unsolved_model(model)
    twin = _lively(model)
    if getattr(twin, "pos_embed", None) is None:
        raise CheckFailed("the model has no table of positions (.pos_embed)")
    return twin


@check("every vector of the position table reaches the logits")
def check_positions_used(model: Any, images: Tensor | None = None) -> None:
    """Each vector of the position table matters to the logits."""
    twin, images = _with_table(model), images_for(model, images)
    used = _positions_that_matter(twin, images)
    if all(used):
        return
    if not any(used):
        raise CheckFailed(NO_POSITIONS)
    if sum(used) == 1:
        raise CheckFailed(ONE_POSITION)
    if used.index(False) == 0 and sum(used) == len(used) - 1:
        raise CheckFailed(CLASS_BARE)
    raise CheckFailed(
        f"{len(used) - sum(used)} of the {len(used)} vectors of the position table do nothing: "
        "every token must get one of its own"
    )


@check("the class token has a position")
def check_class_token_position(model: Any, images: Tensor | None = None) -> None:
    """The class token's vector of the position table matters to the logits."""
    twin, images = _with_table(model), images_for(model, images)
    config = getattr(twin, "config", None)
    if isinstance(config, ViTConfig) and not (config.class_token and config.class_position):
        raise WrongUse("this model is made without a class token that has a position")
    if not _positions_that_matter(twin, images)[0]:
        raise CheckFailed(CLASS_BARE)


@check("with its branches at zero it hands its input on")
def check_identity_at_zero(model: Any, images: Tensor | None = None) -> None:
    """With all branches at zero a model equals itself without blocks, a block gives its input."""
    _unsolved_model(model)
    for part in parts_of(model, "block"):
        judge_identity(part)
    if hasattr(model, "blocks"):
        twin, images = lively(model), images_for(model, images)
        for block in twin.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        full = call(twin, images)
        twin.blocks = type(twin.blocks)()
        if not same_values(full, call(twin, images)):
            raise CheckFailed(
                "with attention and MLP at zero the blocks should change nothing, and the "
                "logits differ from those of the model without blocks"
            )


@check("the head reads what has passed the final norm")
def check_final_norm(model: Any, images: Tensor | None = None) -> None:
    """All that the head reads has passed the final norm.

    With the norm's weight at zero its output is its bias, so the image must not matter any more.
    """
    _unsolved_model(model)
    twin, images = lively(model), images_for(model, images)
    norms = [getattr(twin, name, None) for name in ("norm", "fc_norm")]
    norm = next((n for n in norms if getattr(n, "weight", None) is not None), None)
    if norm is None:
        raise CheckFailed("there is no final norm: the model has none under .norm or .fc_norm")
    with torch.no_grad():
        norm.weight.zero_()
    logits = call(twin, images)
    if not same_values(logits, logits[:1].expand_as(logits)):
        raise CheckFailed(
            "the final norm is passed by: with its weight at zero the head should see the same "
            "for every image, and it does not. Does the head read the tokens as the last block "
            "left them?"
        )
    want = twin.head(norm.bias)
    if not same_values(logits[0], want):
        raise CheckFailed("between the final norm and the head something else happens")


@check("the head reads the right tokens")
def check_readout(model: Any, images: Tensor | None = None, *, pool: str | None = None) -> None:
    """The head reads the class token (``pool="cls"``) or the mean of all patches (``"mean"``).

    The gradient of the logits with respect to the tokens after the final norm says which are read.
    """
    _unsolved_model(model)
    twin, images = lively(model), images_for(model, images)
    need(twin, "norm")
    config = getattr(twin, "config", None)
    prefix = config.prefix_tokens if isinstance(config, ViTConfig) else 1
    pool = pool or (config.pool if isinstance(config, ViTConfig) else "cls")
    seen: list[Tensor] = []
    handle = twin.norm.register_forward_hook(lambda *given: seen.append(given[-1]))
    logits = call(twin, images)
    handle.remove()
    if len(seen) != 1 or seen[0].ndim != 3:
        raise CheckFailed("the final norm is not applied once, to all tokens (B, N, D)")
    (slope,) = torch.autograd.grad(
        (logits * torch.randn_like(logits)).sum(), seen[0], allow_unused=True
    )
    if slope is None:
        raise CheckFailed("the head reads nothing of what the final norm gives")
    share = slope.norm(dim=-1).mean(dim=0)
    read = [index for index, value in enumerate(share / share.max()) if value > 1e-4]
    want = [0] if pool == "cls" else list(range(prefix, len(share)))
    if read == want:
        if not same_values(share[want] / share.max(), torch.ones(len(want)), 1e-2):
            raise CheckFailed("the patches are read, but not all with the same share")
        return
    names = (
        "all tokens" if len(read) == len(share)
        else f"token {read[0]}" + (" (the last one)" if read[0] == len(share) - 1 else "")
        if len(read) == 1 else f"{len(read)} of {len(share)} tokens"
    )  # fmt: skip
    meant = (
        "the class token, which is token 0" if pool == "cls"
        else f"the {len(want)} patches, without the {prefix} tokens that stand before them"
    )  # fmt: skip
    raise CheckFailed(f"the wrong token is read out: the head reads {names}, meant is {meant}")


@check("the mean runs over the patches alone")
def check_mean_pool(pool: Callable[[Tensor, int], Tensor]) -> None:
    """``pool(features (B, K+N, D), prefix_tokens) -> (B, D)``, the mean of the patches alone."""
    for prefix in (0, 1, 3):
        x = torch.randn(4, prefix + 5, 6)
        wrong = [
            ("the tokens in front of the patches are in the mean too", x.mean(1)),
            ("one token too many is left out", x[:, prefix + 1 :].mean(1)),
            ("the class token came back, not the mean of the patches", x[:, 0]),
            ("the mean runs over the channels", x[:, prefix:].mean(2)),
            ("the mean runs over the batch", x[:, prefix:].mean(0)),
            ("the patches were added, not averaged", x[:, prefix:].sum(1)),
            (
                "the sum is divided by the number of all tokens, those in front too",
                x[:, prefix:].sum(1) / x.shape[1],
            ),
            ("the largest value came back, not the mean", x[:, prefix:].amax(1)),
        ]
        compare(
            call(pool, x, prefix), x[:, prefix:].mean(1), wrong,
            f"{prefix} tokens stand before the patches",
        )  # fmt: skip


@check("your forward pass gives the model's logits")
def check_forward(forward: Callable[[Tensor], Tensor], model: ViT, images: Tensor) -> None:
    """``forward(images) -> logits`` with the parts of a ViT with class token and positions."""
    with torch.no_grad():
        want, wrong = model(images), _wrong_passes(model, images)

        def refuse(*arguments: Any, **options: Any) -> None:
            raise CheckFailed("the model itself is called: put its parts together yourself")

        calls = ("forward", "forward_features", "forward_with", "embed")
        with replaced(model, **dict.fromkeys(calls, refuse)):
            got = call(forward, images)
    compare(
        got, want, wrong,
        "tokens, class token in front, positions, blocks, norm, head on the first token",
    )  # fmt: skip


def _wrong_passes(model: ViT, images: Tensor) -> list[tuple[str, Tensor]]:
    tokens = model.patch_embed(images)[0]
    token: Any = model.cls_token
    first = token.expand(len(images), -1, -1)
    table: Any = model.pos_embed
    bare = torch.cat([first, tokens], dim=1)

    def finish(x: Tensor, blocks: Sequence[Any] = tuple(model.blocks), read: Any = 0) -> Tensor:
        for block in blocks:
            x = block(x)
        x = model.norm(x)
        return cast(Tensor, model.head(x[:, read] if isinstance(read, int) else read(x)))

    z = bare + table
    blocks = list(model.blocks)
    stream = z
    for block in blocks:
        stream = block(stream)
    at_end = torch.cat([tokens, first], dim=1) + table
    return [
        ("the final norm is missing: the head reads the tokens as the last block left them",
         model.head(stream[:, 0])),
        (NO_POSITIONS, finish(bare)),
        (CLASS_BARE, finish(torch.cat([first, tokens + table[:, 1:]], dim=1))),
        (ONE_POSITION, finish(bare + table[:, :1])),
        ("the wrong token is read out: the head reads the last one, meant is the class token, "
         "which is token 0", finish(z, read=-1)),
        ("the wrong token is read out: the head reads the first patch, meant is the class token, "
         "which is token 0", finish(z, read=1)),
        ("the head reads the mean of all tokens, meant is the class token",
         finish(z, read=lambda x: x.mean(1))),
        ("the head reads the mean of the patches, meant is the class token",
         finish(z, read=lambda x: x[:, 1:].mean(1))),
        ("the head reads every token, meant is the class token", finish(z, read=lambda x: x)),
        ("the class token stands at the end: its place is in front", finish(at_end, read=-1)),
        ("the class token stands at the end: its place is in front", finish(at_end)),
        ("the blocks are left out", finish(z, [])),
        ("only the first block is used", finish(z, blocks[:1])),
        ("the last block is left out", finish(z, blocks[:-1])),
        ("the first block is left out", finish(z, blocks[1:])),
        ("the blocks are used in the opposite order", finish(z, blocks[::-1])),
        ("the norm comes before the blocks, where it is the last step before the head",
         finish(model.norm(z))),
        ("the head is left out", model.norm(stream)[:, 0]),
        ("what comes out are probabilities: logits are asked", finish(z).softmax(-1)),
    ]  # fmt: skip


@check("the loss before training is near that of a guess")
def check_initial_loss(model: Any, images: Tensor | None = None) -> None:
    """Before training the loss is near ln(K): the model prefers no class."""
    _unsolved_model(model)
    twin, images = copy.deepcopy(model).cpu().float().eval(), images_for(model, images, 32)
    with torch.no_grad():
        logits = call(twin, images)
    if logits.ndim != 2:
        raise CheckFailed(f"logits (B, K) are expected, but their shape is {logits.shape}")
    classes = logits.shape[1]
    if (logits >= 0).all() and same_values(logits.sum(1), torch.ones(len(logits))):
        raise CheckFailed(
            "what comes out are probabilities: cross-entropy applies the softmax itself, so a "
            "model gives logits"
        )
    labels = torch.arange(len(logits)) % classes
    loss, guess = F.cross_entropy(logits, labels).item(), math.log(classes)
    if not abs(loss - guess) < 0.3:
        raise CheckFailed(
            f"the loss before training is {loss:.2f}, while guessing among {classes} classes "
            f"costs {guess:.2f}: the model starts with an opinion. Are its weights drawn with "
            "too large a deviation?"
        )


@check("both models give the same logits")
def check_same_logits(model_a: Any, model_b: Any, images: Tensor, tolerance: float = 1e-5) -> None:
    """Two models with the same weights give the same logits for the same images."""
    _unsolved_model(model_a)
    _unsolved_model(model_b)
    modes = [(m, m.training) for m in (model_a, model_b) if isinstance(m, nn.Module)]
    try:
        for module, _ in modes:
            module.eval()
        with torch.no_grad():
            a, b = call(model_a, images), call(model_b, images)
    finally:
        for module, mode in modes:
            module.train(mode)
    if a.shape != b.shape:
        raise CheckFailed(f"the logits have shapes {tuple(a.shape)} and {tuple(b.shape)}")
    difference = (a.double() - b.double()).abs().max().item()
    if difference <= tolerance:
        return
    hints = []
    traits: dict[str, list[set[Any]]] = {
        "the eps of the norms": [
            {m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)} for module, _ in modes
        ],
        "the kind of GELU": [
            {m.approximate for m in module.modules() if isinstance(m, nn.GELU)}
            for module, _ in modes
        ],
    }
    for what, found in traits.items():
        if len(found) == 2 and all(found) and found[0] != found[1]:
            hints.append(f"{what} differs ({found[0]} and {found[1]})")
    raise CheckFailed(
        f"the logits differ by up to {difference:.2g}, allowed is {tolerance:.0e}: "
        + ("; ".join(hints) if hints else "are the weights the same, and all of them used?")
    )
