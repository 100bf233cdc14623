# SPDX-License-Identifier: MIT
"""``import_torchvision``'s old address: see ``vitcore.data``."""

from .data._torchvision import import_torchvision as import_torchvision
