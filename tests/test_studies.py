# SPDX-License-Identifier: MIT
"""vitbook.studies: each kind of record is told from the others, and what it concludes follows from
what it holds. What each benchmark writes is tested beside the benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitbook import studies
from vitbook.records import list_runs, load_record
from vitcore.records import Record

ROOT = Path(__file__).resolve().parent.parent


# Kinds whose pages say "not yet run"; a record that is committed ends that.
NOT_YET_RUN = {"transfer"}


@pytest.mark.parametrize("study", studies.STUDIES, ids=lambda study: study.__name__)
def test_every_kind_has_a_committed_record_that_no_other_kind_reads(study: type[Record]) -> None:
    found = [name for name in list_runs() if load_record(name).get("kind") == study.KIND]
    if study.KIND in NOT_YET_RUN:
        assert not found, f"there is one: take {study.KIND} out of NOT_YET_RUN"
        return
    assert found, f"commit a record of the kind {study.KIND}"
    path = ROOT / "runs" / found[0] / "record.json"
    assert study.read(path).to_dict() == json.loads(path.read_text(encoding="utf-8"))
    for other in set(studies.STUDIES) - {study}:
        with pytest.raises(ValueError, match=r"lacks|kind is"):
            other.read(path)


def test_kinds_have_names_of_their_own() -> None:
    assert len({study.KIND for study in studies.STUDIES}) == len(studies.STUDIES)


def test_rounds_are_compared_one_by_one() -> None:
    # Twice as slow a machine in the second round changes nothing.
    found = studies.compare_rounds([1.0, 2.0, 1.0], [3.0, 6.0, 4.0])
    assert found == {"ratio": 3.0, "lowest": 3.0, "highest": 4.0}


def test_a_map_must_be_clear_of_chance() -> None:
    random = [0.50, 0.52, 0.51, 0.49, 0.48]  # mean 0.50, deviation 0.0158
    judged = studies.judge_maps({"below all": 0.47, "clear": 0.43}, random)
    assert judged == {"below all": False, "clear": True}
