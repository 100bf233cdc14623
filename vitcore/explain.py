# SPDX-License-Identifier: MIT
"""Looking inside a trained ViT: attention, rollout, relevance and more; chapter 8 shows them.

Every function takes a :class:`~vitcore.vit.ViT` and, where it needs them, images (B, C, H, W),
normalised as in training, on the model's device. No hooks, and the model stays as it was: its
weights, gradients, modes and logits. Tokens are counted with those before the patches, T = prefix +
N; :func:`patch_map` leaves them out. Of the matrices (B, h, T, T) of a layer no more is kept than
was asked for; what grows with B does so in what is given back, so a large batch goes in parts,
``images.split(64)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import _inputs as inputs
from .attention import Attention, Record
from .embeddings import TokenLayout
from .vit import ViT

__all__ = [
    "attention_distance",
    "attention_maps",
    "gradient_times_input",
    "logit_lens",
    "patch_filters",
    "patch_map",
    "position_similarity",
    "relevance",
    "rollout",
    "token_similarity",
]


# --- what is refused, and how the model is visited --------------------------------------------


def _check_model(model: Any) -> None:
    if not isinstance(model, ViT):
        kind = type(model).__name__
        raise TypeError(f"model is a {kind}; give a vitcore ViT, such as load_weights(...).model.")


def _check(model: Any, images: Any) -> None:
    _check_model(model)
    inputs.check_tensor("images", images, f"B, {model.config.in_channels}, H, W")
    if not len(images):
        raise ValueError("images holds no image, shape (0, ...); give at least one.")


def _check_chosen(name: str, chosen: Any, count: int) -> list[int]:
    """Give the numbers asked for, from 0, of ``count`` layers or heads; None stands for all."""
    if chosen is None:
        return list(range(count))
    listed = [chosen] if isinstance(chosen, int) else chosen
    whole = isinstance(listed, Sequence) and all(type(i) is int for i in listed)
    if not whole or isinstance(listed, str) or not listed:
        given = inputs.shown(chosen)
        raise TypeError(f"{name} is {given}; give a whole number, a list of them, or None for all.")
    if odd := [i for i in listed if not -count <= i < count]:
        raise ValueError(f"{name} holds {odd[0]}; give numbers from 0 to {count - 1}.")
    return [i % count for i in listed]


def _check_classes(model: ViT, classes: Any, logits: Tensor) -> Tensor:
    """Give the class of every image (B,): the one asked for, or the model's answer for None."""
    count, (batch, width) = model.config.num_classes, logits.shape
    if not count:
        raise ValueError("the model has no head; give one trained with num_classes above 0.")
    if classes is None:
        return logits.argmax(dim=1)
    try:
        chosen = torch.as_tensor(classes, device=logits.device)
    except (TypeError, ValueError, RuntimeError):
        chosen = torch.empty(0, dtype=torch.bool)
    whole = not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or chosen.shape not in ((), (batch,)):
        given = inputs.shown(classes)
        raise TypeError(f"classes is {given}; give one class number, or one for each image.")
    if int(chosen.min()) < 0 or int(chosen.max()) >= width:
        raise ValueError(f"classes is {inputs.shown(classes)}; give numbers from 0 to {width - 1}.")
    return chosen.long().expand(batch)


