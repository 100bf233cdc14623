# SPDX-License-Identifier: MIT
"""Measurements that the book shows and no chapter has the time to make; they write into runs/."""
