# SPDX-License-Identifier: MIT
"""Checks of chapter 7: what moves the weights, from their average to Muon's iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitcore.vit import ViT

from .frame import CheckFailed, as_numbers, call, check, compare, same_values, without


@check("the average keeps its share and takes a little of the weights")
def check_average(step: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """``step(average, weights, decay) -> average``, one step of a moving average."""
    average, weights, decay = torch.randn(4, 5), torch.randn(4, 5), 0.98
    wrong = [
        ("the shares are exchanged: the average keeps the decay, the weights get the rest",
         (1 - decay) * average + decay * weights),
        ("the average is multiplied by the decay, and the weights are added in full",
         decay * average + weights),
        ("the average moves away from the weights",
         average + (1 - decay) * (average - weights)),
        ("this is the mean of both: the decay is not used", (average + weights) / 2),
        ("the average does not move", average),
        ("the weights take the place of the average", weights),
    ]  # fmt: skip
    compare(
        call(step, average, weights, decay), decay * average + (1 - decay) * weights, wrong,
        "decay of the average, 1 - decay of the weights",
    )  # fmt: skip


@check("the shares fall by the decay from step to step")
def check_average_shares(shares: Callable[[float, int], Any]) -> None:
    """``shares(decay, steps) -> (steps,)``: what each of the last weights counts, newest first."""
    for decay, steps in ((0.9, 30), (0.5, 6)):
        past = torch.arange(steps, dtype=torch.float64)
        want = (1 - decay) * decay**past
        wrong = [
            ("the newest weights come first, the oldest last", want.flip(0)),
            ("the newest weights count 1: they enter with 1 - decay", decay**past),
            ("the newest weights are multiplied by the decay already",
             (1 - decay) * decay ** (past + 1)),
            ("all weights count alike: this is a mean over a window",
             torch.full_like(want, 1 / steps)),
            ("the shares fall along a straight line", (1 - decay) * (1 - past / steps)),
            ("these are the shares added up, from the newest on", want.cumsum(0)),
            ("decay and 1 - decay have exchanged their roles", decay * (1 - decay) ** past),
            ("they are scaled to sum to one: what is missing is the share of the start",
             want / want.sum()),
        ]  # fmt: skip
        got = call(shares, decay, steps)
        compare(
            as_numbers(got), want, wrong,
            f"decay {decay}, the last {steps} weights",
        )  # fmt: skip


@check("matrices decay, positions, tokens, biases and norms do not")
def check_param_groups(groups: Callable[[nn.Module, float], Any]) -> None:
    """``groups(model, weight_decay) -> [{"params": ..., "weight_decay": ...}]`` for an optimiser.

    Matrices decay; positions, tokens and everything with one axis do not.
    """
    model = ViT(image_size=8, patch_size=4, num_classes=3, dim=12, depth=1, heads=2,
                registers=1)  # fmt: skip
    result = call(groups, model, 0.05)
    if not isinstance(result, (list, tuple)) or not all(
        isinstance(group, dict) and {"params", "weight_decay"} <= set(group) for group in result
    ):
        raise CheckFailed('a list of dicts with "params" and "weight_decay" is expected')
    found: list[tuple[int, float]] = []
    for group in result:
        for parameter in group["params"]:
            if not isinstance(parameter, nn.Parameter):
                raise CheckFailed(
                    '"params" must hold the parameters themselves, without their names'
                )
            found.append((id(parameter), float(group["weight_decay"])))
    decays = dict(found)
    if len(decays) < len(found):
        raise CheckFailed("a parameter is in two groups, and would move twice in a step")
    for name, parameter in model.named_parameters():
        if id(parameter) not in decays:
            raise CheckFailed(f"{name} is in no group, and would never be trained")
        decay = decays[id(parameter)]
        token = name in ("pos_embed", "cls_token", "reg_token")
        if decay and (token or parameter.ndim == 1):
            kind = "a position or token" if token else "a bias or a gain"
            raise CheckFailed(
                f"{name} decays, although it is {kind}: pulling it to zero only erases it"
                + ("; it has three axes, so that its name has to be asked" if token else "")
            )
        if not decay and not token and parameter.ndim > 1:
            raise CheckFailed(f"{name} is a matrix, or a kernel, and does not decay")
        if decay not in (0, 0.05):
            raise CheckFailed(f"{name} decays by {decay}, where 0.05 was given")


def _iterate(x: Tensor, a: float, b: float, c: float, steps: int) -> Tensor:
    """Repeat a X + (b A + c A²) X with A = X Xᵀ."""
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@check("five steps bring all singular values near 1, wide and tall alike")
def check_orthogonalise(orthogonalise: Callable[..., Tensor]) -> None:
    """``orthogonalise(matrix, steps=5)``, Muon's iteration; wide and tall matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    for shape in ((6, 10), (10, 6)):
        x = 3 * torch.randn(shape)
        unit = x / x.norm()
        want = _iterate(unit, a, b, c, 5)
        u, _, v = torch.linalg.svd(x, full_matrices=False)
        wrong = [
            ("all singular values are exactly 1: that is the true answer by its decomposition, "
             "and the iteration was asked", u @ v),
            ("this is one step: repeat it", _iterate(unit, a, b, c, 1)),
            ("there are four steps where five were asked", _iterate(unit, a, b, c, 4)),
            ("the matrix is divided by its norm, and nothing is iterated", unit),
            ("a tall matrix was transposed and never turned back", want.T),
        ]  # fmt: skip
        got = call(orthogonalise, x, 5)
        if isinstance(got, Tensor) and not torch.isfinite(got).all():
            raise CheckFailed(
                "the iteration runs away: it needs singular values of at most 1, so divide the "
                "matrix by its norm first (to divide by its largest entry is not enough)"
            )
        compare(
            got, want, wrong,
            f"a matrix {shape}, the coefficients 3.4445, -4.7750 and 2.0315, five steps",
        )  # fmt: skip


