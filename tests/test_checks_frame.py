# SPDX-License-Identifier: MIT
"""The frame of the checks: what a reader sees of a failed one, what is handed over, and manners."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from answers import attend
from check_helpers import ALL_CHECKS
from core_helpers import small_images, small_vit
from exercises import TABLE
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from torch import nn

import vitbook
from vitbook import checks
from vitbook.checks import CheckFailed
from vitbook.checks.frame import call, compare_counts, replaced, without
from vitcore import Attention, Block, Mlp, ViT

ROOT = Path(vitbook.__file__).parent.parent
# A wrong answer to an exercise whose check holds the right one in its lines, and a broken one.
WRONG = "def token_index(row, column, grid):\n    return row * grid[0] + column\n"
BROKEN = (
    "def token_index(row, column, grid):\n    place = row * grid[1]\n    return place + columns\n"
)
CALL = "checks.check_token_index(token_index)\n"
SECRETS = ["r * columns + c", "each(", "compare_counts", "_failure_of", "judge("]


def in_a_kernel(source):
    """Run cells in a kernel; return what the last one shows as its error."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in ("from vitbook import checks", source)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    with pytest.raises(CellExecutionError):
        client.execute()
    (error,) = notebook.cells[1].outputs
    return error, re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback))


def run(arguments, folder):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_notebook_shows_the_message_alone():
    error, shown = in_a_kernel(WRONG + CALL)
    assert error.ename == "CheckFailed"
    assert shown.startswith("CheckFailed: a whole row of patches")
    assert "\n" not in shown


def test_a_notebook_shows_the_readers_own_line():
    error, shown = in_a_kernel(BROKEN + CALL)
    assert error.ename == "CheckFailed"
    assert "place + columns" in shown
    assert "Cell In" in shown
    assert "CheckFailed: your code raised NameError: name 'columns' is not defined" in shown
    assert not [secret for secret in SECRETS if secret in shown]
    assert "frame.py" not in shown


def test_a_terminal_shows_the_message_and_the_line_that_called(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from vitbook import checks\n" + WRONG + CALL)
    done = run(["script.py"], tmp_path)
    assert done.returncode == 1
    assert "CheckFailed: a whole row of patches" in done.stderr
    assert "checks.check_token_index(token_index)" in done.stderr
    assert not [secret for secret in SECRETS if secret in done.stderr]
    assert len(done.stderr.splitlines()) <= 8
    script.write_text("from vitbook import checks\n" + BROKEN + CALL)
    done = run(["script.py"], tmp_path)
    assert "place + columns" in done.stderr
    assert "CheckFailed: your code raised NameError" in done.stderr
    assert not [secret for secret in SECRETS if secret in done.stderr]


def test_pytest_shows_the_message_and_the_line_that_called(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        f"from vitbook import checks\n{WRONG}\n\ndef test_mine():\n    {CALL}"
    )
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"], tmp_path)
    assert done.returncode == 1
    assert "CheckFailed: a whole row of patches" in done.stdout
    assert "checks.check_token_index(token_index)" in done.stdout
    assert not [secret for secret in SECRETS if secret in done.stdout]
    assert "frame.py" not in done.stdout.replace("frame.CheckFailed", "").split("short test")[0]


def test_the_traceback_has_one_frame_of_the_check():
    with pytest.raises(CheckFailed) as caught:
        checks.check_num_tokens(lambda h, w, p: 3)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames][1:] == ["run_check"]
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_wrong_use_shows_nothing_of_the_inside_either():
    with pytest.raises(TypeError, match="without calling it") as caught:
        checks.check_patchify(torch.zeros(3))
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2


def test_lines_of_the_checks_are_cut_out_of_a_readers_error():
    def mine(patchify):
        return patchify(torch.zeros(1), 4)  # this patchify belongs to the check

    with pytest.raises(CheckFailed, match="raised") as caught:
        checks.check_patchify_test(mine)
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert "mine" in [frame.name for frame in frames]
    assert not [frame for frame in frames if "vitbook" in frame.filename]


def test_the_lines_of_a_module_are_shown_without_torchs_own():
    class Broken(Mlp):
        def forward(self, x):
            return self.fc2(self.missing(x))

    with pytest.raises(CheckFailed, match="raised AttributeError") as caught:
        checks.check_mlp(Broken(6, 8))
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["forward"]


def test_a_generator_runs_as_the_readers_code():
    def rates(largest, depth):
        yield largest / 0

    with pytest.raises(CheckFailed, match="your code raised ZeroDivisionError") as caught:
        checks.check_average_shares(rates)
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["rates"]


