# SPDX-License-Identifier: MIT
"""The training loop that chapter 6 (06_mnist.ipynb) writes by hand, and what stands around it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoints, device, evaluation
from .arguments import CHECKS, checked
from .checkpoints import Checkpoint, State, restore, snapshot
from .config import History, TrainConfig
from .device import distributed_rank, resolve_device, resolve_precision, unwrap
from .files import lock_folder
from .optimizers import Together, WeightAverage, build_optimizers, learning_rate

CHECK_EVERY = 50  # steps between two looks at the training loss


class NonFiniteLoss(RuntimeError):
    """The loss or the weights became infinite or not a number; the last good weights are kept."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


@checked
def fit(
    model: nn.Module,
    train_batches: Iterable[Any],
    val_batches: Iterable[Any] | None = None,
    config: TrainConfig | None = None,
    *,
    loss: evaluation.Loss | None = None,
    metric: evaluation.Metric | None = None,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any], nn.Module], None] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> History:
    """Train `model` in place and return its history; at the end it holds the weights of the epoch
    with the best validation accuracy (without validation, the last), in evaluation mode.

    train_batches, val_batches: what can be gone through once per epoch, has a length and gives
        pairs (images, targets): a list, `vitcore.data.Batches`, or a DataLoader, such as
        DataLoader(ImageFolder("my_images", transform), 64, shuffle=True) where the transform gives
        normalised tensors (C, H, W) of one size. `set_epoch`, if there is one, is called with the
        epoch, from 0. Targets: class numbers, int64 (B,), or float distributions (B, K).
    loss, metric: as in `evaluate`; the loss takes `label_smoothing` too where config asks for it.
    out: a folder for checkpoint.safetensors, written at every epoch's end, and the best weights
        where that was an earlier epoch; None keeps nothing.
    resume: go on from the checkpoint in `out`; from the start where there is none. On the CPU in
        fp32 with the same number of threads and processes, the resumed run repeats the unbroken
        one exactly, but with persistent workers and data sets that have a generator of their own.
    on_epoch: called with the epoch's row and the model after each epoch.
    metadata: what else must be the same on resuming (recipe, data); JSON values.

    Random numbers drawn afterwards are those that would have been drawn without training. Parts
    of a model in training mode that are in evaluation mode stay so while it is trained.

    Where torch.distributed is initialised, the model comes wrapped in DistributedDataParallel, or
    sharded by `fully_shard` with as many validation batches in every process; each process brings
    its share of the batches and the same out, and only rank 0 writes and prints.

    Raises NonFiniteLoss when loss or weights overflow and TrainingInterrupted on Ctrl-C and on
    SIGTERM; both leave good weights in the model and the last epoch's end in the checkpoint.
    ValueError where `out` holds a checkpoint that does not belong to this run, FileExistsError
    where it holds one and resume is False, BlockingIOError where another run is writing to it.
    """
    CHECKS["config"]("config", config)
    with TrainingRun(**locals()) as run:
        for _ in run.epochs():
            for images, targets in run.batches():
                run.set_rate()
                run.optimizer.zero_grad()
                value = run.loss_of(images, targets)
                run.backward(value)
                run.step()
            run.keep(run.evaluate())
    return run.history


