# SPDX-License-Identifier: MIT
"""The stand-in's old address: see ``vitcore.data``."""

from .data._standin import VERSION as VERSION
from .data._standin import generate as generate
