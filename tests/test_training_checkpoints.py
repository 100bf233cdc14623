# SPDX-License-Identifier: MIT
"""vitcore.training.checkpoints: a resumed run repeats the unbroken one."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_helpers import (
    CONFIG,
    Stop,
    batches,
    needs_muon,
    run,
    run_content,
    same_run,
    same_weights,
    stop_at,
    tiny_vit,
)

from vitcore.training import (
    CHECKPOINT,
    History,
    TrainConfig,
    TrainingInterrupted,
    fit,
    set_seed,
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    return (out, *run(out))


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 1), (1, 0), (3, 2), (4, 2)])
def test_a_resumed_run_repeats_the_unbroken_one(tmp_path, unbroken, epoch, step):
    with pytest.raises(Stop):
        run(tmp_path, before=stop_at(epoch, step, Stop()))
    # Whatever the process drew meanwhile must not matter.
    set_seed(99)
    model, history = run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])
    same_weights(model.state_dict(), unbroken[1].state_dict())
    assert len(history) == 5


@needs_muon
def test_a_resumed_run_with_two_optimisers_repeats_the_unbroken_one(tmp_path):
    config = TrainConfig(**{**CONFIG.to_dict(), "optimizer": "muon", "epochs": 3})
    whole, _ = run(tmp_path / "whole", config=config)
    with pytest.raises(Stop):
        run(tmp_path / "parts", config=config, before=stop_at(2, 1, Stop()))
    set_seed(99)
    resumed, _ = run(tmp_path / "parts", config=config, resume=True)
    same_run(tmp_path / "parts", tmp_path / "whole")
    same_weights(resumed.state_dict(), whole.state_dict())
    tensors, content = run_content(tmp_path / "whole")
    assert len(content["optimizers"]) == 2
    assert {name.split(".")[-1] for name in tensors if name.startswith("optimizer.0.")} == {
        "momentum_buffer"
    }
    assert any(name.startswith("optimizer.1.") and name.endswith("exp_avg_sq") for name in tensors)
    # A run of one optimiser is another run.
    with pytest.raises(ValueError, match=r"config\.optimizer"):
        run(
            tmp_path / "parts",
            config=TrainConfig(**{**config.to_dict(), "optimizer": "adamw"}),
            resume=True,
        )


def test_random_numbers_matter_in_that_comparison(tmp_path, unbroken):
    """The comparison above would be worth nothing if another seed gave the same run."""
    run(tmp_path, config=TrainConfig(**{**CONFIG.to_dict(), "seed": 1}))
    with pytest.raises(AssertionError):
        same_run(tmp_path, unbroken[0])


def test_a_finished_run_is_not_trained_again(tmp_path, unbroken):
    run(tmp_path)
    model, history = run(tmp_path, resume=True, before=stop_at(0, 0, Stop()))
    same_weights(model.state_dict(), unbroken[1].state_dict())
    assert [r["val_loss"] for r in history] == [r["val_loss"] for r in unbroken[2]]
    assert history.seconds == run_seconds(tmp_path)


def run_seconds(out):
    from safetensors import safe_open

    with safe_open(Path(out) / CHECKPOINT, "pt") as file:
        return sum(r["seconds"] for r in json.loads(file.metadata()["content"])["history"])


def test_resume_starts_where_there_is_nothing(tmp_path, unbroken):
    run(tmp_path / "new", resume=True)
    same_run(tmp_path / "new", unbroken[0])


def test_ctrl_c_saves(tmp_path, unbroken):
    model = tiny_vit(drop_path=0.3)
    with pytest.raises(
        TrainingInterrupted, match=r"epoch 4 of 5.*3 finished.*checkpoint"
    ) as caught:
        run(tmp_path, before=stop_at(3, 1, KeyboardInterrupt()), model=model)
    assert isinstance(caught.value, KeyboardInterrupt)
    best = History(run_content(tmp_path)[1]["history"]).best["epoch"]
    assert best <= 3
    kept = {k[5:]: v for k, v in run_content(tmp_path)[0].items() if k.startswith("best.")}
    same_weights(model.state_dict(), kept)
    run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])


@pytest.mark.parametrize(("epoch", "words"), [(0, "no epoch was finished"), (2, "best weights")])
def test_ctrl_c_without_a_folder(epoch, words):
    with pytest.raises(TrainingInterrupted, match=words):
        run(None, before=stop_at(epoch, 1, KeyboardInterrupt()))


def test_a_run_is_not_overwritten(tmp_path):
    run(tmp_path)
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(tmp_path)


def test_resume_says_what_differs(tmp_path):
    def resume(**options):
        with pytest.raises(ValueError, match="cannot resume") as caught:
            run(tmp_path, resume=True, **options)
        return str(caught.value)

    run(tmp_path, metadata={"recipe": {"augment": "digits"}, "data": "abc"})
    same = {"recipe": {"augment": "digits"}, "data": "abc"}
    before = (tmp_path / CHECKPOINT).read_bytes()
    changed = TrainConfig(**{**CONFIG.to_dict(), "lr": 1e-3, "seed": 2})
    text = resume(config=changed, metadata=same)
    assert "config.lr was 0.003 and is 0.001 now; config.seed was 0 and is 2 now" in text
    assert "\n" not in text
    assert "metadata.data was" in resume(metadata={**same, "data": "abd"})
    text = resume(metadata={**same, "recipe": {"augment": None}})
    assert 'metadata.recipe.augment was "digits" and is null now' in text
    with pytest.raises(ValueError, match="steps_per_epoch was 3 and is 2 now"):
        fit(
            tiny_vit(drop_path=0.3),
            batches(32),
            batches(),
            CONFIG,
            device="cpu",
            out=tmp_path,
            resume=True,
            metadata=same,
        )
    assert "model.head.weight was [3, 8]" in resume(
        metadata=same, model=tiny_vit(drop_path=0.3, num_classes=4)
    )
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_resume_refuses_what_is_no_checkpoint(tmp_path):
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        run(tmp_path, resume=True)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        run(tmp_path, resume=True)
