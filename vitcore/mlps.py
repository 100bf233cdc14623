# SPDX-License-Identifier: MIT
"""MLPs beyond the plain one, chosen by name; chapter 9 compares them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ._inputs import check_positive, check_tokens, register
from .blocks import MLPS

__all__ = ["SwiGLU"]


@register(MLPS, "swiglu")
class SwiGLU(nn.Module):
    """A gated MLP: fc2(SiLU(fc1_g(x)) ⊙ fc1_x(x)), with timm's names; three linear maps, so that
    two thirds of the usual ``hidden_dim`` take the same arithmetic.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Shazeer (2020), "GLU variants improve transformer", equation 6.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        dim = check_positive("dim", dim)
        hidden_dim = check_positive("hidden_dim", hidden_dim)
        self.fc1_g = nn.Linear(dim, hidden_dim)
        self.fc1_x = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D)."""
        check_tokens("x", x, getattr(self.fc1_g, "weight", None))
        return self.fc2(F.silu(self.fc1_g(x)) * self.fc1_x(x))