def test_a_wrong_signature_has_no_lines_to_show():
    with pytest.raises(CheckFailed, match="raised TypeError") as caught:
        checks.check_patchify(lambda images: images)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("check", "answer", "name"),
    [
        (checks.check_add_positions, lambda tokens, table: tokens.add_(table), "tokens"),
        (checks.check_pad_to_patches, lambda x, p: x.zero_(), "x"),
        (checks.check_unpatchify, lambda tokens, p, size: tokens.transpose_(1, 2), "tokens"),
        (checks.check_layer_scale, lambda x, gamma: x.mul_(gamma), "x"),
        (checks.check_layer_scale, lambda x, gamma: gamma.mul_(x[0, 0]), "gamma"),
        (checks.check_add_class_token, lambda *given: given[0].zero_(), "given"),
        (checks.check_accuracy, lambda batches: batches.pop(), "batches"),
        (checks.check_erase, lambda images, *box: images.zero_(), "images"),
        (checks.check_cutmix, lambda a, b, c: (a.zero_(), b), "a"),
    ],
)
def test_changing_what_was_given_is_named(check, answer, name):
    with pytest.raises(CheckFailed, match=f"your code changes {name} in place"):
        check(answer)


def test_changing_what_was_given_and_giving_nothing_is_named_as_well():
    def scale(x, gamma):
        x *= gamma

    with pytest.raises(CheckFailed, match="changes x in place"):
        checks.check_layer_scale(scale)


def test_what_is_handed_over_is_a_copy():
    x, weights, pairs = torch.ones(3), np.ones(2), [(torch.ones(2), 1)]
    layer = nn.Linear(2, 2)
    seen = []
    call(lambda *given: seen.append(given) or 1, x, weights, pairs, layer)
    copies = seen[0]
    assert copies[0] is not x
    assert copies[1] is not weights
    assert copies[2][0][0] is not pairs[0][0]
    assert copies[3] is layer
    assert torch.equal(copies[0], x)
    assert copies[2][0][1] == 1


def test_what_cannot_be_read_is_said_in_one_sentence():
    with pytest.raises(CheckFailed, match="cannot read what your code gives") as caught:
        checks.check_average_shares(lambda decay, steps: object())
    assert len(traceback.extract_tb(caught.value.__traceback__)) == 2


def test_a_mistake_is_named_only_where_it_explains_every_case():
    wrong = [("doubled", [2, 4]), ("two", [2, 2])]
    with pytest.raises(CheckFailed, match="two"):
        compare_counts([2, 2], [1, 2], wrong, ["one", "two"])
    with pytest.raises(CheckFailed, match="for one your answer is 2"):
        compare_counts([2, 9], [1, 2], wrong, ["one", "two"])
    compare_counts([np.int64(1), torch.tensor(2)], [1, 2], wrong, ["one", "two"])
    with pytest.raises(CheckFailed, match="is a float"):
        compare_counts([1.0, 2], [1, 2], wrong, ["one", "two"])
    compare_counts([1.0, np.float64(2)], [1, 2], wrong, ["one", "two"], whole_floats=True)
    for value in ("1", None, np.bool_(True), np.ones(2)):
        with pytest.raises(CheckFailed, match="a number was expected"):
            compare_counts([value, 2], [1, 2], wrong, ["one", "two"])


def test_functions_that_a_text_forbids_are_refused():
    x = torch.randn(3, 4)
    for banned in (
        lambda: x.softmax(-1),
        lambda: torch.softmax(x, -1),
        lambda: nn.functional.softmax(x, -1),
        lambda: nn.Softmax(-1)(x),
    ):
        with pytest.raises(CheckFailed, match="no"), without({"softmax"}, "no"):
            banned()
    with without({"softmax"}, "no"):
        x.exp()


def test_what_was_replaced_comes_back():
    class Thing:
        def speak(self):
            return "own"

    thing = Thing()
    with pytest.raises(ZeroDivisionError), replaced(Thing, speak=lambda self: 1 / 0):
        thing.speak()
    assert thing.speak() == "own"
    with replaced(thing, speak=lambda: "other"):
        assert thing.speak() == "other"
    assert thing.speak() == "own"
    assert "speak" not in vars(thing)


# -- empty frames and manners --------------------------------------------------------------------


def unsolved_raising(*arguments):
    raise NotImplementedError


class NoForward(nn.Module):
    """A module whose forward is still to be written."""

    qkv = proj = fc1 = fc2 = nn.Linear(6, 6)


