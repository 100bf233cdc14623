# SPDX-License-Identifier: MIT
"""Imports torchvision, also beside a torch that its compiled half does not fit (chapter 5)."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from types import ModuleType

import torch

_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it dies


def import_torchvision() -> ModuleType:
    """Return torchvision, whose datasets, transforms and models work beside any build of torch.

    Raises ImportError where torchvision is not installed, or is of another release than torch.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Failed to load image Python extension")
            return _import()
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            raise ImportError("torchvision is not installed: pip install torchvision") from error
        raise ImportError(
            f"torchvision {importlib.metadata.version('torchvision')} does not fit torch "
            f"{torch.__version__} ({' '.join(str(error).split())}): install both of one release, "
            "as pip install --upgrade torch torchvision does"
        ) from error


def _import() -> ModuleType:
    """Import it, without its compiled library where that does not load, as beside a CPU build.

    Two operators that the library would declare are then declared without an implementation, so
    ``ops.nms`` and ``io.decode_jpeg`` stay unavailable, which nothing here needs.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half that was imported before it stopped
    if not _declared:
        _declared.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            arguments = "Tensor dets, Tensor scores, float iou_threshold"
            _declared[0].define(f"{name}({arguments}) -> Tensor")
    return importlib.import_module("torchvision")
