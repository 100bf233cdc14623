# SPDX-License-Identifier: MIT
"""Training survives being killed and interrupted at any moment."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file
from training_helpers import (
    ROOT,
    run_content,
    same_run,
    same_weights,
)

KILLS = r"""
import contextlib, json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from vitcore.__main__ import main
from vitcore import recipes  # imported once, so that a child is training at once

data, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
draw = random.Random(seed)

def start(out):
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            code = main(["train", "mnist", "--quick", "--epochs", "5", "--data", data,
                         "--out", out, "--resume", "--device", "cpu"])
        os._exit(code)
    return child

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

begun = time.perf_counter()
assert end(start(f"{folder}/unbroken")) == 0
whole = time.perf_counter() - begun
kills, chain, moments = 0, 0, []
while kills < 10:
    out = f"{folder}/chain{chain}"
    child = start(out)
    moment = draw.uniform(0, 0.6 * whole)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    if end(child) == -signal.SIGKILL:
        kills += 1
        moments.append(round(moment, 3))
        continue
    chain += 1
child = start(out)
assert end(child) == 0
print(json.dumps({"chains": chain + 1, "whole": round(whole, 2), "moments": moments}))
"""


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory):
    """A folder with an mnist.npz that is drawn, of which a quick run takes a part."""
    from vitcore.data import _standin

    folder = tmp_path_factory.mktemp("data")
    arrays = _standin.generate("mnist", train=6200, test=300)
    np.savez(folder / "mnist.npz", **arrays)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_ten_kills_end_in_the_weights_of_the_unbroken_run(tmp_path, small_npz):
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments are drawn from seed {seed}")
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(small_npz), str(tmp_path), str(seed)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["moments"]) == 10
    for i in range(report["chains"]):
        same_run(tmp_path / f"chain{i}", tmp_path / "unbroken")
        same_weights(
            load_file(tmp_path / f"chain{i}" / "model.safetensors"),
            load_file(tmp_path / "unbroken" / "model.safetensors"),
        )


def test_ctrl_c_at_the_command_line(tmp_path, small_npz):
    places = ["--data", str(small_npz), "--out", str(tmp_path / "out"), "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-m", "vitcore", "train", "mnist", "--quick", "--epochs", "1000", *places],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell gives what it starts in the background a SIGINT that is ignored, and children
        # inherit that: without this line the test would wait for ever there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch"):
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert "checkpoint.safetensors" in err
    assert run_content(tmp_path / "out")[1]["history"]
