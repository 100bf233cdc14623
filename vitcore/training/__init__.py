# SPDX-License-Identifier: MIT
"""Training, evaluation and saved weights; chapter 6 (06_mnist.ipynb) writes the loop by hand."""

from .checkpoints import CHECKPOINT as CHECKPOINT
from .config import OPTIMIZERS as OPTIMIZERS
from .config import PRECISIONS as PRECISIONS
from .config import SCHEDULES as SCHEDULES
from .config import History, TrainConfig, quick_mode
from .device import distributed_rank as distributed_rank
from .device import resolve_device as resolve_device
from .device import resolve_precision as resolve_precision
from .device import unwrap as unwrap
from .evaluation import evaluate, predict
from .files import replace_file as replace_file
from .loop import fit
from .losses import (
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    label_accuracy,
)
from .optimizers import NO_DECAY as NO_DECAY
from .optimizers import WeightAverage as WeightAverage
from .optimizers import build_optimizers as build_optimizers
from .optimizers import cosine_with_warmup, orthogonalise, param_groups
from .optimizers import learning_rate as learning_rate
from .random_state import set_seed
from .run import NonFiniteLoss, TrainingInterrupted
from .weights import LoadedModel, load_weights, save_weights
from .weights import strip_prefixes as strip_prefixes

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
