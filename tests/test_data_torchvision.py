# SPDX-License-Identifier: MIT
"""torchvision is imported beside any torch, and by nothing that can do without."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from vitcore.data import (
    import_torchvision,
)


def test_torchvision_imports_and_does_its_work():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    import torchvision.transforms.v2 as transforms
    from torchvision.models import vit_b_16

    assert transforms.functional.horizontal_flip(torch.arange(3.0)).tolist() == [2, 1, 0]
    assert callable(vit_b_16)


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
        check=False,
    )


def test_importing_data_leaves_torchvision_alone():
    done = run_python(
        "import sys, vitcore.data, vitcore.augment\n"
        "assert not {'torchvision', 'PIL', 'matplotlib'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_an_error_of_torchvision_s_own_is_not_hidden(monkeypatch):
    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr("vitcore.data._torchvision.importlib.import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()
