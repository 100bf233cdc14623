# SPDX-License-Identifier: MIT
"""Imports torchvision beside any build of torch (chapter 5); the code is vitcore's."""

from vitcore.data._torchvision import import_torchvision

__all__ = ["import_torchvision"]