_DECOMPOSITIONS = frozenset(
    prefix + name
    for prefix in ("", "linalg_")
    for name in ("svd", "svdvals", "eig", "eigh", "qr", "inv", "inverse", "pinv", "pinverse",
                 "cholesky", "solve", "svd_lowrank", "matrix_power", "lstsq")
)  # fmt: skip


@check("all singular values are 1, and the singular vectors are kept")
def check_polar(polar: Callable[[Tensor], Tensor]) -> None:
    """``polar(matrix) ->`` the same singular vectors, all singular values 1, to 1e-3."""
    for shape in ((5, 8), (8, 5)):
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        sizes = torch.tensor([40.0, 9.0, 3.0, 1.0, 0.4])
        x = u * sizes @ v
        with without(_DECOMPOSITIONS, "this is a decomposition: an iteration is asked"):
            got = call(polar, x)
        want = u @ v
        if not isinstance(got, Tensor):
            raise CheckFailed(f"a tensor was expected, but a {type(got).__name__} came back")
        if got.shape == want.T.shape != want.shape:
            raise CheckFailed("the result is transposed: turn it back at the end")
        if got.shape != want.shape:
            raise CheckFailed(f"the shape is {tuple(got.shape)}, expected {tuple(want.shape)}")
        if not torch.isfinite(got).all():
            raise CheckFailed(
                "the iteration runs away: it converges for singular values below the square "
                "root of 3, so divide the matrix by its norm first"
            )
        if same_values(got, want, 1e-3):
            continue
        kept = (u.T @ got @ v.T).diag()  # the singular values, where the vectors are kept
        rest = (got - u * kept @ v).abs().max()
        if rest > 1e-2:
            raise CheckFailed(
                "the singular vectors changed: every step must be a polynomial in X Xᵀ, times X"
            )
        raise CheckFailed(
            f"the singular vectors are right, but the singular values go from {kept.min():.2g} "
            f"to {kept.max():.2g}: iterate until the smallest has arrived, or use the exact "
            "coefficients"
        )
