# SPDX-License-Identifier: MIT
"""Odd arguments are refused in one clear sentence, and the fuzz that says so can fail."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import fuzz_calls
import pytest
import torch
from fuzz_calls import Odd, Target, find_fault, fuzz, not_one_sentence, one_call, report
from fuzzing import make_targets, workspace

import vitcore
from vitcore import ViTConfig


@pytest.fixture(scope="module")
def targets():
    with workspace() as folder:
        yield make_targets(folder)


def test_every_target_takes_its_valid_arguments(targets):
    failed = {target.name: answer for target in targets if (answer := one_call(target, {}))}
    assert not failed


def test_odd_arguments_are_refused_in_one_sentence(targets):
    """Some hundred calls; ``python tests/fuzzing.py`` makes as many as one likes."""
    result = fuzz(targets, 600, seed=0)
    assert not result.faults, report(result)


def toy(call):
    return Target("toy", "toy", call, lambda: {"value": 1})


def caught(call):
    with pytest.raises(Exception) as error:
        call()
    return find_fault(error.value)


def test_an_error_of_torch_is_a_fault():
    kind, place = caught(lambda: torch.zeros(2).view(3))
    assert kind == "RuntimeError"
    assert place.startswith("test_fuzz.py:")


def test_an_error_in_vitcore_that_nobody_raised_is_a_fault():
    target = toy(lambda value: vitcore._inputs.check_choice("a toy", "x", value))
    fault: Any = one_call(target, {"value": Odd("7", 7)})
    assert (fault.kind, fault.arguments) == ("TypeError", "value=7")
    assert fault.place.startswith("_inputs.py:")


def test_a_clear_sentence_of_vitcore_is_none():
    assert caught(lambda: ViTConfig(dim=0)) is None
    assert "dim is 0" in str(one_call(toy(lambda value: ViTConfig(dim=0)), {}))


def write_package(folder: Path, line: str):
    path = folder / "toy.py"
    path.write_text(f"def call():\n    {line}\n")
    names: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with pytest.raises(Exception) as error:
        names["call"]()  # type: ignore[operator]
    return find_fault(error.value, folder)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("raise ValueError('size is 3; give an even number.')", None),
        ("raise KeyError('size is 3; give an even number.')", "KeyError is not documented"),
        ("raise ValueError('size is 3. Give an even number.')", "message of several sentences"),
        (r"raise ValueError('size is 3;\ngive an even number.')", "message of several lines"),
        ("raise ValueError('bad size')", "message too short"),
        ("raise ValueError(f'size is {1 / 0}; give an even number.')", "ZeroDivisionError"),
        ("assert 1 > 2, 'size is 3; give an even number.'", "AssertionError is not documented"),
        ("int('size is 3; give an even number.')", "ValueError"),
    ],
)
def test_what_counts_as_a_clear_error(tmp_path, line, kind):
    fault = write_package(tmp_path, line)
    assert (fault and fault[0]) == kind


def test_numbers_and_paths_are_no_second_sentence():
    assert not not_one_sentence("lr is 1.5e-3, but a.B/c.safetensors says 0.2; give the same.")
    assert not_one_sentence("x" * 601)


def test_a_call_that_hangs_is_a_fault(monkeypatch):
    monkeypatch.setattr(fuzz_calls, "SECONDS", 0.05)
    fault: Any = one_call(toy(lambda value: time.sleep(5)), {})
    assert fault.kind == "hangs"


def test_memory_is_limited():
    with fuzz_calls.limited_memory(2**30), pytest.raises(RuntimeError, match="allocate memory"):
        torch.zeros(2**31)


def test_the_same_seed_makes_the_same_calls():
    seen = []
    target = toy(lambda value: seen.append(repr(value)))
    fuzz([target], 20, seed=3)
    first, seen[:] = list(seen), []
    fuzz([target], 20, seed=3)
    assert [s for s in seen if " at 0x" not in s] == [s for s in first if " at 0x" not in s]
    fuzz([target], 20, seed=4)
    assert seen[20:] != first


def test_odd_values_stand_close_to_the_valid_ones():
    rng = random.Random(0)
    drawn = [fuzz_calls.odd(rng, torch.zeros(2, 3)) for _ in range(200)]
    assert {"as float64", "one axis more", "empty", "on meta"} <= {label for label, _ in drawn}
    drawn = [fuzz_calls.odd(rng, (0.1, 0.2)) for _ in range(1000)]
    assert {"one shorter", "reversed", "[0] nan"} <= {label for label, _ in drawn}


def test_the_report_names_callable_argument_and_place():
    result = fuzz([toy(lambda value: {}[value])], 30, seed=0)
    text = report(result)
    assert text.startswith("30 raw errors in 30 calls")
    assert "toy: toy" in text
    assert "KeyError at test_fuzz.py:" in text
    assert "value=" in text
