# SPDX-License-Identifier: MIT
"""The benchmarks behind chapter 4 (04_blocks.ipynb) run in seconds, resume, and write records."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import ablations
from vitcore import ViT, records
from vitcore.checks import BUGS, check_block, check_shapes
from vitcore.data import ImageDataset
from vitcore.recipes import Recipe

ROOT = Path(__file__).parent.parent
TINY = ablations.replace(ablations.RECIPE.quick(), images=(60, 20, 40)).with_train(epochs=1)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_mnist: ImageDataset):
    """A record of all variants and two seeds, made in one go."""
    out = tmp_path_factory.mktemp("ablations")
    record = ablations.run(out, small_mnist, recipe=TINY, seeds=(0, 1), say=quiet)
    return out, record


def without_times(record: dict) -> dict:
    variants = {
        name: {key: rows[key] for key in ("seeds", "test_accuracy", "test_loss", "train_loss")}
        for name, rows in record["variants"].items()
    }
    return {key: record[key] for key in ablations.SAME} | {"variants": variants}


def test_every_variant_has_every_seed(finished):
    out, record = finished
    assert record["complete"]
    assert set(BUGS) < set(record["variants"])
    for rows in record["variants"].values():
        assert rows["seeds"] == [0, 1]
        assert len(rows["test_accuracy"]) == len(rows["train_loss"]) == 2
    assert record["test_images"] == 40
    assert record["split"] == "stand-in"
    assert json.loads((out / "record.json").read_text(encoding="utf-8")) == record


def test_a_stopped_benchmark_goes_on_and_ends_as_the_unbroken_one(
    finished, tmp_path, small_mnist: ImageDataset
):
    said: list[str] = []
    limits = (1, 29, None)
    for limit in limits:
        record = ablations.run(
            tmp_path, small_mnist, recipe=TINY, seeds=(0, 1), limit=limit, say=said.append
        )
    assert len(said) == 2 * len(ablations.VARIANTS)  # nothing was done twice
    assert without_times(record) == without_times(finished[1])
    ablations.run(tmp_path, small_mnist, recipe=TINY, seeds=(0, 1), say=said.append)
    assert len(said) == 2 * len(ablations.VARIANTS)


def test_two_workers_give_the_same_numbers(finished, tmp_path, small_mnist: ImageDataset):
    said: list[str] = []
    record = ablations.run(
        tmp_path, small_mnist, recipe=TINY, seeds=(0, 1), limit=5, workers=2, say=said.append
    )
    assert len(said) == 5
    for name in list(ablations.VARIANTS)[:5]:
        once, both = record["variants"][name], finished[1]["variants"][name]
        assert once["seeds"] == [0]
        assert once["test_loss"][0] == both["test_loss"][0]
        assert once["train_loss"][0] == both["train_loss"][0]


def test_a_record_of_other_settings_is_not_continued(finished, small_mnist: ImageDataset):
    out, _ = finished
    before = (out / "record.json").read_bytes()
    with pytest.raises(ValueError, match="another recipe"):
        ablations.run(out, small_mnist, recipe=TINY.with_train(lr=1e-3), seeds=(0, 1))
    with pytest.raises(ValueError, match="another seeds"):
        ablations.run(out, small_mnist, recipe=TINY, seeds=(0, 1, 2))
    assert (out / "record.json").read_bytes() == before


def test_a_record_of_other_versions_is_not_continued(finished, small_mnist, monkeypatch):
    out, _ = finished
    monkeypatch.setattr(records, "versions", lambda: {"torch": "0"})
    with pytest.raises(ValueError, match="other versions"):
        ablations.run(out, small_mnist, recipe=TINY, seeds=(0, 1))


def test_variants_of_a_seed_start_from_the_same_weights():
    models = {}
    for variant in ablations.VARIANTS.values():
        torch.manual_seed(0)
        models[variant.name] = variant.build(TINY.model).state_dict()
    for name, weights in models.items():
        for key, value in weights.items():
            if "gamma" not in key:
                assert torch.equal(value, models["correct"][key]), (name, key)


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_every_variant_has_the_right_shapes_and_is_what_it_says(name):
    """Parts that are left out change what a model computes, and no shape."""
    variant = ablations.VARIANTS[name]
    torch.manual_seed(0)
    model = variant.build(TINY.model).eval()
    torch.manual_seed(0)
    right = ViT(TINY.model).eval()
    images = torch.randn(4, 1, 28, 28)
    check_shapes(model)
    same = torch.allclose(model(images), right(images), atol=1e-5)
    assert same == (name in ("correct", "drop-path"))
    if variant.kind in ("correct", "added"):
        check_block(model)


def branches(name: str, layer: str) -> torch.Tensor:
    torch.manual_seed(0)
    model = ablations.VARIANTS[name].build(TINY.model).eval()
    return model.forward_with(torch.randn(2, 1, 28, 28), [layer])[1][layer]


def test_what_is_left_out_adds_nothing():
    assert not branches("no-mlp", "mlp_out.1").any()
    assert branches("no-mlp", "attn_out.1").any()
    assert not branches("no-attention", "attn_out.1").any()
    assert branches("no-attention", "mlp_out.1").any()


def test_what_has_no_residual_is_its_branch():
    for name in ("no-residuals", "no-mlp-residual"):
        assert torch.equal(branches(name, "tokens.2"), branches(name, "mlp_out.2"))
    torch.manual_seed(0)
    model = ablations.VARIANTS["no-residuals"].build(TINY.model).eval()
    block = model.blocks[0]
    x = torch.randn(2, 5, 32)
    assert torch.equal(block(x), block.mlp(block.norm2(block.attn(block.norm1(x)))))


def test_without_attention_every_image_looks_the_same():
    torch.manual_seed(0)
    model = ablations.VARIANTS["no-attention"].build(TINY.model).eval()
    logits = model(torch.randn(5, 1, 28, 28))
    assert torch.equal(logits, logits[:1].expand_as(logits))


def test_a_loss_that_overflows_is_kept_as_such(small_mnist: ImageDataset):
    recipe = TINY.with_train(lr=1e30, batch_size=10, clip_norm=None)
    data = small_mnist.subset(*TINY.images)
    result = ablations.train_once(recipe, ablations.VARIANTS["no-layer-norm"], 0, data)
    assert result["train_loss"] is None
    assert 0 <= result["test_accuracy"] <= 1


def test_the_command_runs_and_resumes(tmp_path, no_data, capsys):
    words = ["--quick", "--stand-in", "--seeds", "3", "--out", str(tmp_path)]
    ablations.main([*words, "--limit", "2"])
    assert "2 of 22 runs" in capsys.readouterr().out
    ablations.main([*words, "--limit", "1"])
    assert "3 of 22 runs" in capsys.readouterr().out
    record = records.AblationRecord.read(tmp_path / "record.json")
    assert record.command == "python -m benchmarks.ablations --seeds 3 --quick --stand-in"
    assert not record.complete
    with pytest.raises(SystemExit, match="another seeds"):
        ablations.main(["--quick", "--stand-in", "--seeds", "4", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        ablations.main(["--quick"])
    assert "name one with --out" in capsys.readouterr().err


# --- the record -------------------------------------------------------------------------------


def test_records_of_both_kinds_are_read_and_indexed(finished, tmp_path, monkeypatch):
    out, record = finished
    runs = tmp_path / "runs"
    (runs / "ablations").mkdir(parents=True)
    (runs / "ablations" / "record.json").write_bytes((out / "record.json").read_bytes())
    monkeypatch.setenv("VITCORE_RUNS", str(runs))
    assert records.load_record("ablations") == record
    index = records.index_runs(runs, tmp_path / "index.json")
    assert set(index) == {"ablations"}
    assert set(index["ablations"]) == {"record.json"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(kind="other"), "kind"),
        (lambda r: r.pop("seeds"), "lacks seeds"),
        (lambda r: r["variants"].pop("correct"), 'no variant "correct"'),
        (lambda r: r["variants"]["no-mlp"].pop("label"), "no-mlp in .* lacks label"),
        (lambda r: r["variants"]["no-mlp"].update(seeds=[7, 8]), "not declared"),
        (lambda r: r["variants"]["no-mlp"].update(seeds=[0]), "says it is complete"),
        (lambda r: r["variants"]["no-mlp"].update(train_loss=[1.0]), "one number for each"),
        (lambda r: r["variants"]["no-mlp"].update(test_accuracy=[98, 97]), "between 0 and 1"),
    ],
)
def test_a_record_that_does_not_fit_together_is_refused(finished, change, words):
    record = json.loads(json.dumps(finished[1]))
    records.AblationRecord.from_dict(record)
    change(record)
    with pytest.raises(ValueError, match=words):
        records.AblationRecord.from_dict(record)


def test_a_file_that_is_no_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run record"):
        records.AblationRecord.read(tmp_path / "record.json")
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        records.AblationRecord.read(tmp_path / "record.json")


def test_the_published_record_is_whole_and_real():
    record = records.load_record("ablations")
    assert record["complete"]
    assert record["seeds"] == [0, 1, 2, 3, 4]
    assert record["split"] in ("official", "re-split")
    assert list(record["variants"]) == list(ablations.VARIANTS)
    # Settings that came later have their defaults.
    assert Recipe.from_dict(record["recipe"]).to_dict() == ablations.RECIPE.to_dict()
    assert not any(commit.endswith("-dirty") for commit in record["commits"])
