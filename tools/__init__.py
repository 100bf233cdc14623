# SPDX-License-Identifier: MIT
"""Scripts for the book's authors and its tests; readers do not need them."""