@contextmanager
def _visit(model: ViT, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, with or without a tape, and afterwards every part in its own mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            yield
    finally:
        for part, training in modes:
            part.training = training


def _taken(block: Any, record: Record, name: str) -> Tensor:
    if (found := record[name]) is None:
        kind = type(block.attn).__name__
        raise ValueError(f"{kind} records no {name!r}; give a model whose attention does.")
    return found


def _attentions(model: ViT, images: Tensor, layers: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Walk through the blocks and hand out the weights (B, h, T, T) of each of ``layers``."""
    x, layout = model.embed(images)
    for index, block in enumerate(model.blocks[: max(layers) + 1]):
        record: Record = {"attention": None} if index in layers else {}
        x = block(x, layout, record)
        if record:
            yield index, _taken(block, record, "attention")


def _layout(model: ViT, images: Tensor) -> TokenLayout:
    """Where the patches of these images stand; their number may not be the model's own."""
    return model.embed(images[:1])[1]


# --- attention --------------------------------------------------------------------------------


def attention_maps(
    model: ViT,
    images: Tensor,
    layers: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
) -> Tensor:
    """Give the attention weights of some layers and heads, (B, layers, heads, T, T).

    ``[b, l, a, i, j]`` is how much token i takes from token j; rows sum to one. Layers and heads
    are numbers from 0, negative ones from the end, None for all; only these are kept.
    Raises TypeError, ValueError for other input, or an attention that records no weights.
    """
    _check(model, images)
    wanted = _check_chosen("layers", layers, model.config.depth)
    chosen = _check_chosen("heads", heads, model.config.heads)
    with _visit(model):
        kept = {i: weights[:, chosen] for i, weights in _attentions(model, images, wanted)}
    return torch.stack([kept[layer] for layer in wanted], dim=1)


def rollout(model: ViT, images: Tensor, residual: float = 0.5) -> Tensor:
    """Follow attention through all layers: (B, T, T), row i what token i ends up made of.

    Per layer the mean over heads A becomes ``residual`` · I + (1 - ``residual``) · A, because the
    token itself goes on beside what it gathers; rows are divided by their sums, and the layers are
    multiplied, the last one in front. Values and MLPs do not count: this is where attention could
    have brought something from, and it is the same for every class.

    Raises TypeError, ValueError for other input, or a ``residual`` outside [0, 1).
    Source: Abnar and Zuidema (2020), section 3, with the identity's share of one half.
    """
    _check(model, images)
    residual = inputs.check_rate("residual", residual)
    with _visit(model):
        joined: Tensor | None = None
        for _, weights in _attentions(model, images, range(model.config.depth)):
            mixed = (1 - residual) * weights.float().mean(dim=1)  # (B, T, T)
            mixed = mixed + residual * torch.eye(mixed.shape[-1], device=mixed.device)
            mixed = mixed / mixed.sum(dim=-1, keepdim=True)
            joined = mixed if joined is None else mixed @ joined
    assert joined is not None
    return joined


def patch_map(model: ViT, images: Tensor, matrix: Tensor) -> Tensor:
    """Read from matrices (..., T, T) what the head sees of every patch: (..., rows, columns).

    That is the row of the class token, or the mean over the rows of the patches, whichever the
    model pools; the columns of class token and registers are left out. ``images`` are those that
    the matrices are of: their size says how many rows and columns of patches there are.
    Raises TypeError, ValueError where matrix and images do not fit.
    """
    _check(model, images)
    with _visit(model):
        (rows, cols), prefix = _layout(model, images)
    tokens = prefix + rows * cols
    inputs.check_tokens("matrix", matrix)
    if matrix.ndim < 2 or matrix.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"matrix has shape {tuple(matrix.shape)}; give (..., {tokens}, {tokens}), as of these "
            f"images with {rows} x {cols} patches and {prefix} tokens before them."
        )
    pooled = matrix[..., 0, :] if model.config.pool == "cls" else matrix[..., prefix:, :].mean(-2)
    return pooled[..., prefix:].unflatten(-1, (rows, cols))


def attention_distance(
    model: ViT, images: Tensor, layers: int | Sequence[int] | None = None
) -> Tensor:
    """Say how far each head looks: mean distance in pixels, (B, layers, heads).

    The distance between the middles of two patches, weighted with the attention from one to the
    other and averaged over the patches that ask. Class token and registers have no place: they
    are left out, and the weights among the patches are divided by their sum.
    Raises TypeError, ValueError as :func:`attention_maps`.
    Source: Dosovitskiy et al. (2021), figure 11 and appendix D.7.
    """
    _check(model, images)
    wanted = _check_chosen("layers", layers, model.config.depth)
    with _visit(model):
        (rows, cols), prefix = _layout(model, images)
        axes = torch.arange(rows), torch.arange(cols)
        sides = torch.tensor([images.shape[2] / rows, images.shape[3] / cols]).double()
        places = torch.cartesian_prod(*axes) * sides  # (N, 2), in pixels
        apart = torch.cdist(places, places).to(images.device).float()  # (N, N)
        kept = {}
        for index, weights in _attentions(model, images, wanted):
            among = weights[..., prefix:, prefix:].float()  # (B, h, N, N)
            among = among / among.sum(dim=-1, keepdim=True).clamp(min=1e-30)
            kept[index] = (among * apart).sum(dim=-1).mean(dim=-1)  # (B, h)
    return torch.stack([kept[layer] for layer in wanted], dim=1)


# --- with gradients ---------------------------------------------------------------------------


def relevance(
    model: ViT, images: Tensor, classes: int | Sequence[int] | Tensor | None = None
) -> Tensor:
    """Follow through all layers the attention that raises the logit of a class: (B, T, T).

    Per layer the weights A (h, T, T) are multiplied with the gradient of that logit with respect
    to them, cut off below zero and averaged over heads, R ← R + mean_h((∇A ⊙ A)⁺) R, beginning
    with R = I. ``classes`` is one number for all images, one for each (B,), or None for the
    model's own answers. :func:`patch_map` reads a map from the result.

    The gradient is that of the weights written out, whichever kernel the model uses: a head gives
    A v (and what does not depend on A), so the gradient of A is that of its output times v.
    Raises TypeError, ValueError for other input, or an attention built in another way.
    Source: Chefer, Gur and Wolf (2021), "Generic attention-model explainability", equations 5, 6.
    """
    _check(model, images)
    with _visit(model, gradients=True):
        # Through the images there is a path to every layer of a frozen model as well.
        x = images.detach().clone().requires_grad_()
        logits, inside = model.forward_with(x, ["embedding", "tokens", "attn_out"])
        chosen = _check_classes(model, classes, logits)
        score = logits.gather(1, chosen[:, None]).sum()  # images do not meet: one gradient for all
        slopes = torch.autograd.grad(score, inside["attn_out"])
        entering = [inside["embedding"], *inside["tokens"][:-1]]
        layout = _layout(model, images)
        joined: Tensor | None = None
        for block, x, out, slope in zip(
            model.blocks, entering, inside["attn_out"], slopes, strict=True
        ):
            weights, of_weights = _weights_and_slopes(block, x.detach(), layout, out, slope)
            raising = (weights * of_weights).clamp(min=0).mean(dim=1).float()  # (B, T, T)
            if joined is None:
                joined = torch.eye(raising.shape[-1], device=raising.device).expand_as(raising)
            joined = joined + raising @ joined
    assert joined is not None
    return joined


def _weights_and_slopes(
    block: Any, x: Tensor, layout: TokenLayout, out: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """Give a layer's weights A (B, h, T, T) and the gradient with respect to them.

    x, out, slope (B, T, D): the block's input, what its attention adds, the gradient there.
    """
    attn, kind = block.attn, type(block.attn).__name__
    record: Record = dict.fromkeys(("attention", "q", "k", "v"))
    with torch.no_grad():
        attn(block.norm1(x), layout, record)
        weights, q, k, v = (_taken(block, record, name) for name in record)
        if not isinstance(attn, Attention):
            raise ValueError(f"{kind} is no Attention; give a model whose layers are.")
        mixed = rearrange(attn.gather(q, k, v, layout), "b h t d -> b t (h d)")
    mixed.requires_grad_()
    again = block.ls1(attn.proj(mixed))
    if (again - out).norm() > 0.05 * out.norm():  # beyond rounding, be it that of bfloat16
        raise ValueError(
            f"{kind} does more than proj(gather(q, k, v)); relevance cannot follow it."
        )
    (of_mixed,) = torch.autograd.grad(again, mixed, slope)
    of_heads = rearrange(of_mixed, "b t (h d) -> b h t d", h=weights.shape[1])
    return weights, of_heads @ v.transpose(-2, -1)


def gradient_times_input(
    model: ViT, images: Tensor, classes: int | Sequence[int] | Tensor | None = None
) -> Tensor:
    """Give each patch the sum of pixel times gradient of the class's logit: (B, rows, columns).

    Of a model that is linear in its pixels these are the exact shares of the logit, the biases'
    aside. Pixels count as normalised: one at the training mean, 0, gets nothing. ``classes`` and
    errors as in :func:`relevance`.
    Source: Shrikumar et al. (2016), "Not just a black box".
    """
    _check(model, images)
    with _visit(model, gradients=True):
        x = images.detach().clone().requires_grad_()
        logits = model(x)
        chosen = _check_classes(model, classes, logits)
        (slope,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), x)
        rows, cols = _layout(model, images).grid
    return torch.einsum(
        "bcrpqs,bcrpqs->brq",
        *(t.detach().unflatten(3, (cols, -1)).unflatten(2, (rows, -1)) for t in (images, slope)),
    )


# --- tokens, positions, filters ---------------------------------------------------------------


def logit_lens(model: ViT, images: Tensor) -> Tensor:
    """Give the head's answer after no block, after the first, … after the last: (B, L + 1, K).

    The tokens of every layer go through the final norm, the pooling and the head, as if the blocks
    behind were not there; the last entry is the model's logits.
    Source: nostalgebraist (2020), "Interpreting GPT: the logit lens".
    """
    _check(model, images)
    with _visit(model):
        x, layout = model.embed(images)
        answers = [model.head(model.pool(model.norm(x)))]
        for block in model.blocks:
            x = block(x, layout)
            answers.append(model.head(model.pool(model.norm(x))))
    return torch.stack(answers, dim=1)


def token_similarity(
    model: ViT, images: Tensor, patch: int, layers: int | Sequence[int] | None = None
) -> Tensor:
    """Give the cosine similarity of one patch's token to all patches': (B, layers, rows, columns).

    ``patch`` counts row by row from 0. The tokens are the outputs of the ``layers`` asked for.
    Raises TypeError, ValueError for other input.
    """
    _check(model, images)
    wanted = _check_chosen("layers", layers, model.config.depth)
    with _visit(model):
        (rows, cols), prefix = _layout(model, images)
        (chosen,) = _check_chosen("patch", inputs.check_whole("patch", patch), rows * cols)
        tokens = [f"tokens.{layer}" for layer in wanted]
        _, inside = model.forward_with(images, tokens)
        x = torch.stack([inside[name][:, prefix:] for name in tokens], dim=1)  # (B, layers, N, D)
    alike = F.cosine_similarity(x[:, :, chosen, None], x, dim=-1)
    return alike.unflatten(-1, (rows, cols))


def position_similarity(model: ViT, grid: tuple[int, int] | None = None) -> Tensor:
    """Give the cosine similarity of any two patches' positions: (rows, columns, rows, columns).

    ``grid`` is (rows, columns) of patches, by default the model's own; another one is read from
    the resized table. Raises ValueError where the model has no positions.
    Source: Dosovitskiy et al. (2021), figure 7, middle.
    """
    _check_model(model)
    rows, cols = inputs.to_pair(model.grid if grid is None else grid, "grid (rows, columns)")
    if (table := model.positions_for((rows, cols))) is None:
        raise ValueError("the model has no positions; give one made with positions='learned'.")
    places = F.normalize(table.detach()[0, -rows * cols :].float(), dim=-1)  # (N, D)
    return (places @ places.T).view(rows, cols, rows, cols)


def patch_filters(model: ViT, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Give the principal components of the patch projection: (count, C, P, P) and shares (count,).

    The components are of the D filters less their mean, in falling order, each of length one, its
    sign such that the greatest value is positive; a share is how much of the filters' variance lies
    along it. Raises TypeError, ValueError for a patch embedding that is not linear.
    Source: Dosovitskiy et al. (2021), figure 7, left.
    """
    _check_model(model)
    weight = getattr(getattr(model.patch_embed, "proj", None), "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 4:
        kind = type(model.patch_embed).__name__
        raise ValueError(f"{kind} has no filters of one patch; give a model of linear patches.")
    filters = weight.detach().flatten(1).double()  # (D, C·P·P)
    most = min(filters.shape)
    count = most if count is None else inputs.check_positive("count", count)
    if count > most:
        raise ValueError(f"count is {count}; give at most {most}, as many as there are.")
    _, sizes, rows = torch.linalg.svd(filters - filters.mean(dim=0), full_matrices=False)
    signs = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).sign()
    shares = sizes**2 / (sizes**2).sum().clamp(min=1e-30)
    parts = (rows * signs)[:count].to(weight.dtype).view(count, *weight.shape[1:])
    return parts, shares[:count].to(weight.dtype)
