# SPDX-License-Identifier: MIT
"""python -m vitcore: what a newcomer types, what it prints, and how it fails."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitcore.__main__ import main
from vitcore.records import RunRecord
from vitcore.training import load_weights, save_weights

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a drawn mnist.npz."""
    from vitcore.data import _standin

    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "mnist.npz", **_standin.generate("mnist", train=6200, test=300))
    return folder


def train(*options):
    return main(["train", "mnist", "--quick", "--device", "cpu", *map(str, options)])


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    assert train("--data", folder, "--out", out, "--epochs", "4", "--seed", "2") == 0
    return out


def test_train_writes_weights_and_record(trained, folder):
    names = {path.name for path in trained.iterdir()}
    assert names == {"model.safetensors", "record.json", "checkpoint.safetensors"}
    record = RunRecord.read(trained / "record.json")
    assert record.seed == 2
    assert len(record.epochs) == 4
    assert record.recipe["train"]["seed"] == 2
    assert "train mnist --quick --device cpu --data DATA --out OUT --epochs 4" in record.command
    text = (trained / "record.json").read_text()
    for place in (str(folder), str(trained), str(ROOT)):
        assert place not in text


def test_precision_on_the_command_line(folder, tmp_path):
    out = tmp_path / "out"
    assert train("--data", folder, "--out", out, "--epochs", "1", "--precision", "bf16") == 0
    record = RunRecord.read(out / "record.json")
    assert record.precision == record.recipe["train"]["precision"] == "bf16"


def test_a_run_is_neither_overwritten_nor_repeated(trained, folder, capsys, tmp_path):
    before = (trained / "record.json").read_bytes()
    where = ("--data", folder, "--out", trained, "--epochs", "4")
    assert train(*where, "--seed", "2") == 2
    assert "--resume" in capsys.readouterr().err
    assert train(*where, "--seed", "2", "--resume") == 0
    assert "finished" in capsys.readouterr().out
    assert train(*where, "--seed", "3", "--resume") == 2
    assert "another recipe, seed or data" in capsys.readouterr().err
    assert (trained / "record.json").read_bytes() == before


def test_a_run_that_lost_its_record_writes_it_again(trained, folder, tmp_path):
    for name in ("checkpoint.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    options = ("--data", folder, "--out", tmp_path, "--epochs", "4", "--seed", "2", "--resume")
    assert train(*options) == 0
    one, other = (RunRecord.read(p / "record.json") for p in (trained, tmp_path))
    assert one.test_accuracy == other.test_accuracy
    assert one.wall_seconds == other.wall_seconds
    ours, theirs = (load_weights(p / "model.safetensors") for p in (trained, tmp_path))
    assert ours.metadata == theirs.metadata
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])


def test_resume_of_other_data_is_refused(trained, tmp_path, capsys):
    from vitcore.data import _standin

    arrays = _standin.generate("mnist", train=6200, test=300)
    arrays["x_train"] = np.ascontiguousarray(arrays["x_train"][::-1])
    arrays["y_train"] = np.ascontiguousarray(arrays["y_train"][::-1])
    arrays["x_train"][:, 0, 0] ^= 1
    np.savez(tmp_path / "mnist.npz", **arrays)
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes((trained / "checkpoint.safetensors").read_bytes())
    options = ("--data", tmp_path, "--out", out, "--epochs", "4", "--seed", "2", "--resume")
    assert train(*options) == 2
    assert "metadata.data was" in capsys.readouterr().err


def test_a_record_that_is_older_than_a_setting_still_counts(trained, folder, capsys, tmp_path):
    values = json.loads((trained / "record.json").read_text())
    del values["recipe"]["mix"], values["recipe"]["train"]["compile"]
    (tmp_path / "record.json").write_text(json.dumps(values))
    options = ("--data", folder, "--out", tmp_path, "--epochs", "4", "--seed", "2", "--resume")
    assert train(*options) == 0
    assert "finished" in capsys.readouterr().out


