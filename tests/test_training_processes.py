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
    batches,
    kept,
    run_content,
    same_run,
    tiny_vit,
)

from vitcore.training import (
    CHECKPOINT,
    TrainConfig,
    fit,
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


SETUP = r"""
import datetime, json, os, sys
import torch, torch.distributed as dist
from torch import nn
torch.set_num_threads(1)
from vitcore.data import Batches
from vitcore.training import TrainConfig, evaluate, fit
from vitcore.vit import ViT

folder = sys.argv[1]
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=30))
generator = torch.Generator().manual_seed(0)
images = torch.randint(256, (131, 1, 8, 8), generator=generator, dtype=torch.uint8)
labels = (images.float().mean(dim=(1, 2, 3)) > 127).long()

def batches(size, shuffle=False, rank=rank, ranks=2):
    return Batches((images, labels), size, mean=(0.5,), std=(0.25,), shuffle=shuffle, rank=rank,
                   world_size=ranks, drop_last=shuffle)

def model(drop_path=0.0):
    torch.manual_seed(0)
    return ViT(image_size=8, patch_size=4, in_channels=1, num_classes=2, dim=8, depth=2, heads=2,
               drop_path=drop_path)

class Stop(Exception):
    pass

def stop(row, model):
    raise Stop

def train(model, out=None, val=10, config=TrainConfig(epochs=3, ema=0.5), **options):
    return fit(model, batches(16, True), batches(val), config, device="cpu", progress=False,
               out=out and f"{folder}/{out}", **options)
"""

END = """
dist.barrier()
dist.destroy_process_group()
if rank:
    os._exit(0)
os.wait()
"""


def two(tmp_path, program):
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program + END, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_two = pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="needs fork and gloo"
)


@needs_two
def test_two_processes_with_drop_path_resume_exactly(tmp_path):
    two(
        tmp_path,
        """
from vitcore.training import checkpoints
def refuse(*_):
    raise AssertionError("only rank 0 writes")
if rank:
    checkpoints.write_tensors = refuse
parallel = nn.parallel.DistributedDataParallel
train(parallel(model(0.5)), "whole")
try:
    train(parallel(model(0.5)), "parts", on_epoch=stop)
except Stop:
    pass
torch.manual_seed(99 + rank)
train(parallel(model(0.5)), "parts", resume=True)
""",
    )
    same_run(tmp_path / "whole", tmp_path / "parts")
    tensors, content = run_content(tmp_path / "whole")
    # Each process draws a drop path of its own.
    assert not torch.equal(tensors["random.0.cpu"], tensors["random.1.cpu"])
    assert content["identity"]["processes"] == 2
    config = TrainConfig(epochs=3, ema=0.5)
    with pytest.raises(ValueError, match="cannot resume"):
        fit(tiny_vit(), batches(), None, config, device="cpu", out=tmp_path / "whole", resume=True)


@needs_two
def test_the_wrapper_is_not_judged(tmp_path):
    """It shares buffers as a batch begins, and then waits for a process that has none left."""
    two(
        tmp_path,
        """
class Watched(nn.parallel.DistributedDataParallel):
    def forward(self, *inputs):
        assert torch.is_grad_enabled(), "validation went through the wrapper"
        return super().forward(*inputs)

assert [len(batches(65, rank=r)) for r in range(2)] == [2, 1]
train(Watched(model()), val=65, config=TrainConfig(epochs=1))
""",
    )


@needs_two
def test_a_folder_in_use_is_refused_by_all_processes(tmp_path):
    two(
        tmp_path,
        """
from pathlib import Path
from vitcore.training.files import lock_folder
import contextlib
with lock_folder(Path(folder) / "out") if rank == 0 else contextlib.nullcontext():
    dist.barrier()
    try:
        train(nn.parallel.DistributedDataParallel(model()), "out")
        raise AssertionError("nobody was kept out")
    except BlockingIOError as error:
        assert "another run is writing" in str(error)
    dist.barrier()
""",
    )


@needs_two
def test_sharded_weights_train_as_whole_ones(tmp_path):
    if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("this torch has no fully_shard")
    out = two(
        tmp_path,
        """
from torch.distributed.fsdp import fully_shard

def sharded():
    whole = model(0.0)
    for block in whole.blocks:
        fully_shard(block)
    return fully_shard(whole)

config = TrainConfig(epochs=3)
one = sharded()
history = train(one, "whole", config=config)
assert len(one.head.weight.to_local()) == 1  # of two rows
try:
    train(sharded(), "parts", config=config, on_epoch=stop)
except Stop:
    pass
again = sharded()
train(again, "parts", config=config, resume=True)
for a, b in zip(one.parameters(), again.parameters(), strict=True):
    assert torch.equal(a.full_tensor(), b.full_tensor())
try:
    train(sharded(), config=TrainConfig(epochs=1, ema=0.5))
    raise AssertionError("an average of sharded weights was made")
except ValueError as error:
    assert "ema" in str(error)
other = nn.parallel.DistributedDataParallel(model())
parallel = train(other, config=config)
difference = max(
    (a.full_tensor() - b).abs().max().item()
    for a, b in zip(one.parameters(), other.parameters(), strict=True)
)
if rank == 0:
    print(json.dumps([difference, history, parallel]))
""",
    )
    difference, history, parallel = json.loads(out.splitlines()[-1])
    assert difference < 1e-5
    for a, b in zip(history, parallel, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-5)
    same_run(tmp_path / "whole", tmp_path / "parts")
    # What is written are whole tensors, for any number of processes.
    assert kept(tmp_path / "whole", "model")["head.weight"].shape == (2, 8)
