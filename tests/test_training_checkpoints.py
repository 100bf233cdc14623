# SPDX-License-Identifier: MIT
"""vitcore.training.checkpoints: a resumed run repeats the unbroken one."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from training_helpers import (
    CONFIG,
    Stop,
    batches,
    kept,
    run,
    run_content,
    same_run,
    same_weights,
    stop_at,
    tiny_vit,
    toy,
)

from vitcore.training import (
    CHECKPOINT,
    History,
    TrainConfig,
    TrainingInterrupted,
    cross_entropy,
    fit,
    set_seed,
)
from vitcore.training.checkpoints import Checkpoint
from vitcore.training.files import read_tensors, write_tensors


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
    assert len(content["optimizer"]) == 2
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
        TrainingInterrupted, match=r"with 3 of 5 epochs.*checkpoint.* keeps 3 of"
    ) as caught:
        run(tmp_path, before=stop_at(3, 1, KeyboardInterrupt()), model=model)
    assert isinstance(caught.value, KeyboardInterrupt)
    best = History(run_content(tmp_path)[1]["history"]).best["epoch"]
    assert best <= 3
    same_weights(model.state_dict(), kept(tmp_path, "best"))
    assert not any(module.training for module in model.modules())
    assert f"the weights in the model are those of epoch {best}." in str(caught.value)
    run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])


@pytest.mark.parametrize(("epoch", "words"), [(0, "as they were"), (2, "those of epoch [12]")])
def test_ctrl_c_without_a_folder(epoch, words):
    model = tiny_vit(drop_path=0.3)
    with pytest.raises(TrainingInterrupted, match=rf"nothing is on disk; .* model are {words}\."):
        run(None, before=stop_at(epoch, 1, KeyboardInterrupt()), model=model)
    assert not model.training
    if not epoch:  # one step was taken, and is taken back, as the message says
        same_weights(model.state_dict(), tiny_vit(drop_path=0.3).state_dict())


def test_the_message_of_ctrl_c_counts_what_is_on_disk(tmp_path, monkeypatch):
    def interrupt(row, model):
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted, match=r"1 of 5 epochs finished; .* keeps 1 of"):
        run(tmp_path / "a", on_epoch=interrupt)
    write = Checkpoint.write

    def interrupted(self, state, *rest, **options):
        if len(state.history) == 2:
            raise KeyboardInterrupt
        write(self, state, *rest, **options)

    monkeypatch.setattr(Checkpoint, "write", interrupted)
    with pytest.raises(TrainingInterrupted, match=r"2 of 5 epochs finished; .* keeps 1 of"):
        run(tmp_path / "b")
    assert len(run_content(tmp_path / "b")[1]["history"]) == 1


def test_sigterm_ends_like_ctrl_c(tmp_path, unbroken):
    def terminate(epoch, step):
        if (epoch, step) == (3, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted, match=r"3 of 5 epochs finished; .* keeps 3 of"):
        run(tmp_path, before=terminate)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])


def test_sigterm_of_the_users_own_stays():
    calls = []

    def terminate(epoch, step):
        if (epoch, step) == (0, 1):
            os.kill(os.getpid(), signal.SIGTERM)

    earlier = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    try:
        run(None, before=terminate)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert calls == [1]
    # Elsewhere than in the main thread no handler can be set, and none is needed.
    done = []
    thread = threading.Thread(target=lambda: done.append(run(None)))
    thread.start()
    thread.join()
    assert len(done[0][1]) == 5


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


class Items(torch.utils.data.Dataset):
    """Images that a worker shifts at random."""

    def __init__(self, classes=3, seed=0):
        self.images, self.targets = toy(40, classes, seed)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.images[index] + 0.1 * torch.rand(1), self.targets[index]


def load(out, *, config=CONFIG, resume=False, stop=None, data=None, workers=0, **options):
    """A run over a DataLoader with a generator, which a new process seeds anew."""
    loader = torch.utils.data.DataLoader(
        data or Items(),
        batch_size=16,
        shuffle=True,
        generator=torch.Generator().manual_seed(5 if stop is None else 6),
        num_workers=workers,
        persistent_workers=workers > 0 and options.pop("persistent", False),
    )

    def check(row, model):
        if row["epoch"] == stop:
            raise Stop

    fit(
        tiny_vit(),
        loader,
        batches(30, size=20, seed=9),
        config,
        device="cpu",
        out=out,
        resume=resume,
        progress=False,
        on_epoch=check,
        **options,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_generator_of_a_loader_is_resumed(tmp_path, workers):
    config = dataclasses.replace(CONFIG, epochs=3)
    with pytest.raises(Stop):
        load(tmp_path / "whole", stop=1, workers=workers, config=config)
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    with pytest.raises(Stop):
        load(tmp_path / "parts", resume=True, stop=2, workers=workers, config=config)
    load(tmp_path / "parts", resume=True, workers=workers, config=config)
    load(tmp_path / "whole", resume=True, workers=workers, config=config)
    same_run(tmp_path / "parts", tmp_path / "whole")


def test_what_cannot_be_promised_is_said(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=2)
    with pytest.raises(Stop):
        load(tmp_path, stop=1, workers=1, persistent=True, config=config)
    with pytest.warns(UserWarning, match="persistent_workers=False makes it exact"):
        load(tmp_path, resume=True, workers=1, persistent=True, config=config)


def scaled(logits, targets, factor):
    return factor * cross_entropy(logits, targets)


def by_two(logits, targets):
    return 2 * cross_entropy(logits, targets)


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({}, {"loss": by_two}, 'loss was "cross_entropy" and is "by_two" now'),
        (
            {"loss": nn.CrossEntropyLoss()},
            {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
            "loss",
        ),
        (
            {"loss": functools.partial(scaled, factor=2)},
            {"loss": functools.partial(scaled, factor=3)},
            "loss",
        ),
        (
            {"loss": lambda z, y: cross_entropy(z, y)},
            {"loss": lambda z, y: cross_entropy(z, y).exp()},
            "loss",
        ),
        ({}, {"metric": lambda z, y: (z.argmax(1) != y).float()}, "metric"),
        ({}, {"data": Items(seed=1)}, "data.train"),
        ({}, {"data": torch.utils.data.Subset(Items(), [1, *range(1, 40)])}, "data.train"),
    ],
)
def test_resuming_with_another_loss_or_other_data_is_refused(tmp_path, then, now, words):
    config = dataclasses.replace(CONFIG, epochs=2, label_smoothing=0)
    with pytest.raises(Stop):
        load(tmp_path, stop=1, config=config, **then)
    with pytest.raises(ValueError, match="cannot resume") as caught:
        load(tmp_path, resume=True, config=config, **now)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    load(tmp_path, resume=True, config=config, **then)


def test_a_loader_without_the_generator_is_refused(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=2)
    with pytest.raises(Stop):
        load(tmp_path, stop=1, config=config)
    loader = torch.utils.data.DataLoader(Items(), batch_size=16, shuffle=True)
    val = batches(30, size=20, seed=9)
    with pytest.raises(ValueError, match="generators was 1 and is 0 now"):
        fit(tiny_vit(), loader, val, config, device="cpu", out=tmp_path, resume=True)


def test_another_model_of_the_same_shapes_is_refused(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, before=stop_at(1, 0, Stop()))
    with pytest.raises(ValueError, match=r"architecture\.heads was 2 and is 4 now"):
        run(tmp_path, resume=True, model=tiny_vit(drop_path=0.3, heads=4))


def test_a_checkpoint_without_all_of_its_tensors_is_refused(tmp_path):
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    tensors, metadata = read_tensors(path, "checkpoint")
    name = next(name for name in tensors if name.endswith("exp_avg"))
    del tensors[name]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="checksum"):
        run(tmp_path, resume=True)
    write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="lacks the tensor"):
        run(tmp_path, resume=True)


def planned(accuracies):
    """A metric of validation that gives these values, one an epoch."""
    epoch = {"now": 0}

    def metric(logits, targets):
        return torch.full((len(targets),), accuracies[epoch["now"]])

    def count(row, model):
        epoch["now"] += 1

    return {"metric": metric, "on_epoch": count}


def test_the_best_weights_are_written_once(tmp_path, monkeypatch):
    written = []

    def write(path, tensors, metadata):
        written.append(path.name)
        return write_tensors(path, tensors, metadata)

    monkeypatch.setattr("vitcore.training.checkpoints.write_tensors", write)
    model, history = run(tmp_path, **planned([0.1, 0.9, 0.3, 0.4, 0.5]))
    assert history.best["epoch"] == 2
    assert [name for name in written if name.startswith("best")] == ["best-2.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-2.safetensors", CHECKPOINT]
    same_weights(model.state_dict(), kept(tmp_path, "best"))
    # No tensor is in the folder twice.
    names = [name.split(".")[0] for name in load_file(tmp_path / CHECKPOINT)]
    assert set(names) == {"model", "average", "optimizer", "random"}
    resumed, _ = run(tmp_path, resume=True, **planned([]))
    same_weights(resumed.state_dict(), model.state_dict())
    # A later best epoch takes its place.
    run(tmp_path / "later", **planned([0.8, 0.1, 0.9, 0.3, 0.4]))
    names = sorted(p.name for p in (tmp_path / "later").iterdir())
    assert names == ["best-3.safetensors", CHECKPOINT]
    (tmp_path / "best-2.safetensors").write_bytes(
        (tmp_path / "later" / "best-3.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="belongs to another run"):
        run(tmp_path, resume=True, **planned([]))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_beside_the_best_weights_loses_nothing(tmp_path, monkeypatch, moment):
    """Killed between the file of the best weights and the checkpoint that names it."""
    plan = [0.1, 0.9, 0.3, 0.95, 0.5]
    whole, _ = run(tmp_path / "whole", **planned(plan))

    def write(path, tensors, metadata):
        if moment == "before" and path.name == "best-2.safetensors":
            raise Stop
        checksum = write_tensors(path, tensors, metadata)
        if moment == "after" and path.name == "best-2.safetensors":
            raise Stop
        return checksum

    monkeypatch.setattr("vitcore.training.checkpoints.write_tensors", write)
    with pytest.raises(Stop):
        run(tmp_path / "parts", **planned(plan))
    monkeypatch.undo()
    resumed, _ = run(tmp_path / "parts", resume=True, **planned(plan[2:]))
    same_weights(resumed.state_dict(), whole.state_dict())
    same_weights(kept(tmp_path / "parts", "best"), kept(tmp_path / "whole", "best"))
