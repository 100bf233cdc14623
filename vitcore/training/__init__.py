# SPDX-License-Identifier: MIT
"""Training, evaluation and saved weights; chapter 6 (06_mnist.ipynb) writes the loop by hand."""

# ruff: noqa: F401  (names beside __all__ serve recipes, records and the command line)
from .arguments import OPTIMIZERS, PRECISIONS, SCHEDULES
from .checkpoints import CHECKPOINT
from .config import History, TrainConfig, quick_mode
from .device import distributed_rank, resolve_device, resolve_precision, set_seed, unwrap
from .evaluation import evaluate, predict
from .files import replace_file
from .loop import NonFiniteLoss, TrainingInterrupted, fit
from .losses import accuracy, binary_cross_entropy, cross_entropy, label_accuracy
from .optimizers import (
    NO_DECAY,
    WeightAverage,
    build_optimizers,
    cosine_with_warmup,
    learning_rate,
    orthogonalise,
    param_groups,
)
from .weights import LoadedModel, load_weights, save_weights, strip_prefixes

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
