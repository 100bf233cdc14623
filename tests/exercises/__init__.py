# SPDX-License-Identifier: MIT
"""The table of exercises: every one of the chapters with right and wrong answers to it."""

# mypy: ignore-errors
from __future__ import annotations

from exercises import (
    attention,
    better_patches,
    beyond,
    blocks,
    cifar100,
    embeddings,
    improved,
    looking,
    mnist,
    patches,
    pretrained,
    vit,
)

CHAPTERS = (
    *(patches, embeddings, attention, blocks, vit),
    *(mnist, cifar100),
    *(looking, improved, better_patches),
    *(pretrained, beyond),
)
TABLE = {exercise.number: exercise for chapter in CHAPTERS for exercise in chapter.EXERCISES}
