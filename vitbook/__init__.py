# SPDX-License-Identifier: MIT
"""What the pages of the book need beside the code that people take with them: vitcore."""
