# SPDX-License-Identifier: MIT
"""Imports torchvision, also beside a torch that its compiled half does not fit (chapter 6)."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import warnings
from types import ModuleType

import torch

# torchvision's Linux wheel is compiled against CUDA. Beside a CPU build of torch its library does
# not load, and the import then stops at the first operator that the library would have declared.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it dies


def import_torchvision() -> ModuleType:
    """Return torchvision, whose datasets, transforms and models work beside any build of torch.

    The compiled library is tried first, so nothing changes where it loads. Where it does not,
    the two operators it would declare are declared without an implementation: ``ops.nms`` and
    ``io.decode_jpeg`` then stay unavailable, which nothing here needs.

    Raises ImportError where torchvision is not installed, or is of another release than torch.
    """
    try:
        return _import()
    except ModuleNotFoundError as error:
        if error.name == "torchvision":
            raise ImportError("torchvision is not installed: pip install torchvision") from error
        problem: Exception = error
    except Exception as error:
        problem = error
    raise ImportError(
        f"torchvision {importlib.metadata.version('torchvision')} does not fit torch "
        f"{torch.__version__} ({' '.join(str(problem).split())}): install both of one release, as "
        "pip install --upgrade torch torchvision does"
    ) from problem


def _import() -> ModuleType:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to load image Python extension")
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half that was imported before it stopped
        if not _declared:
            library = torch.library.Library("torchvision", "DEF")
            for schema in _SCHEMAS:
                library.define(schema)
            _declared.append(library)
        return importlib.import_module("torchvision")
