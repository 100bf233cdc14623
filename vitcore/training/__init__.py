# SPDX-License-Identifier: MIT
"""Training, evaluation and saved weights; chapter 6 (06_mnist.ipynb) writes the loop by hand."""

# ruff: noqa: F401  (what the rooms of this package offer)
from .arguments import OPTIMIZERS, PRECISIONS, SCHEDULES
from .checkpoints import CHECKPOINT
from .config import History, TrainConfig, quick_mode
from .device import distributed_rank, resolve_device, resolve_precision, set_seed, unwrap
from .evaluation import accuracy, cross_entropy, evaluate, predict
from .files import LoadedModel, load_weights, replace_file, save_weights
from .finetune import (
    extract_features,
    freeze_backbone,
    linear_probe,
    nearest_neighbours,
    reset_head,
)
from .loop import NonFiniteLoss, TrainingInterrupted, fit
from .multilabel import average_precision, binary_cross_entropy, mean_average_precision
from .optimizers import (
    NO_DECAY,
    WeightAverage,
    build_optimizers,
    cosine_with_warmup,
    learning_rate,
    orthogonalise,
    param_groups,
)
