# SPDX-License-Identifier: MIT
"""What stands around the steps of training: resuming, precision, averages, finite checks, files."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import Checkpoint, State, snapshot
from .config import History, TrainConfig
from .device import autocast, distributed_rank, resolve_device, resolve_precision, unwrap
from .evaluation import Totals, check_batch, evaluate
from .losses import Loss, Metric, choose, with_smoothing
from .optimizers import WeightAverage, build_optimizers, learning_rate
from .random_state import set_seed


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became infinite or not a number; the last good weights are kept."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


def count_batches(batches: Iterable[Any]) -> int:
    """How many batches an epoch has."""
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


def describe(row: dict[str, Any], epochs: int) -> str:
    """An epoch's row as a line to print."""
    text = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.4f}"
    )
    if row["val_accuracy"] is not None:
        text += f"  val loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
    return f"{text}  {row['seconds']:.1f} s"


def progress_bar(batches: Iterable[Any], total: int, title: str, visible: bool) -> Any:
    """The batches, behind a progress bar where somebody sees it."""
    # A bar is for a person at a terminal; in a notebook or a log it leaves only debris.
    if visible and sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            return batches
        return tqdm(batches, total=total, desc=title, leave=False, file=sys.stderr)
    return batches


class TrainingRun:
    """What stands around the loop of `fit`, each part behind a named step.

    As a context it begins or resumes the run; at the end it leaves the best weights in the model,
    also when the user interrupts it.
    """

    def __init__(
        self,
        model: nn.Module,
        train_batches: Iterable[Any],
        val_batches: Iterable[Any] | None,
        config: TrainConfig,
        *,
        loss: Loss | None,
        metric: Metric | None,
        device: str | torch.device,
        out: str | os.PathLike[str] | None,
        resume: bool,
        progress: bool,
        on_epoch: Callable[[dict[str, Any], nn.Module], None] | None,
        metadata: Mapping[str, Any] | None,
    ):
        self.model, self.config = model, config
        self.train_batches, self.val_batches = train_batches, val_batches
        self.val_loss, self.metric = choose(loss, metric)
        self.train_loss = with_smoothing(self.val_loss, config.label_smoothing)
        self.rank, self.world_size = distributed_rank()
        self.device = resolve_device(device)
        self.precision = resolve_precision(config.precision, self.device)
        self.resume, self.on_epoch = resume, on_epoch
        self.main = self.rank == 0
        self.prints = self.main and progress
        self.steps_per_epoch = count_batches(train_batches)
        model.to(self.device)
        self.optimizers = build_optimizers(model, config)
        self.shares = [group["lr"] / config.lr for group in self._groups()]
        self.parameters = [p for group in self._groups() for p in group["params"]]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        # The same weights: what is saved, judged and returned is the model itself.
        self.stepped = torch.compile(model) if config.compile else model
        # Reading a number back makes a GPU wait for all work before it, so there it is done rarely.
        self.check_every = 1 if self.device.type == "cpu" and self.world_size == 1 else 50
        self.checkpoint = None if out is None else Checkpoint(out, self._identity(metadata))
        self.epoch = self.index = 0
        self.average: WeightAverage | None = None

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _identity(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        """What must be the same for a checkpoint to belong to this run."""
        state = unwrap(self.model).state_dict()
        return {
            "config": self.config.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": {name: list(value.shape) for name, value in state.items()},
            "metadata": dict(metadata or {}),
        }

    # --- beginning and end -------------------------------------------------------------------

    def __enter__(self) -> TrainingRun:
        # Each process draws its own drop path.
        set_seed(self.config.seed + self.rank)
        if self.checkpoint is not None and self._finds_checkpoint():
            self._resume(self.checkpoint)
        else:
            first = snapshot(self.model)
            self.state = State(first, average=first if self.config.ema else None)
            self._write()
        if self.state.average is not None:
            self.average = WeightAverage(self.model, self.config.ema)
            self.average.model.load_state_dict(self.state.average)
        return self

    def _finds_checkpoint(self) -> bool:
        found = self.checkpoint is not None and self.checkpoint.path.exists()
        if self.world_size > 1:
            # Rank 0 may have begun to write what another process would take for an earlier run.
            answer = torch.tensor(float(found), device=self.device)
            torch.distributed.broadcast(answer, 0)
            found = bool(answer)
        return found

    def _resume(self, checkpoint: Checkpoint) -> None:
        if not self.resume:
            raise FileExistsError(
                f"{checkpoint.path} already holds a run: resume it, or choose another out folder."
            )
        self.state = checkpoint.read(self.model, self.optimizers, self.scaler, self.device)
        if self.rank:  # the checkpoint holds the random numbers of rank 0
            set_seed(self.config.seed + self.rank + len(self.history) * self.world_size)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._leave_best()
        elif isinstance(error, KeyboardInterrupt):
            if self.history:
                unwrap(self.model).load_state_dict(self.state.best or self.state.model)
            self.model.eval()
            raise TrainingInterrupted(self._where_stopped()) from error

    def _leave_best(self) -> None:
        unwrap(self.model).load_state_dict(self.state.best or self.state.model)
        self.model.eval()

    def _where_stopped(self) -> str:
        done = len(self.history)
        text = (
            f"stopped in epoch {min(self.epoch + 1, self.config.epochs)} of {self.config.epochs}; "
        )
        if self.checkpoint is not None:
            path = self.checkpoint.path
            return f"{text}what {done} finished epochs reached is in {path}, to be resumed."
        if done:
            return f"{text}the model holds the best weights of those finished; nothing is on disk."
        return f"{text}no epoch was finished, and the model holds the weights as they were."

    @property
    def history(self) -> History:
        return self.state.history

    # --- the steps, in the order of the loop -------------------------------------------------

    def epochs(self) -> Iterator[int]:
        """The epochs, from 0, that are still to be trained."""
        for epoch in range(len(self.history), self.config.epochs):
            self.epoch = epoch
            yield epoch

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches on the device; after the last one, what they did is judged."""
        self.started, self.processor = time.perf_counter(), time.process_time()
        # A DataLoader over several processes has it on its sampler.
        for part in (self.train_batches, getattr(self.train_batches, "sampler", None)):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self.epoch)
        self.model.train()
        self.totals = Totals(self.device)
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        bar = progress_bar(self.train_batches, self.steps_per_epoch, title, self.prints)
        for index, batch in enumerate(bar):
            self.index = index
            yield check_batch(batch, self.device)
        self._check_epoch()
        self.trained = time.perf_counter()

    @property
    def steps_done(self) -> int:
        """Steps of the whole run before this one."""
        return self.epoch * self.steps_per_epoch + self.index

    def set_rate(self) -> None:
        """Give every parameter group its share of the learning rate of this step."""
        last = self.config.epochs * self.steps_per_epoch - 1
        self.rate = learning_rate(min(self.steps_done, last), self.config, self.steps_per_epoch)
        for group, share in zip(self._groups(), self.shares, strict=True):
            group["lr"] = self.rate * share

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The training loss of a batch, in fp32; counted, with the score, for the epoch's row."""
        with autocast(self.device, self.precision):
            logits = self.stepped(images)
        logits = logits.float()
        value = self.train_loss(logits, targets).mean()
        with torch.no_grad():
            self.totals.add(value, self.metric(logits, targets), len(images))
        step = self.index + 1
        if step % self.check_every == 0:
            mean_loss, _, _ = self.totals.read(self.world_size)
            place = f"epoch {self.epoch + 1} by step {step} of {self.steps_per_epoch}"
            self._check_finite(mean_loss, f"training loss of {place}")
        return value

    def backward(self, value: Tensor) -> None:
        """Fill in the gradients; in fp16 those of a scaled loss, so that small ones survive."""
        self.scaler.scale(value).backward()

    def step(self) -> None:
        """Clip the gradients, step the optimisers, and let the average of weights follow."""
        if self.config.clip_norm is not None:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, self.steps_done)

    def evaluate(self) -> dict[str, float] | None:
        """Loss and accuracy on the validation images, of the averaged weights where there are."""
        if self.val_batches is None:
            return None
        # The wrapper would wait for processes whose share has one batch less.
        parallel = isinstance(self.model, nn.parallel.DistributedDataParallel)
        judged = unwrap(self.model) if parallel else self.model
        scores = evaluate(
            self.average.model if self.average else judged,
            self.val_batches,
            loss=self.val_loss,
            metric=self.metric,
            device=self.device,
            precision=self.precision,
            world_size=self.world_size,
        )
        self._check_finite(scores["loss"], f"validation loss of epoch {self.epoch + 1}")
        return scores

    def keep(self, scores: dict[str, float] | None) -> None:
        """Add the epoch's row to the history and write the checkpoint."""
        finished = time.perf_counter()
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "train_loss": self.train_scores[0],
            "train_accuracy": self.train_scores[1],
            "val_loss": scores["loss"] if scores else None,
            "val_accuracy": scores["accuracy"] if scores else None,
            "lr": self.rate,
            "train_seconds": round(self.trained - self.started, 3),
            "seconds": round(finished - self.started, 3),
            # What the run would have taken by itself, where other work shared the machine.
            "cpu_seconds": round(time.process_time() - self.processor, 3),
        }
        state = self.state
        state.history.append(row)
        state.model = snapshot(self.model)
        if self.average is not None:
            state.average = snapshot(self.average.model)
        if state.history.best is row:
            state.best = state.average or state.model
        self._write()
        if self.prints:
            print(describe(row, self.config.epochs), flush=True)
        if self.on_epoch is not None:
            self.on_epoch(row, self.model)

    def _write(self) -> None:
        if self.checkpoint is not None and self.main:
            self.checkpoint.write(self.state, self.optimizers, self.scaler, self.device)

    # --- finite checks -----------------------------------------------------------------------

    def _check_epoch(self) -> None:
        mean_loss, accuracy, count = self.totals.read(self.world_size)
        if count == 0:
            raise ValueError(f"train_batches gave no batch in epoch {self.epoch + 1}.")
        self._check_finite(mean_loss, f"training loss of epoch {self.epoch + 1}")
        # The last step can break the weights after the last loss was seen.
        if not all(torch.stack([p.detach().isfinite().all() for p in self.parameters]).tolist()):
            self._check_finite(math.nan, f"weight left by epoch {self.epoch + 1}")
        self.train_scores = mean_loss, accuracy

    def _check_finite(self, value: float, what: str) -> None:
        """Where `value` is not finite, put the last good weights back and stop."""
        if math.isfinite(value):
            return
        unwrap(self.model).load_state_dict(self.state.model)
        done = len(self.history)
        kept = f"the weights of the end of epoch {done}" if done else "the first weights"
        path = f" and in {self.checkpoint.path}" if self.checkpoint else ""
        raise NonFiniteLoss(
            f"the {what} is not finite any more. Likely causes: a learning rate that is too high, "
            "images that are not normalised or hold NaN, or a loss that takes the log of zero. Try "
            "a third of the learning rate, a longer warmup, or precision fp32. "
            f"Kept: {kept}, in the model{path}."
        )