EMPTY = {
    "raises": unsolved_raising,
    "returns nothing": lambda *arguments: None,
    "returns dots": lambda *arguments: ...,
    "dots": ...,
    "nothing": None,
}
ON_MODELS = [
    "check_shapes", "check_permutation_equivariance", "check_positions_used",
    "check_class_token_position", "check_identity_at_zero", "check_final_norm", "check_readout",
    "check_initial_loss",
]  # fmt: skip
ON_MODULES = ["check_multi_head", "check_attention_rows", "check_mlp", "check_pre_norm",
              "check_block", "check_block_and_parts"]  # fmt: skip
OTHERS = {
    "check_same_logits": [torch.zeros(1)],
    "check_mended_attention": [nn.MultiheadAttention(8, 2)],
    "check_forward": [small_vit(), small_images()],
}
FRAMES = [
    (name, answer)
    for name in ALL_CHECKS
    for answer in EMPTY.values()
    if not callable(answer) or name not in {*ON_MODELS, *ON_MODULES}
]


def test_every_check_is_tried_and_described():
    files = sorted(Path(__file__).parent.glob("test_checks_*.py"))
    tried = "".join(path.read_text("utf-8") for path in files if path.stem != "test_checks_frame")
    tried += "".join(call for exercise in TABLE.values() for call in exercise.calls)
    for name, check in ALL_CHECKS.items():
        assert name in tried
        assert check.__doc__
        assert check.__annotations__["return"] == "None"


@pytest.mark.parametrize(("name", "answer"), FRAMES)
def test_empty_frames_are_let_be(name, answer, capsys):
    answers = [answer, answer] if name == "check_same_logits" else [answer]
    assert ALL_CHECKS[name](*answers, *OTHERS.get(name, [])) is None
    said = capsys.readouterr().out
    assert said.startswith("not solved yet")
    assert said.count("\n") == 1


@pytest.mark.parametrize("wrapper", [ViT, Attention, Block, Mlp])
def test_modules_without_a_forward_are_let_be(wrapper, capsys):
    made = {
        ViT: (small_vit, "check_initial_loss"),
        Attention: (lambda: Attention(6, 2), "check_multi_head"),
        Block: (lambda: Block(6, 2), "check_block"),
        Mlp: (lambda: Mlp(6, 6), "check_mlp"),
    }
    make, name = made[wrapper]
    empty = type("Empty", (wrapper,), {"forward": unsolved_raising})
    module = make()
    module.__class__ = empty
    ALL_CHECKS[name](module)
    assert capsys.readouterr().out.startswith("not solved yet")
    dots = type("Dots", (wrapper,), {"forward": lambda self, *arguments: ...})
    module.__class__ = dots
    ALL_CHECKS[name](module)
    assert capsys.readouterr().out.startswith("not solved yet")


@pytest.mark.parametrize("name", ON_MODULES)
def test_a_function_is_no_module(name):
    with pytest.raises(TypeError, match="takes a module"):
        ALL_CHECKS[name](lambda x: x)


@pytest.mark.parametrize(
    ("name", "cls"),
    [("check_multi_head", Attention), ("check_attention_rows", Attention), ("check_mlp", Mlp),
     ("check_block", Block), ("check_pre_norm", Block)],
)  # fmt: skip
def test_classes_are_made(name, cls, capsys):
    ALL_CHECKS[name](cls)
    assert capsys.readouterr().out.startswith("check passed")


def test_checks_say_the_same_every_time():
    messages = set()
    for seed in range(3):
        torch.manual_seed(seed)
        with pytest.raises(CheckFailed) as caught:
            checks.check_masked_attention(lambda q, k, v, keep: 1.1 * attend(q, k, v))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_failed_check_is_an_assertion():
    assert issubclass(CheckFailed, AssertionError)


def test_an_error_of_torch_about_a_type_is_not_an_empty_frame():
    def answer(x):
        raise NotImplementedError("\"erf\" not implemented for 'Long'")

    with pytest.raises(CheckFailed, match="not implemented for"):
        checks.check_gelu(answer)


def test_an_assertion_of_the_reader_is_passed_on():
    def answer(images, size):
        raise CheckFailed("mine")

    with pytest.raises(CheckFailed, match="mine"):
        checks.check_patchify(answer)


def test_errors_tell_what_was_given():
    def answer(images, size):
        return images.reshape(3, 5)

    with pytest.raises(CheckFailed, match=r"raised RuntimeError.*shape \(2, 3, 8, 12\), 4"):
        checks.check_patchify(answer)