def test_cifar100_by_the_name_of_its_rung(tmp_path, capsys, monkeypatch):
    from vitcore import recipes
    from vitcore.data import _standin

    np.savez(tmp_path / "cifar100.npz", **_standin.generate("cifar100", train=6200, test=300))
    values = recipes.RECIPES["cifar100-cpu"].to_dict()
    values["model"] |= {"dim": 16, "depth": 1, "heads": 2}
    smaller = recipes.Recipe.from_dict({**values, "images": [200, 100, 100]})
    monkeypatch.setitem(recipes.RECIPES, "cifar100-cpu", smaller)
    out = tmp_path / "out"
    places = ["--data", str(tmp_path), "--out", str(out), "--device", "cpu"]
    assert main(["train", "cifar100", "--recipe", "cpu", "--quick", *places]) == 0
    printed = capsys.readouterr().out
    assert "recipe cifar100-cpu, seed 0, on cpu, fp32" in printed
    for words in ("test coarse accuracy 0.", "test top5 accuracy 0.", "test calibration error 0."):
        assert words in printed
    assert RunRecord.read(out / "record.json").more["coarse_accuracy"] >= 0


def test_eval(trained, folder, capsys):
    weights = str(trained / "model.safetensors")
    assert main(["eval", weights, "--data", str(folder), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "on 300 images" in out
    assert "test accuracy 0." in out


def test_eval_refuses_other_weights(trained, folder, capsys, tmp_path):
    loaded = load_weights(trained / "model.safetensors")
    for extra, classes, words in (
        ({}, loaded.classes, "does not say which data set"),
        ({"dataset": "mnist"}, list("abcdefghij"), "other classes"),
    ):
        path = tmp_path / "w.safetensors"
        save_weights(
            path, loaded.model, classes=classes, mean=loaded.mean, std=loaded.std, extra=extra
        )
        assert main(["eval", str(path), "--data", str(folder)]) == 2
        assert words in capsys.readouterr().err


def test_predict_gives_three_guesses_and_inverts_ink(trained, folder, capsys, tmp_path):
    with np.load(folder / "mnist.npz") as arrays:
        digit = arrays["x_test"][0]
    Image.fromarray(digit).save(tmp_path / "light.png")
    Image.fromarray(255 - digit).convert("RGB").save(tmp_path / "ink.png")
    Image.fromarray(np.kron(digit, np.ones((3, 3), np.uint8))).save(tmp_path / "large.png")
    names = [str(tmp_path / name) for name in ("light.png", "ink.png", "large.png")]
    assert main(["predict", str(trained / "model.safetensors"), *names, "--device", "cpu"]) == 0
    light, ink, large = capsys.readouterr().out.splitlines()
    assert light.count("%") == 3
    assert "inverted" not in light
    assert "inverted" not in large
    assert "inverted" in ink
    guesses = [line.split(": ")[1].split(" (")[0] for line in (light, ink)]
    assert guesses[0] == guesses[1]


def test_errors_are_one_sentence(trained, folder, capsys, tmp_path, monkeypatch):
    weights = str(trained / "model.safetensors")
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (["train", "cifar1000"], "no recipe for 'cifar1000'"),
        (["train", "mnist", "--recipe", "none"], "choose one of"),
        (["train", "mnist", "--epochs", "0"], "epochs"),
        (["train", "mnist", "--threads", "0"], "--threads"),
        (["train", "mnist", "--device", "quantum"], "unknown device"),
        (["train", "mnist", "--data", str(tmp_path / "none")], "no directory"),
        (["train", "mnist", "--out", str(tmp_path / "file")], "must be a folder"),
        (["eval", str(tmp_path / "none.safetensors")], "no weights file"),
        (["eval", str(tmp_path / "file")], "not a complete safetensors"),
        (["predict", weights, str(tmp_path / "none.png")], "there is no file"),
        (["predict", weights, str(tmp_path / "file")], "file"),
    ):
        assert main(arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert words in err, err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert out == ""


def test_a_fault_of_our_own_shows_where_it_is(monkeypatch):
    from vitcore import __main__ as cli

    def broken(*arguments):
        return torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr(cli, "_recipes", broken)
    with pytest.raises(RuntimeError):
        main(["recipes"])


def test_ctrl_c(monkeypatch, capsys):
    from vitcore import __main__ as cli

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_train", interrupted)
    monkeypatch.setattr(cli, "_recipes", interrupted)
    assert main(["train", "mnist"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert main(["recipes"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_threads(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert main(["train", "none", "--threads", "1"]) == 2
    assert seen == [1]


def test_recipes_are_listed(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "mnist-long" in out
    assert "patch 7" in out


@pytest.mark.parametrize("command", [[], ["train"], ["eval"], ["predict"], ["recipes"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "python -m vitcore" in out
    assert max(map(len, out.splitlines())) <= 100
    if command == ["train"]:
        for words in ("--resume", "--stand-in", "--recipe", "examples:", "record.json"):
            assert words in out


def test_wrong_usage(capsys):
    for arguments in ([], ["fly"], ["train"], ["train", "mnist", "--epoch", "3"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_as_a_command_on_the_stand_in(tmp_path):
    """The documented command in an empty folder, with no images anywhere."""
    options = ["train", "mnist", "--stand-in", "--quick", "--epochs", "1", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "vitcore", *options],
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("VITCORE")},
            "VITCORE_CACHE": os.environ["VITCORE_CACHE"],  # a drawn stand-in may be there already
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "stand-in" in done.stdout
    record = json.loads((tmp_path / "out" / "mnist-quick-seed0" / "record.json").read_text())
    assert record["split"] == "stand-in"


# --- several processes -----------------------------------------------------------------------

TORCHRUN = """
import sys
import torch
torch.set_num_threads(1)
from vitcore import recipes
from vitcore.__main__ import main
values = recipes.RECIPES["cifar100-plain"].to_dict()
values["model"] |= {"dim": 16, "depth": 1, "heads": 2, "patch_size": 8}
values["train"] |= {"precision": "fp32", "batch_size": 32, "epochs": 2, "ema": 0.9}
values |= {"name": "cifar100-small", "images": [256, 101, 103]}
recipes.RECIPES["cifar100-small"] = recipes.Recipe.from_dict(values)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with a drawn cifar100.npz, and a program that knows a small recipe for it."""
    from vitcore.data import _standin

    folder = tmp_path_factory.mktemp("photographs")
    np.savez(folder / "cifar100.npz", **_standin.generate("cifar100", train=6200, test=300))
    (folder / "program.py").write_text(TORCHRUN)
    return folder


def small_run(folder, out, *start):
    arguments = ["train", "cifar100", "--recipe", "small", "--data", str(folder)]
    places = ["--out", str(out), "--device", "cpu"]
    return subprocess.run(
        [sys.executable, *start, str(folder / "program.py"), *arguments, *places],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="needs gloo",
)
def test_two_processes_by_torchrun(photographs, tmp_path, monkeypatch, capsys):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = small_run(photographs, tmp_path / "two", *torchrun)
    assert done.returncode == 0, done.stderr
    # Rank 0 alone prints and writes.
    assert done.stdout.count("test accuracy") == 1
    assert len([line for line in done.stdout.splitlines() if line.startswith("epoch")]) == 2
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"model.safetensors", "record.json", "checkpoint.safetensors"}
    two = RunRecord.read(tmp_path / "two" / "record.json")
    assert two.command.startswith("torchrun --nproc-per-node 2 -m vitcore train cifar100 --recipe")
    assert two.hardware["processes"] == 2

    # The same in this process, which is a group of one, with the same images in every batch.
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setattr(sys, "argv", ["program"])
    from vitcore import recipes

    recipe = recipes.Recipe.from_dict({**two.recipe, "name": "cifar100-small"})
    monkeypatch.setitem(recipes.RECIPES, "cifar100-small", recipe)
    arguments = ["train", "cifar100", "--recipe", "small", "--data", str(photographs)]
    assert main([*arguments, "--out", str(tmp_path / "one"), "--device", "cpu"]) == 0
    assert not torch.distributed.is_initialized()
    one = RunRecord.read(tmp_path / "one" / "record.json")
    assert one.command.startswith("python -m vitcore train cifar100")
    for ours, theirs in zip(two.epochs, one.epochs, strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-4)
    # Every test image counts once, on whichever process.
    assert two.test_images == one.test_images == 103
    assert two.test_loss == pytest.approx(one.test_loss, abs=1e-4)
    assert two.confusion == one.confusion
    assert two.more == pytest.approx(one.more, abs=1e-4)


def test_what_cannot_be_shared_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    assert main(["train", "mnist", "--device", "cpu"]) == 2
    assert "several processes cannot train on cpu" in capsys.readouterr().err
