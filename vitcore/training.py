# SPDX-License-Identifier: MIT
"""The training loop, its checkpoints and saved weights, built in chapter 6 (06_mnist.ipynb)."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from .vit import ViTConfig

__all__ = [
    "History",
    "LoadedModel",
    "NonFiniteLoss",
    "TrainConfig",
    "TrainingInterrupted",
    "accuracy",
    "binary_cross_entropy",
    "cosine_with_warmup",
    "cross_entropy",
    "default_loss",
    "evaluate",
    "fit",
    "label_accuracy",
    "load_weights",
    "orthogonalise",
    "param_groups",
    "predict",
    "quick_mode",
    "save_weights",
    "set_seed",
]

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]
Weights = dict[str, Tensor]

CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_FORMAT = "vitcore-checkpoint-1"
_WEIGHTS_FORMAT = "vitcore-weights-1"

OPTIMIZERS = ("adamw", "adam", "muon")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# Weight decay pulls a matrix towards zero, which is harmless to what it can express. A position,
# a token, a bias, a gain or a temperature has no such slack, so these are left alone.
NO_DECAY = ("pos_embed", "cls_token", "reg_token", "temperature")

# Muon makes every direction of a step equally long, which suits maps from tokens to tokens. What
# brings pixels in or reads classes out has directions that matter more than others.
NO_MUON = (*NO_DECAY, "patch_embed", "head")


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became infinite or not a number; the last good weights are kept."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


# --- configuration ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainConfig:
    """How to train; plain data, so that it can be written down beside the result.

    epochs: passes over the training images.
    batch_size: images per step, for whoever makes the batches; `fit` takes them as they come.
    optimizer: "adamw" (Loshchilov and Hutter, 2019), "adam" (no weight decay at all) or "muon"
        (Jordan et al., 2024): torch.optim.Muon for the matrices inside the blocks, its step as
        long as AdamW's would be, and AdamW for the rest; AdamW alone where torch has no Muon.
    lr: the highest learning rate, reached at the end of the warmup.
    weight_decay: AdamW's, on matrices only (see `param_groups`).
    warmup_epochs: epochs of linear rise to `lr`, never more than half of the run.
    min_lr: where the cosine ends.
    label_smoothing: share of the target spread over all classes, in the training loss alone.
    clip_norm: largest norm of the gradient of all parameters together; None for no limit.
    precision: "auto" is bf16 on CUDA devices that compute in it, fp16 with a loss scaler on older
        ones, fp32 everywhere else.
    ema: decay of the moving average of the weights (Polyak and Juditsky, 1992), which is then what
        is validated and kept: 0.998 averages over some 500 steps; 0 for none.
    compile: whether training steps go through torch.compile, which takes minutes to begin with.
    seed: of the random numbers drawn during training (drop path and the like).
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 1.0
    min_lr: float = 1e-5
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    clip_norm: float | None = 1.0
    precision: str = "auto"
    ema: float = 0.0
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(allowed)}."
                )
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, not {self.compile!r}.")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}.")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(
                f"min_lr must lie between 0 and lr ({self.lr}), not {self.min_lr}; lower it."
            )
        for name in ("weight_decay", "warmup_epochs"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1, not {self.label_smoothing}."
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, such as 0.998, not {self.ema}.")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(
                f"clip_norm must be above 0, not {self.clip_norm}; use None for no clipping."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, not {self.betas}.")

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainConfig:
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(
                f"unknown training setting {', '.join(unknown)}: "
                f"known are {', '.join(sorted(known))}."
            )
        return cls(**fields)


class History(list[dict[str, Any]]):
    """One row per epoch: epoch (from 1), train_loss, train_accuracy, val_loss, val_accuracy
    (None without validation), lr of the last step, train_seconds, seconds with validation, and
    cpu_seconds, the processor time of this process for both."""

    @property
    def best(self) -> dict[str, Any]:
        """The row with the highest validation accuracy (equal ones: the lower loss, then the
        earlier); without validation, the last row."""
        if not self:
            raise ValueError("the history is empty: no epoch was finished yet.")
        if self[-1]["val_accuracy"] is None:
            return self[-1]
        return max(self, key=lambda row: (row["val_accuracy"], -row["val_loss"], -row["epoch"]))

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included, summed over the parts of a resumed run."""
        return float(sum(row["seconds"] for row in self))


# --- small choices ---------------------------------------------------------------------------


def quick_mode() -> bool:
    """True when VITCORE_QUICK=1 asks notebooks to shorten training to seconds."""
    return os.environ.get("VITCORE_QUICK", "") == "1"


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's (where it is in use) and torch's random numbers, all devices."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant by a name; "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda or mps.") from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device!r} was asked for, but torch finds no CUDA; use cpu.")
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"there is no device {device!r}: torch finds {torch.cuda.device_count()} CUDA "
                "devices, counted from 0."
            )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch finds no MPS; use cpu.")
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" as one of fp32, bf16, fp16 for this device; anything else is checked and kept."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        # is_bf16_supported() also says yes where bf16 is only emulated, slower than fp32.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs CUDA, not {device.type}; use fp32 or bf16.")
    if precision == "bf16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"precision bf16 needs CUDA or the CPU, not {device.type}; use fp32.")
    return precision


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and DistributedDataParallel, whose names have no prefix."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


# --- losses and metrics ----------------------------------------------------------------------


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K), in nats.

    targets: class numbers, int64 (B,), or a distribution over the classes, float (B, K), as mixup
    makes it. The logits go in as the model gives them: the softmax is part of the loss.
    """
    by_class = targets.ndim == 1 and not targets.is_floating_point()
    soft = targets.shape == logits.shape and targets.is_floating_point()
    if not (by_class or soft):
        raise ValueError(
            f"cross_entropy got {targets.dtype} targets of shape {tuple(targets.shape)} for logits "
            f"of shape {tuple(logits.shape)}: give class numbers (B,) or float distributions "
            "(B, K), or loss=binary_cross_entropy where an image can have several labels."
        )
    return F.cross_entropy(
        logits, targets if soft else targets.long(), label_smoothing=label_smoothing
    )


def binary_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over images and labels of the yes-or-no cross-entropy: targets (B, K) of 0 and 1."""
    if targets.shape != logits.shape:
        raise ValueError(
            f"binary_cross_entropy needs targets of the shape of the logits {tuple(logits.shape)}, "
            f"one 0 or 1 per label, not {tuple(targets.shape)}."
        )
    wanted = targets.to(logits.dtype)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted)


def default_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy for whole-number or boolean targets (B, K), cross-entropy otherwise."""
    if targets.ndim == 2 and not targets.is_floating_point():
        return binary_cross_entropy(logits, targets, label_smoothing)
    return cross_entropy(logits, targets, label_smoothing)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of 1 where the highest logit is the right class, else 0.

    For soft targets the right class is the heaviest; for several labels per image (whole-number or
    boolean targets (B, K)) the score is `label_accuracy`.
    """
    if targets.ndim == 2:
        if not targets.is_floating_point():
            return label_accuracy(logits, targets)
        targets = targets.argmax(dim=1)
    return (logits.argmax(dim=1) == targets).float()


def label_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): the share of an image's labels (B, K) that the sign of the logit gets right."""
    return ((logits > 0) == (targets > 0.5)).float().mean(dim=1)


def _choose(loss: Loss | None, metric: Metric | None) -> tuple[Loss, Metric]:
    if metric is None:
        metric = label_accuracy if loss is binary_cross_entropy else accuracy
    return loss or default_loss, metric


def _training_loss(loss: Loss, label_smoothing: float) -> Loss:
    if not label_smoothing:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        raise ValueError(
            f"label_smoothing is {label_smoothing}, but the loss given takes no argument of that "
            "name: set it to 0 in the configuration, or add the argument to the loss."
        )

    def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
        return loss(logits, targets, label_smoothing=label_smoothing)

    return smoothed


# --- optimiser and schedule ------------------------------------------------------------------


def param_groups(
    model: nn.Module, weight_decay: float, only: Callable[[str, nn.Parameter], bool] | None = None
) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices with `weight_decay`, everything in NO_DECAY or with one
    dimension (biases, norms, layer scale) without. Frozen parameters are left out, and so are
    those of which `only(name, parameter)` is false."""
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    found = False
    for name, parameter in unwrap(model).named_parameters():
        if not parameter.requires_grad:
            continue
        found = True
        if only is not None and not only(name, parameter):
            continue
        exempt = parameter.ndim <= 1 or any(part in name for part in NO_DECAY)
        (keep if exempt else decay).append(parameter)
    if not found:
        raise ValueError("the model has no parameter to train: all have requires_grad=False.")
    groups = [
        {"params": decay, "weight_decay": weight_decay},
        {"params": keep, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(part in name for part in NO_MUON)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (rows, columns) with the same singular vectors, all singular values near 1.

    Each step of the Newton-Schulz iteration sends every singular value s, at most 1, to
    a s + b s³ + c s⁵, by matrix products alone. The coefficients rise steeply from zero and end
    between 0.7 and 1.2, which serves an optimiser as well as 1 would.

    Source: Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)  # the norm is no smaller than the largest singular value
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


if hasattr(torch.optim, "Muon"):

    class ExactMuon(torch.optim.Muon):
        """torch's Muon for processors: it orthogonalises in the weights' own type.

        torch.optim.Muon does so in bf16 everywhere, which takes half of a training step on a
        processor that has no instructions for bf16.
        """

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            """Move each matrix against its orthogonalised momentum."""
            if closure is not None:
                raise TypeError("ExactMuon takes no closure: compute the gradients before the step")
            for group in self.param_groups:
                for matrix in group["params"]:
                    if matrix.grad is None:
                        continue
                    state = self.state[matrix]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                    momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                    ahead = matrix.grad.lerp(momentum, group["momentum"])  # Nesterov
                    # As long as AdamW's step, 0.2 for each number (Liu et al., 2025).
                    length = group["lr"] * 0.2 * math.sqrt(max(matrix.shape))
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(orthogonalise(ahead, group["ns_steps"]), alpha=length)


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a run, stepped together; a list, because Muon leaves the rest to AdamW.

    A group's own "lr" is what the schedule multiplies, as a share of config.lr.
    """
    # One fused kernel instead of a dozen calls per parameter: on small models the calls are
    # what costs. MPS has it only in newer torch, so it is left alone there.
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    if config.optimizer == "adam":
        groups = param_groups(model, 0.0)
        return [torch.optim.Adam(groups, lr=config.lr, betas=config.betas, fused=fused)]

    def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)

    if config.optimizer == "muon":
        muon = getattr(torch.optim, "Muon", None)
        matrices = param_groups(model, config.weight_decay, only=_is_hidden_matrix)
        if muon is None:
            if distributed_rank()[0] == 0:
                print(f"torch {torch.__version__} has no Muon: AdamW takes its place.", flush=True)
        elif matrices:
            rest = param_groups(
                model, config.weight_decay, only=lambda name, p: not _is_hidden_matrix(name, p)
            )
            if all(p.device.type == "cpu" for p in model.parameters()):
                muon = ExactMuon
            # The length of AdamW's step: one learning rate serves both (Liu et al., 2025).
            first = muon(matrices, lr=config.lr, adjust_lr_fn="match_rms_adamw")
            return [first, adamw(rest)] if rest else [first]
    return [adamw(param_groups(model, config.weight_decay))]


