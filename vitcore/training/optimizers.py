# SPDX-License-Identifier: MIT
"""Parameter groups, optimisers, the schedule and the average of weights (chapters 6 and 7)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import checked
from .config import TrainConfig
from .device import unwrap

# Weight decay pulls a matrix towards zero, which is harmless to what it can express. A position,
# a token, a bias, a gain or a temperature has no such slack, so these are left alone.
NO_DECAY = ("pos_embed", "cls_token", "reg_token", "temperature", "bias_table")
# Muon makes every direction of a step equally long, which suits maps from tokens to tokens. What
# brings pixels in or reads classes out has directions that matter more than others.
NO_MUON = (*NO_DECAY, "patch_embed", "head")


def _layer(name: str, depth: int) -> int:
    """0 for what makes tokens, i + 1 for block i, depth + 1 for the head; the norm between counts
    with the last block."""
    if name.startswith((*NO_DECAY[:3], "patch_embed.")):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth if name.startswith("norm.") else depth + 1


@checked
def param_groups(
    model: nn.Module,
    weight_decay: float,
    only: Callable[[str, nn.Parameter], bool] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices with `weight_decay`, everything in NO_DECAY or with one
    dimension (biases, norms, layer scale) without. Frozen parameters are left out, and so are
    those of which `only(name, parameter)` is false.

    layer_decay: below 1 makes two groups a layer of a ViT, each with its share of the rate under
    "lr_scale": layer_decay ** (depth + 1 - layer), where layer 0 makes the tokens and depth + 1 is
    the head (Bao et al., 2022, as timm has it).
    """
    named = list(unwrap(model).named_parameters())
    trained = [(n, p) for n, p in named if p.requires_grad]
    if not trained:
        raise ValueError("the model has no parameter to train: all have requires_grad=False.")
    depth = len({n.split(".")[1] for n, _ in named if n.startswith("blocks.")})
    if layer_decay < 1 and not depth:
        raise ValueError("layer_decay needs a model of blocks, such as a ViT; give 1 for others.")
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in trained:
        if only is None or only(name, parameter):
            exempt = parameter.ndim <= 1 or any(part in name for part in NO_DECAY)
            scale = layer_decay ** (depth + 1 - _layer(name, depth)) if layer_decay < 1 else 1.0
            groups.setdefault((scale, exempt), []).append(parameter)
    return [
        {"params": group, "weight_decay": 0.0 if exempt else weight_decay}
        | ({"lr_scale": scale} if layer_decay < 1 else {})
        for (scale, exempt), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NO_MUON)


@checked
def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (rows, columns) with the same singular vectors, all singular values near 1.

    Each step of the Newton-Schulz iteration sends every singular value s, at most 1, to
    a s + b s³ + c s⁵, by matrix products alone. The coefficients rise steeply from zero and end
    between 0.7 and 1.2, which serves an optimiser as well as 1 would.

    Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.
    """
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise ValueError(f"matrix has shape {tuple(matrix.shape)}; give a float (rows, columns).")
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)  # the norm is no smaller than the largest singular value
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class ExactMuon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024): a matrix moves against its orthogonalised momentum, as far as
    AdamW would move it (Liu et al., 2025), so that one learning rate serves both.

    torch.optim.Muon (from torch 2.9 on) orthogonalises in bf16, which takes half of a training
    step on a processor without instructions for it; here it is done in the weights' own type.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                ahead = matrix.grad.lerp(momentum, group["momentum"])  # Nesterov
                length = group["lr"] * 0.2 * math.sqrt(max(matrix.shape))  # 0.2 for each number
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.sub_(orthogonalise(ahead), alpha=length)


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a run, stepped together; a list, because Muon leaves the rest to AdamW.

    A group's own "lr" is what the schedule multiplies, as a share of config.lr.
    """
    kinds = {p.device.type for p in model.parameters()}
    # One fused kernel instead of a dozen calls per parameter: on small models the calls are
    # what costs. MPS has it only in newer torch, so it is left alone there.
    fused = kinds <= {"cpu", "cuda"}
    options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "fused": fused}

    def grouped(decay: float, only: Callable[[str, nn.Parameter], bool]) -> list[dict[str, Any]]:
        groups = param_groups(model, decay, only, config.layer_decay)
        return [{**group, "lr": config.lr * group.pop("lr_scale", 1.0)} for group in groups]

    if config.optimizer == "adam":
        return [torch.optim.Adam(grouped(0.0, lambda name, p: True), **options)]
    muon, decay = config.optimizer == "muon", config.weight_decay
    matrices = grouped(decay, lambda name, p: muon and _is_hidden(name, p))
    rest = grouped(decay, lambda name, p: not (muon and _is_hidden(name, p)))
    made: list[torch.optim.Optimizer] = []
    if matrices and (kinds == {"cpu"} or not hasattr(torch.optim, "Muon")):
        made = [ExactMuon(matrices, config.lr)]
    elif matrices:
        made = [torch.optim.Muon(matrices, lr=config.lr, adjust_lr_fn="match_rms_adamw")]
    return [*made, torch.optim.AdamW(rest, **options)] if rest else made


class Together:
    """Several optimisers as one, so that a GradScaler lets all of them step or none."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all; loading an optimiser's state makes new ones."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Step all of them."""
        for optimizer in self.optimizers:
            optimizer.step()


@checked
def cosine_with_warmup(
    step: int, *, total_steps: int, warmup_steps: int, lr: float, min_lr: float = 0.0
) -> float:
    """The learning rate of step `step` (from 0): a linear rise that reaches `lr` at the last step
    of the warmup, then half a cosine from `lr` to `min_lr` (Loshchilov and Hutter, 2017, eq. 5)."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps + 1) / max(1, total_steps - warmup_steps)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


@checked
def learning_rate(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    """The learning rate of one step under the configuration's schedule."""
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    if config.schedule == "constant":
        return config.lr * min(1.0, (step + 1) / max(1, warmup))
    return cosine_with_warmup(
        step, total_steps=total, warmup_steps=warmup, lr=config.lr, min_lr=config.min_lr
    )


class WeightAverage:
    """A copy of the model whose weights follow the trained ones slowly: after each step
    average += (1 - d) (weights - average), which evens out the jitter of the last few hundred
    steps. The decay d starts low, min(decay, (1 + step) / (10 + step)), so that the first weights
    are forgotten; evaluate `.model`."""

    def __init__(self, model: nn.Module, decay: float):
        self.model = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after step `step` (from 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, current = self.model, unwrap(model)
        torch._foreach_lerp_(list(mine.parameters()), list(current.parameters()), share)
        # Running statistics are averages already, and counters are whole numbers.
        for own, theirs in zip(mine.buffers(), current.buffers(), strict=True):
            own.copy_(theirs)
