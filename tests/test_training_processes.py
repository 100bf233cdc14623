# SPDX-License-Identifier: MIT
"""Training in two processes gives what one gives."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from training_helpers import (
    ROOT,
)

from vitcore.training import (
    CHECKPOINT,
)

TWO = r"""
import json, os, sys
import torch, torch.distributed as dist
torch.set_num_threads(1)
from vitcore.data import Batches
from vitcore.training import TrainConfig, evaluate, fit
from vitcore.vit import ViT

folder = sys.argv[1]
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
images = torch.randint(256, (131, 1, 8, 8), generator=generator, dtype=torch.uint8)
labels = (images.float().mean(dim=(1, 2, 3)) > 127).long()

def batches(size, rank, world_size, shuffle=False):
    return Batches((images, labels), size, mean=(0.5,), std=(0.25,), shuffle=shuffle, rank=rank,
                   world_size=world_size, drop_last=shuffle)

def model():
    torch.manual_seed(0)
    return ViT(image_size=8, patch_size=4, in_channels=1, num_classes=2, dim=8, depth=1, heads=2)

scores = evaluate(model(), batches(10, rank, 2))
parallel = torch.nn.parallel.DistributedDataParallel(model())
history = fit(parallel, batches(16, rank, 2, True), batches(10, rank, 2), TrainConfig(epochs=2),
              device="cpu", out=f"{folder}/out")
# The run is finished: to resume it reads the history, in every process.
again = fit(parallel, batches(16, rank, 2, True), batches(10, rank, 2), TrainConfig(epochs=2),
            device="cpu", out=f"{folder}/out", resume=True)
assert [row["val_loss"] for row in again] == [row["val_loss"] for row in history]
dist.barrier()
dist.destroy_process_group()
if rank:
    json.dump([scores, history], open(f"{folder}/rank1.json", "w"))
    os._exit(0)
os.wait()
alone = fit(model(), batches(32, 0, 1, True), batches(10, 0, 1), TrainConfig(epochs=2),
            device="cpu", progress=False)
print(json.dumps([scores, evaluate(model(), batches(10, 0, 1)), history, alone]))
"""


@pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="needs fork and gloo"
)
def test_two_processes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    both, one, history, alone = json.loads(last)
    # 131 images on two ranks: one has 66 of them, the other 65, and none counts twice.
    assert both["count"] == one["count"] == 131
    assert both == pytest.approx(one, abs=1e-6)
    scores, other = json.loads((tmp_path / "rank1.json").read_text())
    assert scores == both
    keys = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    for a, b, c in zip(history, other, alone, strict=True):
        assert [a[k] for k in keys] == [b[k] for k in keys]
        # The same global batch gives the same losses as one process alone.
        assert [a[k] for k in keys] == pytest.approx([c[k] for k in keys], abs=1e-4)
    # Only rank 0 prints and writes.
    assert len(printed) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [CHECKPOINT]