def cosine_with_warmup(
    step: int, *, total_steps: int, warmup_steps: int, lr: float, min_lr: float = 0.0
) -> float:
    """The learning rate of step `step` (from 0): a linear rise that reaches `lr` at the last step
    of the warmup, then half a cosine from `lr` to `min_lr` (Loshchilov and Hutter, 2017, eq. 5)."""
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps + 1) / max(1, total_steps - warmup_steps)
    return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


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

    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the weights after step `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = unwrap(model)
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.model.parameters()), list(current.parameters()), 1 - decay
            )
            # Running statistics are averages already, and counters are whole numbers.
            for mine, theirs in zip(self.model.buffers(), current.buffers(), strict=True):
                mine.copy_(theirs)


# --- evaluation ------------------------------------------------------------------------------


class _Totals:
    """Sums of loss, score and images that stay on the device until somebody asks."""

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=dtype, device=device)
        self.count = 0
        self.device = device

    def add(self, loss: Tensor, scores: Tensor, count: int) -> None:
        # A batch's mean weighs as much as the batch has images: the last one is often smaller.
        self.sums[0] += loss.detach().mean() * count
        self.sums[1] += scores.sum()
        self.count += count

    def read(self, world_size: int) -> tuple[float, float, int]:
        """Mean loss, mean score, number of images, over all ranks."""
        sums = torch.cat([self.sums, self.sums.new_tensor([float(self.count)])])
        if world_size > 1:
            torch.distributed.all_reduce(sums)
        loss, score, count = sums.tolist()
        return loss / max(count, 1), score / max(count, 1), int(count)


def _batch(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise TypeError(
            f"a batch must be a pair (images, targets), not {type(batch).__name__}"
            + (f" of {len(batch)}." if isinstance(batch, (tuple, list)) else ".")
        )
    images, targets = batch
    for name, value in (("images", images), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"the {name} of a batch must be a tensor, not {type(value).__name__}.")
    return images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def distributed_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world size) of this process, by default as torch.distributed says, else (0, 1)."""
    active = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if active else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if active else 1
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie between 0 and world_size - 1, got {rank} of {world_size}.")
    if world_size > 1 and not active:
        raise ValueError(
            f"world_size is {world_size}, but torch.distributed is not initialised: "
            "call init_process_group first, or start with torchrun."
        )
    return rank, world_size


def _model_device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    world_size: int | None = None,
) -> dict[str, float]:
    """Mean loss and mean score over all images: {"loss", "accuracy", "count"}.

    Sums over images divided by their number, never a mean of batch means. With several processes
    each evaluates its own share and the sums are added, so that every image counts once.
    loss: (logits, targets) -> mean over the batch. metric: (logits, targets) -> one score per
    image, whose mean is reported as "accuracy". device: where to compute; the model's by default.
    """
    loss, metric = _choose(loss, metric)
    _, world_size = distributed_rank(None, world_size)
    where = _model_device(model) if device is None else resolve_device(device)
    model.to(where)
    precision = resolve_precision(precision, where)
    totals = _Totals(where)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                images, targets = _batch(batch, where)
                with _autocast(where, precision):
                    logits = model(images)
                logits = logits.float()
                totals.add(loss(logits, targets), metric(logits, targets), len(images))
    finally:
        model.train(was_training)
    mean_loss, mean_score, count = totals.read(world_size)
    if count == 0:
        raise ValueError("there is nothing to evaluate: the batches hold no image.")
    return {"loss": mean_loss, "accuracy": mean_score, "count": count}


def predict(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Tensor:
    """Logits (B, K), float32 on the CPU, of images (B, C, H, W) or of batches of them.

    Batches may be image tensors or pairs (images, targets), whose targets are left aside.
    """
    where = _model_device(model) if device is None else resolve_device(device)
    model.to(where)
    precision = resolve_precision(precision, where)
    parts: Iterable[Any] = images.split(batch_size) if isinstance(images, Tensor) else images
    was_training = model.training
    model.eval()
    logits = []
    try:
        with torch.inference_mode():
            for part in parts:
                part = part if isinstance(part, Tensor) else part[0]
                with _autocast(where, precision):
                    logits.append(model(part.to(where)).float().cpu())
    finally:
        model.train(was_training)
    if not logits:
        raise ValueError("there is nothing to predict: no image was given.")
    return torch.cat(logits)


# --- files -----------------------------------------------------------------------------------


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place at the end and only if all went well.

    Whoever reads `path` finds the old file or the new one, complete, also after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_tensors(path: Path, tensors: Weights, metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory, which tied weights do.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    try:
        with replace_file(path) as temporary:
            # safetensors makes files that only their owner can read, whatever the umask says.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata=metadata)
            temporary.chmod(mode)
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"could not write {path} ({error}): check the space on the disk and the permissions."
        ) from error


def _read_tensors(path: Path, what: str) -> tuple[Weights, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}: check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): it may be damaged, or saved in "
            "another format such as a pickled .pt, which vitcore does not open."
        ) from error


# --- checkpoints -----------------------------------------------------------------------------


@dataclass
class _State:
    """Everything that a run needs to go on as if it had not stopped."""

    model: Weights
    best: Weights | None = None
    average: Weights | None = None
    history: History = field(default_factory=History)


def _snapshot(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in unwrap(model).state_dict().items()}


def _pack_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[Weights, list[Any]]:
    """The optimisers' state as tensors with plain names, and what is not a tensor as JSON."""
    tensors: Weights = {}
    numbers: list[Any] = []
    for index, optimizer in enumerate(optimizers):
        rest: dict[str, dict[str, Any]] = {}
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{parameter}.{key}"] = value
                else:
                    rest.setdefault(str(parameter), {})[key] = value
        numbers.append(rest)
    return tensors, numbers


def _unpack_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Weights, numbers: list[Any]
) -> None:
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {int(p): dict(v) for p, v in numbers[index].items()}
        for name, value in tensors.items():
            kind, which, parameter, key = [*name.split(".", 3), "", "", ""][:4]
            if kind == "optimizer" and which == str(index):
                state.setdefault(int(parameter), {})[key] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )


def _pack_random(device: torch.device) -> tuple[Weights, dict[str, Any]]:
    tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    version, numbers, gauss = random.getstate()
    values: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if "numpy" in sys.modules:
        # A reader's own augmentation may draw from numpy.
        name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
        values["numpy"] = [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
    return tensors, values


def _unpack_random(tensors: Weights, values: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in values:
        import numpy

        numpy.random.set_state(tuple(values["numpy"]))  # noqa: NPY002


def _differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            label = f"{name}.{key}" if name else str(key)
            found += _differences(then.get(key), now.get(key), label)
        return found
    if json.dumps(then) == json.dumps(now):
        return []
    return [f"{name} was {json.dumps(then)} and is {json.dumps(now)} now"]


class _Checkpoint:
    """The checkpoint of one run in its folder: written at every epoch's end, read on resuming."""

    def __init__(self, out: str | os.PathLike[str], identity: dict[str, Any]):
        self.path = Path(out) / CHECKPOINT
        self.identity = json.loads(json.dumps(identity))

    def write(
        self,
        state: _State,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> None:
        tensors = {f"model.{name}": value for name, value in state.model.items()}
        for kind, weights in (("best", state.best), ("average", state.average)):
            tensors.update({f"{kind}.{name}": value for name, value in (weights or {}).items()})
        optimizer_tensors, optimizer_numbers = _pack_optimizers(optimizers)
        random_tensors, random_values = _pack_random(device)
        content = {
            "identity": self.identity,
            "history": list(state.history),
            "optimizers": optimizer_numbers,
            "scaler": scaler.state_dict(),
            "random": random_values,
        }
        _write_tensors(
            self.path,
            {**tensors, **optimizer_tensors, **random_tensors},
            {"format": _CHECKPOINT_FORMAT, "content": json.dumps(content)},
        )

    def read(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> _State:
        tensors, metadata = _read_tensors(self.path, "checkpoint")
        if metadata.get("format") != _CHECKPOINT_FORMAT:
            raise ValueError(
                f"{self.path} is not a checkpoint of this version of vitcore "
                f"({metadata.get('format', 'no format named')}): choose another out folder."
            )
        content = json.loads(metadata["content"])
        differences = _differences(content["identity"], self.identity)
        if differences:
            shown = "; ".join(differences[:4])
            if len(differences) > 4:
                shown += f"; and {len(differences) - 4} more"
            raise ValueError(
                f"cannot resume {self.path}: {shown}; "
                "go back to the earlier settings, or choose another out folder."
            )
        weights, best, average = (
            {k[len(kind) :]: v for k, v in tensors.items() if k.startswith(kind)}
            for kind in ("model.", "best.", "average.")
        )
        unwrap(model).load_state_dict(weights)
        _unpack_optimizers(optimizers, tensors, content["optimizers"])
        if scaler.is_enabled():
            scaler.load_state_dict(content["scaler"])
        _unpack_random(tensors, content["random"], device)
        return _State(weights, best or None, average or None, History(content["history"]))


# --- the loop --------------------------------------------------------------------------------


def _steps_per_epoch(batches: Iterable[Any]) -> int:
    if hasattr(batches, "__next__"):
        raise TypeError(
            "train_batches can be gone through only once (a generator): "
            "give a list, a DataLoader or vitcore.data.Batches."
        )
    try:
        steps = len(batches)  # type: ignore[arg-type]
    except TypeError:
        # The schedule has to know where the run ends.
        steps = sum(1 for _ in batches)
    if steps == 0:
        raise ValueError("train_batches holds no batch: is the batch larger than the data?")
    return steps


def _line(row: dict[str, Any], epochs: int) -> str:
    text = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.4f}"
    )
    if row["val_accuracy"] is not None:
        text += f"  val loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
    return f"{text}  {row['seconds']:.1f} s"


def _bar(batches: Iterable[Any], total: int, title: str, visible: bool) -> Any:
    # A bar is for a person at a terminal; in a notebook or a log it leaves only debris.
    if visible and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            return batches
        return tqdm(batches, total=total, desc=title, leave=False, file=sys.stderr)
    return batches


def _not_finite(where: str, kept: str) -> NonFiniteLoss:
    return NonFiniteLoss(
        f"the {where} is not finite any more. Likely causes: a learning rate that is too high, "
        "images that are not normalised or hold NaN, or a loss that takes the log of zero. Try a "
        f"third of the learning rate, a longer warmup, or precision fp32. Kept: {kept}."
    )


def fit(
    model: nn.Module,
    train_batches: Iterable[Any],
    val_batches: Iterable[Any] | None = None,
    config: TrainConfig | None = None,
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    rank: int | None = None,
    world_size: int | None = None,
    on_epoch: Callable[[dict[str, Any], nn.Module], None] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> History:
    """Train `model` in place and return its history; at the end it holds the weights of the epoch
    with the best validation accuracy (without validation, the last), in evaluation mode.

    train_batches, val_batches: anything that can be gone through once per epoch and gives pairs
        (images, targets): a list, a DataLoader, `vitcore.data.Batches`. Where it has `set_epoch`,
        that is called with the epoch, from 0. Targets: int64 (B,), soft float (B, K), or several
        labels per image, whole-number or boolean (B, K).
    loss, metric: as in `evaluate`; the loss takes `label_smoothing` too where config asks for it.
    out: a folder for checkpoint.safetensors, written at every epoch's end; None keeps nothing.
    resume: go on from the checkpoint in `out`; from the start where there is none. On the CPU in
        fp32 with the same number of threads, the resumed run repeats the unbroken one exactly.
    rank, world_size: this process among several; by default as torch.distributed says. The model
        comes wrapped in DistributedDataParallel, each process brings its share of the batches
        and the same out, and only rank 0 writes and prints.
    on_epoch: called with the epoch's row and the model after each epoch.
    metadata: what else must be the same on resuming (recipe, data); JSON values.

    Raises NonFiniteLoss when loss or weights overflow and TrainingInterrupted on Ctrl-C; both
    leave good weights in the model and the last epoch's end in the checkpoint. ValueError where
    `out` holds a checkpoint that does not belong to this run, FileExistsError where it holds one
    and resume is False.
    """
    if config is None:
        raise TypeError("fit needs a TrainConfig: fit(model, train, val, TrainConfig(epochs=10)).")
    loss, metric = _choose(loss, metric)
    training_loss = _training_loss(loss, config.label_smoothing)
    rank, world_size = distributed_rank(rank, world_size)
    where = resolve_device(device)
    precision = resolve_precision(config.precision, where)
    main = rank == 0
    model.to(where)
    optimizers = build_optimizers(model, config)
    shares = [[group["lr"] / config.lr for group in o.param_groups] for o in optimizers]
    parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(where.type, enabled=precision == "fp16")
    steps = _steps_per_epoch(train_batches)
    # The same weights: what is saved, judged and returned is the model itself.
    stepped = torch.compile(model) if config.compile else model

    checkpoint = None
    if out is not None:
        shapes = {name: list(value.shape) for name, value in unwrap(model).state_dict().items()}
        checkpoint = _Checkpoint(
            out,
            {
                "config": config.to_dict(),
                "steps_per_epoch": steps,
                "model": shapes,
                "metadata": dict(metadata or {}),
            },
        )

    # Each process draws its own drop path.
    set_seed(config.seed + rank)
    found = checkpoint is not None and checkpoint.path.exists()
    if checkpoint is not None and world_size > 1:
        # Rank 0 may have begun to write what another process would take for an earlier run.
        answer = torch.tensor(float(found), device=where)
        torch.distributed.broadcast(answer, 0)
        found = bool(answer)
    if checkpoint is not None and found:
        if not resume:
            raise FileExistsError(
                f"{checkpoint.path} already holds a run: resume it, or choose another out folder."
            )
        state = checkpoint.read(model, optimizers, scaler, where)
        if rank:  # the checkpoint holds the random numbers of rank 0
            set_seed(config.seed + rank + len(state.history) * world_size)
    else:
        state = _State(_snapshot(model), average=_snapshot(model) if config.ema else None)
        if checkpoint is not None and main:
            checkpoint.write(state, optimizers, scaler, where)

    average = None
    if state.average is not None:
        average = WeightAverage(model, config.ema)
        average.model.load_state_dict(state.average)

    def kept(what: str) -> str:
        place = f"in the model and in {checkpoint.path}" if checkpoint else "in the model"
        return f"{what}, {place}"

    def last_good() -> str:
        unwrap(model).load_state_dict(state.model)
        done = len(state.history)
        return kept(f"the weights of the end of epoch {done}" if done else "the first weights")

    # Reading a number back makes a GPU wait for all work before it, so there it is done rarely.
    check_every = 1 if where.type == "cpu" and world_size == 1 else 50

    first = len(state.history)
    epoch = first
    try:
        for epoch in range(first, config.epochs):
            started = time.perf_counter()
            processor = time.process_time()
            # A DataLoader over several processes has it on its sampler.
            for part in (train_batches, getattr(train_batches, "sampler", None)):
                set_epoch = getattr(part, "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(epoch)
            model.train()
            totals = _Totals(where)
            rate = 0.0
            title = f"epoch {epoch + 1}/{config.epochs}"
            bar = _bar(train_batches, steps, title, main and progress)
            for index, batch in enumerate(bar):
                images, targets = _batch(batch, where)
                rate = learning_rate(
                    min(epoch * steps + index, config.epochs * steps - 1), config, steps
                )
                for optimizer, group_shares in zip(optimizers, shares, strict=True):
                    for group, share in zip(optimizer.param_groups, group_shares, strict=True):
                        group["lr"] = rate * share
                    optimizer.zero_grad(set_to_none=True)

                with _autocast(where, precision):
                    logits = stepped(images)
                logits = logits.float()
                value = training_loss(logits, targets).mean()
                with torch.no_grad():
                    totals.add(value, metric(logits, targets), len(images))
                if (index + 1) % check_every == 0 and not math.isfinite(totals.read(world_size)[0]):
                    raise _not_finite(
                        f"training loss of epoch {epoch + 1} by step {index + 1} of {steps}",
                        last_good(),
                    )

                scaler.scale(value).backward()
                if config.clip_norm is not None:
                    for optimizer in optimizers:
                        scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, config.clip_norm)
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
                if average is not None:
                    average.update(model, epoch * steps + index)

            train_loss, train_accuracy, count = totals.read(world_size)
            if count == 0:
                raise ValueError(f"train_batches gave no batch in epoch {epoch + 1}.")
            if not math.isfinite(train_loss):
                raise _not_finite(f"training loss of epoch {epoch + 1}", last_good())
            # The last step can break the weights after the last loss was seen.
            if not all(torch.stack([p.detach().isfinite().all() for p in parameters]).tolist()):
                raise _not_finite(f"weight left by epoch {epoch + 1}", last_good())
            trained = time.perf_counter()

            row: dict[str, Any] = {
                "epoch": epoch + 1,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "val_loss": None,
                "val_accuracy": None,
                "lr": rate,
            }
            if val_batches is not None:
                # The wrapper would wait for processes whose share has one batch less.
                parallel = isinstance(model, nn.parallel.DistributedDataParallel)
                judged = average.model if average else unwrap(model) if parallel else model
                scores = evaluate(
                    judged,
                    val_batches,
                    loss=loss,
                    metric=metric,
                    device=where,
                    precision=precision,
                    world_size=world_size,
                )
                if not math.isfinite(scores["loss"]):
                    raise _not_finite(f"validation loss of epoch {epoch + 1}", last_good())
                row["val_loss"], row["val_accuracy"] = scores["loss"], scores["accuracy"]
            finished = time.perf_counter()
            row["train_seconds"] = round(trained - started, 3)
            row["seconds"] = round(finished - started, 3)
            # What the run would have taken by itself, where other work shared the machine.
            row["cpu_seconds"] = round(time.process_time() - processor, 3)

            state.history.append(row)
            state.model = _snapshot(model)
            if average is not None:
                state.average = _snapshot(average.model)
            if state.history.best is row:
                state.best = state.average or state.model
            if checkpoint is not None and main:
                checkpoint.write(state, optimizers, scaler, where)
            if main and progress:
                print(_line(row, config.epochs), flush=True)
            if on_epoch is not None:
                on_epoch(row, model)
    except KeyboardInterrupt as interrupt:
        done = len(state.history)
        if done:
            unwrap(model).load_state_dict(state.best or state.model)
        model.eval()
        text = f"stopped in epoch {min(epoch + 1, config.epochs)} of {config.epochs}; "
        if checkpoint is not None:
            text += f"what {done} finished epochs reached is in {checkpoint.path}, to be resumed."
        elif done:
            text += "the model holds the best weights of those finished; nothing is on disk."
        else:
            text += "no epoch was finished, and the model holds the weights as they were."
        raise TrainingInterrupted(text) from interrupt

    unwrap(model).load_state_dict(state.best or state.model)
    model.eval()
    return state.history


# --- saved weights ---------------------------------------------------------------------------


@dataclass
class LoadedModel:
    """A trained model and what is needed to use it: see `load_weights`."""

    model: nn.Module
    config: ViTConfig
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metadata: dict[str, Any]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W), or float ones in [0, 1], as the model was trained on them."""
        if images.dtype == torch.uint8:
            images = images.float() / 255
        mean = torch.tensor(self.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, -1, 1, 1)
        return (images - mean) / std


def save_weights(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a ViT's weights as safetensors, with its configuration, the class names and the
    normalisation (per channel, for images in [0, 1]) in the metadata. Replaces `path` at once.

    extra: anything else worth keeping, as JSON values.
    """
    inner = unwrap(model)
    config: Any = getattr(inner, "config", None)
    if not hasattr(config, "to_json"):
        raise TypeError(
            f"save_weights needs a vitcore ViT, whose .config can rebuild it, not "
            f"{type(inner).__name__}; save other models with safetensors.torch.save_model."
        )
    if len(mean) != config.in_channels or len(std) != config.in_channels:
        raise ValueError(
            f"mean and std need one number for each of the {config.in_channels} channels, "
            f"not {len(mean)} and {len(std)}."
        )
    if config.num_classes and len(classes) != config.num_classes:
        raise ValueError(
            f"the model has {config.num_classes} classes, but {len(classes)} names were given."
        )
    metadata = {
        "format": _WEIGHTS_FORMAT,
        "config": config.to_json(),
        "classes": json.dumps(list(classes)),
        "mean": json.dumps([float(value) for value in mean]),
        "std": json.dumps([float(value) for value in std]),
        "extra": json.dumps(dict(extra or {})),
    }
    _write_tensors(Path(path), inner.state_dict(), metadata)


def strip_prefixes(weights: Weights) -> Weights:
    """Names without the `_orig_mod.` and `module.` that torch.compile and DDP put before them."""
    stripped = {}
    for name, value in weights.items():
        while name.startswith(("_orig_mod.", "module.")):
            name = name.split(".", 1)[1]
        stripped[name] = value
    return stripped


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def load_weights(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu"
) -> LoadedModel:
    """The model that `save_weights` wrote, rebuilt from the file alone, in evaluation mode.

    Raises FileNotFoundError where there is no file, and ValueError where it is not safetensors,
    lacks what save_weights writes, or holds other tensors than its configuration asks for.
    """
    from .vit import ViT, ViTConfig

    path = Path(path)
    weights, metadata = _read_tensors(path, "weights file")
    weights = strip_prefixes(weights)
    missing = [key for key in ("config", "classes", "mean", "std") if key not in metadata]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)} in its metadata: it was not written by "
            "vitcore.training.save_weights, so the model it belongs to is not known."
        )
    try:
        config = ViTConfig.from_json(metadata["config"])
        classes, mean, std, extra = (
            json.loads(metadata.get(key, "{}")) for key in ("classes", "mean", "std", "extra")
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"the metadata of {path} cannot be read: {error}") from error
    model = ViT(config)
    expected = model.state_dict()
    if expected.keys() - weights.keys():
        raise ValueError(f"{path} lacks the tensors {_some(expected.keys() - weights.keys())}.")
    if weights.keys() - expected.keys():
        raise ValueError(
            f"{path} holds tensors that its configuration has no place for: "
            f"{_some(weights.keys() - expected.keys())}."
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ValueError(
                f"{name} in {path} has shape {tuple(weights[name].shape)}, but its configuration "
                f"asks for {tuple(value.shape)}."
            )
    model.load_state_dict(weights)
    model.eval().to(resolve_device(device))
    return LoadedModel(model, config, list(classes), tuple(mean), tuple(std), dict(extra))