@dataclass
class TrainingRun:
    """What stands around the loop of `fit`, whose arguments it takes: each part a named step.

    As a context it begins or resumes the run; at the end it leaves the best weights in the model,
    also when the user interrupts it.
    """

    model: nn.Module
    train_batches: Any
    val_batches: Any
    config: TrainConfig
    loss: Any
    metric: Any
    device: Any
    out: Any
    resume: bool
    progress: bool
    on_epoch: Any
    metadata: Any
    average: WeightAverage | None = None
    checkpoint: Checkpoint | None = None
    epoch: int = 0
    index: int = 0  # of the batch within the epoch

    def _build(self) -> None:
        """What steps need: losses, optimisers, scaler, and the mode of every part of the model."""
        self.metric = self.metric or evaluation.accuracy
        self.train_loss = self.val_loss = self.loss or evaluation.cross_entropy
        if smoothing := self.config.label_smoothing:
            if "label_smoothing" not in inspect.signature(self.val_loss).parameters:
                given = f"label_smoothing is {smoothing}, but the loss takes no such argument"
                raise ValueError(f"{given}; set it to 0 in the configuration, or add it there.")
            self.train_loss = functools.partial(self.val_loss, label_smoothing=smoothing)
        self.rank, self.world_size = distributed_rank()
        self.precision = resolve_precision(self.config.precision, self.device)
        self.prints = self.progress and self.rank == 0
        self.generators = checkpoints.find_generators(self.train_batches, self.val_batches)
        model = self.model.to(self.device)
        self.steps_per_epoch = len(self.train_batches)
        self.optimizers = build_optimizers(model, self.config)
        self.optimizer: Any = Together(self.optimizers)
        groups = self.optimizer.param_groups
        self.shares = [group["lr"] / self.config.lr for group in groups]
        self.parameters = [p for group in groups for p in group["params"]]
        if self.config.ema and any(hasattr(p, "full_tensor") for p in self.parameters):
            raise ValueError("ema needs whole weights; set it to 0 for a model that is sharded.")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        # The same weights: what is saved, judged and returned is the model itself.
        self.stepped: Any = torch.compile(model) if self.config.compile else model
        # A part that the user put into evaluation mode stays there; a whole model that is in it
        # comes from an evaluation or an earlier run.
        whole = not unwrap(model).training
        self.modes = [(module, whole or module.training) for module in model.modules()]

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to belong to this run."""
        inner = unwrap(self.model)
        architecture: Any = getattr(inner, "config", None)
        batches = {"train": self.train_batches, "val": self.val_batches}
        return {
            "config": self.config.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": {name: list(value.shape) for name, value in inner.state_dict().items()},
            "architecture": architecture.to_dict() if hasattr(architecture, "to_dict") else None,
            "loss": checkpoints.describe_function(self.val_loss),
            "metric": checkpoints.describe_function(self.metric),
            "processes": self.world_size,
            "generators": len(self.generators),
            "data": {name: checkpoints.digest_data(part) for name, part in batches.items()},
            "metadata": self.metadata or {},
        }

    def __enter__(self) -> TrainingRun:
        self.device = resolve_device(self.device)
        with contextlib.ExitStack() as stack:
            stack.enter_context(device.random_state_kept(self.device))
            self._build()
            # Each process draws its own drop path.
            device.set_seed((self.config.seed + self.rank) % 2**31)
            if not self._resumed(stack):
                first = snapshot(self.model)
                self.state = State(first, average=first if self.config.ema else None)
                self._write()
            self.history = self.state.history
            if self.state.average is not None:
                self.average = WeightAverage(self.model, self.config.ema)
                self.average.model.load_state_dict(self.state.average)
            # Schedulers and `kill` end a process by SIGTERM; a handler of the user's own stays.
            free = threading.current_thread() is threading.main_thread()
            if free and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                stack.callback(signal.signal, signal.SIGTERM, signal.SIG_DFL)
            self.stack = stack.pop_all()
        return self

    def _resumed(self, stack: contextlib.ExitStack) -> bool:
        """Read the checkpoint in `out`, if there is one; until the end the folder is this run's."""
        if self.out is None:
            return False
        self.checkpoint = Checkpoint(self.out, self._identity(), self.optimizers, self.scaler)
        path, busy = self.checkpoint.path, ""
        if self.rank == 0:
            try:
                stack.enter_context(lock_folder(path.parent))
            except BlockingIOError as error:
                busy = str(error)
        seen: list[Any] = [path.exists(), busy]
        if self.world_size > 1:
            # Rank 0 may have begun to write what another process would take for an earlier run.
            torch.distributed.broadcast_object_list(seen, 0, device=self.device)
        if seen[1]:
            raise BlockingIOError(seen[1])
        if seen[0] and not self.resume:
            raise FileExistsError(f"{path} already holds a run; resume it, or take another folder.")
        if seen[0]:
            self.state, drawn = self.checkpoint.read(self.model, self.rank)
            device.unpack_random(drawn, self.device, self.generators)
            if self.rank == 0 and getattr(self.train_batches, "persistent_workers", False):
                text = "what persistent workers draw cannot be put back, so this run repeats the "
                text += "unbroken one only roughly; persistent_workers=False makes it exact."
                warnings.warn(text, stacklevel=5)
        return seen[0]

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        with self.stack:
            if error is None or isinstance(error, KeyboardInterrupt):
                restore(self.model, self.state.best or self.state.model)
                self.model.eval()
            if isinstance(error, KeyboardInterrupt):
                done, kept = len(self.history), "nothing is on disk"
                if self.checkpoint is not None:
                    kept = f"{self.checkpoint.path} keeps {self.checkpoint.epochs} of them"
                held = f"those of epoch {self.history.best['epoch']}" if done else "as they were"
                where = f"stopped with {done} of {self.config.epochs} epochs finished"
                text = f"{where}; {kept}; the weights in the model are {held}."
                raise TrainingInterrupted(text) from error

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
            getattr(part, "set_epoch", lambda epoch: None)(self.epoch)
        for module, training in self.modes:
            module.training = training
        self.totals = evaluation.Totals(self.device)
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        hide = None if self.prints else True  # None: shown at a terminal, not in a log
        bar = tqdm(self.train_batches, title, self.steps_per_epoch, leave=False, disable=hide)
        for self.index, batch in enumerate(bar):
            yield evaluation.check_batch(batch, self.device)
        self._check_epoch()
        self.trained = time.perf_counter()

    def set_rate(self) -> None:
        """Give every parameter group its share of the learning rate of this step."""
        steps = self.steps_per_epoch
        self.steps_done = self.epoch * steps + self.index  # by the whole run, before this one
        self.rate = learning_rate(self.steps_done, self.config, steps)
        for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
            group["lr"] = self.rate * share

    def loss_of(self, images: Tensor, targets: Tensor) -> Tensor:
        """The training loss of a batch, in fp32; counted, with the score, for the epoch's row."""
        logits = evaluation.compute_logits(self.stepped, images, self.precision)
        value = self.totals.add(self.train_loss, self.metric, logits, targets)
        # Reading a number back makes a GPU wait for all work before it, so it is done rarely.
        if self.index % CHECK_EVERY == CHECK_EVERY - 1:
            self._check_finite(self.totals.read()[0], f"training loss of epoch {self.epoch + 1}")
        return value

    def backward(self, value: Tensor) -> None:
        """Fill in the gradients; in fp16 those of a scaled loss, so that small ones survive."""
        self.scaler.scale(value).backward()

    def step(self) -> None:
        """Clip the gradients, step the optimisers, and let the average of weights follow."""
        if self.config.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, self.steps_done)

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the validation images, of the averaged weights where there are;
        nothing without validation."""
        if self.val_batches is None:
            return {}
        judged: Any = self.average.model if self.average else self.model
        if isinstance(judged, nn.parallel.DistributedDataParallel):
            judged = judged.module  # it would wait for processes whose share has a batch less
        where: dict[str, Any] = {"device": self.device, "precision": self.precision}
        scores = evaluation.evaluate(
            judged, self.val_batches, loss=self.val_loss, metric=self.metric, **where
        )
        self._check_finite(scores["loss"], f"validation loss of epoch {self.epoch + 1}")
        return scores

    def keep(self, scores: dict[str, float]) -> None:
        """Add the epoch's row to the history and write the checkpoint."""
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "train_loss": self.train_scores[0],
            "train_accuracy": self.train_scores[1],
            "val_loss": scores.get("loss"),
            "val_accuracy": scores.get("accuracy"),
            "lr": self.rate,
            "train_seconds": round(self.trained - self.started, 3),
            "seconds": round(time.perf_counter() - self.started, 3),
            # What the run would have taken by itself, where other work shared the machine.
            "cpu_seconds": round(time.process_time() - self.processor, 3),
        }
        state = self.state
        state.history.append(row)
        state.model = snapshot(self.model)
        if self.average is not None:
            state.average = snapshot(self.average.model)
        if state.history.best is row:
            state.best = state.judged
        self._write()
        if self.prints:
            print(state.history.last_line(self.config.epochs), flush=True)
        if self.on_epoch is not None:
            self.on_epoch(row, self.model)

    def _write(self) -> None:
        if self.checkpoint is None:
            return
        own = device.pack_random(self.device, self.generators)
        drawn: list[Any] = [own] * self.world_size
        if self.world_size > 1:
            torch.distributed.all_gather_object(drawn, own)
        self.checkpoint.write(self.state, drawn, write=self.rank == 0)

    def _check_epoch(self) -> None:
        *self.train_scores, count = self.totals.finish(self.metric)
        if count == 0:
            raise ValueError(f"train_batches gave no batch in epoch {self.epoch + 1}.")
        self._check_finite(self.train_scores[0], f"training loss of epoch {self.epoch + 1}")
        # The last step can break the weights after the last loss was seen.
        finite = [device.full_tensor(p.detach().isfinite().all()) for p in self.parameters]
        if not all(torch.stack(finite).tolist()):
            self._check_finite(math.nan, f"weight left by epoch {self.epoch + 1}")

    def _check_finite(self, value: float, what: str) -> None:
        """Where `value` is not finite, put the last good weights back and stop."""
        if math.isfinite(value):
            return
        restore(self.model, self.state.model)
        path = f" and in {self.checkpoint.path}" if self.checkpoint else ""
        raise NonFiniteLoss(
            f"the {what} is not finite any more; likely causes are a learning rate that is too "
            "high, images that are not normalised or hold NaN, or a loss that takes the log of "
            "zero, so try a third of the learning rate, a longer warmup, or precision fp32; the "
            f"weights after {len(self.history)} epochs are kept in the model{path}."
        )
