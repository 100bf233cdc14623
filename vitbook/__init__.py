# SPDX-License-Identifier: MIT
"""What the pages of the book need beside vitcore: checks, pictures, records, ladders of recipes."""
