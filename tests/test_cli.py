# SPDX-License-Identifier: MIT
"""python -m vitcore: what a newcomer types, what it prints, and how it fails."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitcore import __main__ as cli
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
    names = {path.name for path in trained.iterdir() if not path.name.startswith("best-")}
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
    for path in trained.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    options = ("--data", folder, "--out", tmp_path, "--epochs", "4", "--seed", "2", "--resume")
    assert train(*options) == 0
    one, other = (RunRecord.read(p / "record.json") for p in (trained, tmp_path))
    assert one.test_accuracy == other.test_accuracy
    assert one.wall_seconds == other.wall_seconds
    ours, theirs = (load_weights(p / "model.safetensors") for p in (trained, tmp_path))
    assert ours.metadata == theirs.metadata
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name])


def test_a_run_that_lost_its_weights_is_not_called_finished(trained, folder, tmp_path, capsys):
    options = ("--data", folder, "--out", tmp_path, "--epochs", "4", "--seed", "2", "--resume")
    shutil.copy(trained / "record.json", tmp_path)
    assert train(*options) == 2
    assert "neither its weights nor a checkpoint" in capsys.readouterr().err
    for path in (trained / "checkpoint.safetensors", *trained.glob("best-*.safetensors")):
        shutil.copy(path, tmp_path)
    assert train(*options) == 0
    assert "finished" not in capsys.readouterr().out
    ours, theirs = (load_weights(p / "model.safetensors") for p in (trained, tmp_path))
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
    assert "data.train was" in capsys.readouterr().err


def test_a_record_that_is_older_than_a_setting_still_counts(trained, folder, capsys, tmp_path):
    values = json.loads((trained / "record.json").read_text())
    del values["recipe"]["mix"], values["recipe"]["train"]["compile"]
    shutil.copy(trained / "model.safetensors", tmp_path)
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
        ({}, loaded.classes, "does not name a data set to test on"),
        ({"dataset": "folder"}, loaded.classes, "eval WEIGHTS MY_IMAGES"),
        ({"dataset": "mnist"}, list("abcdefghij"), "other classes"),
    ):
        path = tmp_path / "w.safetensors"
        save_weights(
            path, loaded.model, classes=classes, mean=loaded.mean, std=loaded.std, extra=extra
        )
        assert main(["eval", str(path), "--data", str(folder)]) == 2
        assert words in capsys.readouterr().err


def test_eval_refuses_images_that_training_saw(trained, folder, capsys, tmp_path):
    """On another division of the same images, a part of the test images was trained on."""
    with np.load(folder / "mnist.npz") as file:
        arrays = dict(file)
    for name in ("x", "y"):
        both = np.concatenate([arrays[f"{name}_test"], arrays[f"{name}_train"]])
        arrays[f"{name}_train"], arrays[f"{name}_test"] = both[:-300], both[-300:]
    np.savez(tmp_path / "mnist.npz", **arrays)
    words = ["eval", str(trained / "model.safetensors"), "--device", "cpu", "--data"]
    assert main([*words, str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "are among those that these weights were trained or chosen on" in err
    assert main([*words, str(tmp_path), "--allow-seen"]) == 0
    assert "some of which these weights were trained or chosen on" in capsys.readouterr().out
    assert main([*words, str(folder)]) == 0
    assert "trained" not in capsys.readouterr().out


def test_eval_says_where_it_does_not_know_what_was_seen(trained, folder, capsys, tmp_path):
    loaded = load_weights(trained / "model.safetensors")
    save_weights(
        tmp_path / "w.safetensors", loaded.model, classes=loaded.classes, mean=loaded.mean,
        std=loaded.std, extra={"dataset": "mnist"},
    )  # fmt: skip
    assert main(["eval", str(tmp_path / "w.safetensors"), "--data", str(folder)]) == 0
    assert "they do not say what they saw" in capsys.readouterr().out


def test_predict_prepares_digits_and_says_so(trained, folder, capsys, tmp_path):
    with np.load(folder / "mnist.npz") as arrays:
        digit = arrays["x_test"][0]
    Image.fromarray(digit).save(tmp_path / "light.png")
    Image.fromarray(255 - digit).convert("RGB").save(tmp_path / "ink.png")
    names = [str(tmp_path / name) for name in ("light.png", "ink.png")]
    weights = str(trained / "model.safetensors")
    assert main(["predict", weights, *names, "--device", "cpu"]) == 0
    light, ink = capsys.readouterr().out.splitlines()
    assert light.count("%") == 3
    assert "light ink" in light
    assert "dark ink" in ink
    guesses = [line.split(": ")[1].split(" (")[0] for line in (light, ink)]
    assert guesses[0] == guesses[1]
    # A model of other images gets them as they are.
    loaded = load_weights(weights)
    save_weights(
        tmp_path / "w.safetensors", loaded.model, classes=loaded.classes, mean=loaded.mean,
        std=loaded.std,
    )  # fmt: skip
    assert main(["predict", str(tmp_path / "w.safetensors"), names[1], "--device", "cpu"]) == 0
    assert "ink (" not in capsys.readouterr().out


def test_errors_are_one_sentence(trained, folder, capsys, tmp_path, monkeypatch):
    weights = str(trained / "model.safetensors")
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (["train", "cifar1000"], "no recipe for 'cifar1000'"),
        (["train", "mnist", "--recipe", "none"], "choose one of"),
        (["train", "mnist", "--epochs", "0"], "epochs"),
        (["train", "mnist", "--threads", "0"], "--threads"),
        (["train", "mnist", "--threads", "99999"], "this machine's cores"),
        (["train", "mnist", "--seed", str(10**30)], "seed"),
        (["train", "mnist", "--seed", "-1"], "seed"),
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
    def broken(*arguments):
        return torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setitem(cli.COMMANDS, "recipes", (broken, ""))
    with pytest.raises(RuntimeError):
        main(["recipes"])


def test_ctrl_c_tells_how_to_go_on_where_there_is_a_checkpoint(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", (interrupted, cli.COMMANDS["train"][1]))
    monkeypatch.setitem(cli.COMMANDS, "recipes", (interrupted, ""))
    assert main(["recipes"]) == 130
    assert main(["train", "mnist", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.split() == ["stopped.", "stopped."]
    (tmp_path / "checkpoint.safetensors").write_text("")
    assert main(["train", "mnist", "--out", str(tmp_path)]) == 130
    assert "with --resume goes on from there" in capsys.readouterr().err


def test_sigterm_ends_a_run_like_ctrl_c(folder, tmp_path):
    """A real signal to a real run; the same command with --resume then finishes it."""
    words = ["-m", "vitcore", "train", "mnist", "--data", str(folder), "--out", "out"]
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    epochs = ["--quick", "--epochs", "60"]
    with subprocess.Popen([sys.executable, "-u", *words, *epochs], **options) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        for line in run.stdout:
            if line.startswith("epoch"):
                run.send_signal(signal.SIGTERM)
                break
        run.stdout.read()
        said = run.stderr.read()
    assert run.returncode == 128 + signal.SIGINT, said
    # The signal arrives while an epoch trains, or while it is being kept.
    assert re.search(
        r"stopped with \d+ of 60 epochs finished; .*checkpoint.safetensors keeps \d+ of them", said
    )
    assert said.splitlines()[-1] == "The same command with --resume goes on from there."


def test_threads(monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert main(["train", "none", "--threads", "1"]) == 2
    assert main(["train", "none", "--threads", str(os.cpu_count())]) == 2
    assert seen == [1, os.cpu_count()]


# --- a folder of one's own images, modules of one's own --------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of bright and dark pictures of 40 x 50 pixels."""
    folder = tmp_path_factory.mktemp("pictures") / "my_images"
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("bright", 180)):
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(level - 50, level + 50, (50, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_a_folder_is_trained_tested_and_named(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "folder", str(pictures), "--device", "cpu", "--epochs", "30"]
    assert main(words) == 0
    record = RunRecord.read(tmp_path / "out" / "my_images-seed0" / "record.json")
    assert record.command.startswith("python -m vitcore train folder MY_IMAGES --device cpu")
    assert (record.split, record.recipe["name"]) == ("own", "folder")
    assert record.recipe["model"]["image_size"] == 40  # the shorter side, a multiple of 8
    assert record.recipe["model"]["patch_size"] == 5
    assert record.test_accuracy > 0.9
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err

    weights = str(tmp_path / "out" / "my_images-seed0" / "model.safetensors")
    assert main(["eval", weights, str(pictures), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"test accuracy {record.test_accuracy:.4f}" in out
    assert f"on {record.test_images} images" in out
    picture = str(pictures / "dark" / "0.png")
    assert main(["predict", weights, picture, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: dark ")


def test_folders_are_given_where_they_belong(pictures, trained, tmp_path, capsys):
    for words, said in (
        (["train", "folder"], "train folder MY_IMAGES"),
        (["train", "mnist", str(pictures)], "train folder MY_IMAGES"),
        (["train", "folder", str(tmp_path / "none")], "there is no directory"),
        (["train", "folder", str(pictures), "--quick"], "--epochs 1"),
        (["train", "folder", str(pictures), "--recipe", "mnist"], "does not divide into patches"),
        (["train", "folder", str(pictures), "--recipe", "none"], "no recipe 'none'"),
        (["eval", str(trained / "model.safetensors"), str(pictures)], "other classes"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


MINE = """
from torch import nn
from vitcore import Attention, PatchEmbed, register_attention, register_patch_embed
from vitcore.recipes import RECIPES, Recipe


@register_attention("of-my-own")
class Mine(Attention):
    pass


@register_patch_embed("cut-by-me")
class Cut(PatchEmbed):
    pass


values = RECIPES["mnist"].to_dict() | {"name": "mnist-mine", "images": [64, 32, 32]}
values["model"] |= {"attention": "of-my-own", "patch_embed": "cut-by-me", "dim": 16, "depth": 1}
values["train"] |= {"epochs": 1, "batch_size": 16}
RECIPES["mnist-mine"] = Recipe.from_dict(values)
"""


def test_a_module_of_ones_own_is_imported(folder, tmp_path, monkeypatch, capsys):
    """In processes of their own, which know nothing of the module unless it is imported."""
    (tmp_path / "my_module.py").write_text(MINE)

    def vitcore(*words):
        return subprocess.run(
            [sys.executable, "-m", "vitcore", *words, "--device", "cpu"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "VITCORE_DATA": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )

    mine = ("--import", "my_module")
    done = vitcore("train", "mnist", "--recipe", "mine", "--out", "out", *mine)
    assert done.returncode == 0, done.stderr
    done = vitcore("eval", "out/model.safetensors", *mine)
    assert done.returncode == 0, done.stderr
    done = vitcore("eval", "out/model.safetensors")
    assert done.returncode == 2
    assert "is 'cut-by-me'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert main(["recipes", "--import", "no_such_module"]) == 2
    assert "start in the folder that holds it" in capsys.readouterr().err


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
import vitbook.ladders
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
