# SPDX-License-Identifier: MIT
"""The benchmarks behind chapters 4 (04_blocks.ipynb), 6 and 7 run in seconds and write records."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import ablations, training
from tools import runs_index
from vitbook import records, studies
from vitbook.checks import BUGS, check_block, check_shapes
from vitcore import ViT, augment
from vitcore.data import ImageDataset
from vitcore.recipes import RECIPES, Recipe
from vitcore.training import TrainConfig, fit

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
    monkeypatch.setattr(ablations, "versions", lambda: {"torch": "0"})
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
    record = studies.AblationRecord.read(tmp_path / "record.json")
    assert record.command == "python -m benchmarks.ablations --seeds 3 --quick --stand-in"
    assert not record.complete
    with pytest.raises(SystemExit, match="another seeds"):
        ablations.main(["--quick", "--stand-in", "--seeds", "4", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        ablations.main(["--quick"])
    assert "name one with --out" in capsys.readouterr().err


# --- the record of ablations ------------------------------------------------------------------


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
    studies.AblationRecord.from_dict(record)
    change(record)
    with pytest.raises(ValueError, match=words):
        studies.AblationRecord.from_dict(record)


def test_a_file_that_is_no_record(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run record"):
        studies.AblationRecord.read(tmp_path / "record.json")
    (tmp_path / "record.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        studies.AblationRecord.read(tmp_path / "record.json")


def test_the_published_record_is_whole_and_real():
    record = records.load_record("ablations")
    assert record["complete"]
    assert record["seeds"] == [0, 1, 2, 3, 4]
    assert record["split"] in ("official", "re-split")
    assert list(record["variants"]) == list(ablations.VARIANTS)
    # Settings that came later have their defaults.
    assert Recipe.from_dict(record["recipe"]).to_dict() == ablations.RECIPE.to_dict()
    assert not any(commit.endswith("-dirty") for commit in record["commits"])


# --- the speed of the loop --------------------------------------------------------------------


def tiny_case(name: str) -> training.Case:
    recipe = next(case.recipe for case in training.CASES if case.recipe.dataset == name)
    model = dataclasses.replace(recipe.model, dim=8, depth=1, heads=2)
    return training.Case(dataclasses.replace(recipe, model=model).with_train(batch_size=8), 2, 3)


@pytest.fixture(scope="module")
def measured(small_mnist, small_cifar100):
    """A record of both models, small ones, and what was said on the way."""
    said: list[str] = []
    record = training.run(
        {"mnist": small_mnist, "cifar100": small_cifar100},
        cases=[tiny_case("mnist"), tiny_case("cifar100")],
        rounds=3,
        device="cpu",
        complete=False,
        say=said.append,
    )
    return record, said


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pure_compute_makes_the_steps_of_the_loop(optimizer):
    """The same weights come out, and so do their averages."""
    config = TrainConfig(
        epochs=1, optimizer=optimizer, lr=1e-2, schedule="constant", warmup_epochs=0,
        label_smoothing=0.1, clip_norm=0.5, ema=0.9,
    )  # fmt: skip
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 32, 32), torch.randint(100, (8,))) for _ in range(4)]
    looped = ViT(tiny_case("cifar100").recipe.model)
    computed = ViT(looped.config)
    computed.load_state_dict(looped.state_dict())
    weights = []

    def keep(_, model):
        weights.extend(parameter.clone() for parameter in model.parameters())

    fit(looped, batches, None, config, device="cpu", progress=False, on_epoch=keep)
    compute = training.PureCompute(computed, config, torch.device("cpu"))
    for images, labels in batches:
        compute.step(images, labels)
    assert all(map(torch.equal, weights, computed.parameters()))
    # What fit leaves in the model is the average.
    assert all(map(torch.equal, looped.parameters(), compute.average.model.parameters()))
    assert not torch.equal(weights[0], next(looped.parameters()))


def test_the_measured_models_are_those_of_the_recipes():
    for case in training.CASES:
        recipe = RECIPES[case.recipe.name]
        assert case.recipe.model == recipe.model
        assert case.recipe.train == recipe.train
        assert case.recipe.augment_options == recipe.augment_options
    assert training.CASES[1].recipe.model.patch_embed == "conv_stem"


def usual(recipe: Recipe, split, dataset: ImageDataset) -> training.PilImages:
    size = split.images.shape[-2:]
    return training.PilImages(
        split, lambda: training.usual_transform(recipe, size, dataset.mean, dataset.std)
    )


def still(recipe: Recipe) -> Recipe:
    """The recipe with all amounts of its augmentation set to nothing."""
    return dataclasses.replace(
        recipe,
        augment_options={key: type(value)(0) for key, value in recipe.augment_options.items()},
    )


def test_the_usual_path_gives_what_the_batches_give(small_mnist, small_cifar100):
    for dataset, name in ((small_mnist, "mnist"), (small_cifar100, "cifar100")):
        images = usual(still(tiny_case(name).recipe), dataset.train, dataset)
        expected = dataset.normalise(dataset.train.images[:5])
        assert len(images) == len(dataset.train.labels)
        for index in range(5):
            image, label = images[index]
            torch.testing.assert_close(image, expected[index])
            assert label == dataset.train.labels[index]


def test_the_usual_path_has_the_same_operations(small_mnist, small_cifar100):
    moved = usual(tiny_case("mnist").recipe, small_mnist.train, small_mnist).transform.transforms[0]
    assert moved.degrees == [-10, 10]
    assert [28 * share for share in moved.translate] == pytest.approx([2, 2])
    assert moved.scale == pytest.approx((0.9, 1.1))
    # A photograph that was cropped and flipped is one of the 162 that ours can be.
    photo = small_cifar100.train.images[:1]
    images = usual(tiny_case("cifar100").recipe, small_cifar100.train, small_cifar100)
    place = torch.arange(81)
    cuts = augment.crop(photo.expand(81, -1, -1, -1) / 255, place // 9, place % 9, padding=4)
    known = small_cifar100.normalise(torch.cat([cuts, cuts.flip(-1)]))
    torch.manual_seed(0)
    found = set()
    for _ in range(40):
        apart = (known - images[0][0]).abs().amax(dim=(1, 2, 3))
        assert apart.min() < 1e-5
        found.add(int(apart.argmin()))
    assert len(found) > 20
    assert min(found) < 81 <= max(found)


def test_what_the_usual_path_cannot_do_is_not_measured():
    recipe = RECIPES["cifar100-gpu"]
    with pytest.raises(ValueError, match="not translated"):
        training.usual_transform(recipe, (32, 32), (0.5,) * 3, (0.5,) * 3)


def test_the_loop_and_the_data_are_measured_in_turns(measured, tmp_path, monkeypatch):
    record, said = measured
    names = ["mnist-loop", "mnist-data", "cifar100-loop", "cifar100-data"]
    assert list(record.measurements) == names
    assert len(said) == 4
    for name, rows in record.measurements.items():
        assert rows["images"] == 8 * (2 if name.endswith("loop") else 3)
        assert len(rows["measured_seconds"]) == len(rows["against_seconds"]) == 3
        assert rows["lowest"] <= rows["ratio"] <= rows["highest"]
        assert rows["goal"] == (0.95 if name.endswith("loop") else 5)
    assert record.datasets["mnist"]["split"] == "stand-in"
    assert {"torch", "torchvision", "pillow"} < set(record.versions)
    assert record.precision == "fp32"
    # Found by its name like every other record, and no row of the table of results.
    record.write(tmp_path / "runs" / "training-speed" / "record.json")
    monkeypatch.setenv("VITCORE_RUNS", str(tmp_path / "runs"))
    assert "training-speed" in records.list_runs()
    assert records.load_record("training-speed") == record.to_dict()
    index = records.index_runs(tmp_path / "runs", tmp_path / "index.json")
    assert set(index["training-speed"]) == {"record.json"}
    assert runs_index.results_table(tmp_path) == runs_index.NONE_YET


def test_the_table_claims_ratios_alone_on_a_cpu(measured):
    record, _ = measured
    lines = training.table(record).splitlines()
    assert len(lines) == 6
    assert "mnist (stand-in): training on images, against the same steps" in lines[1]
    assert f"{record.measurements['mnist-data']['ratio']:.3f}" in lines[2]
    assert "images/s" not in lines[0]
    assert "only the ratios" in lines[5]
    rows = {**record.measurements["mnist-data"], "ratio": 4.0, "goal": 5}
    assert "5, missed" in training.table(dataclasses.replace(record, measurements={"x": rows}))
    gpu = dataclasses.replace(record, hardware={"device": "cuda"})
    lines = training.table(gpu).splitlines()
    assert len(lines) == 5
    assert "images/s" in lines[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(kind="other"), 'kind is "speed"'),
        (lambda r: r.pop("rounds"), "lacks rounds"),
        (lambda r: r.update(complete=1), "complete .* type bool"),
        (lambda r: r.update(measurements={}), "no measurement"),
        (lambda r: r["datasets"]["mnist"].update(split="some"), "known split"),
        (
            lambda r: r["measurements"]["mnist-loop"].pop("against"),
            "mnist-loop in .* lacks against",
        ),
        (lambda r: r["measurements"]["mnist-loop"].update(dataset="svhn"), "not listed: svhn"),
        (lambda r: r["measurements"]["mnist-loop"]["measured_seconds"].pop(), "needs 3 times"),
        (lambda r: r["measurements"]["mnist-loop"].update(against_seconds=[1, 0, 1]), "above zero"),
        (lambda r: r["measurements"]["mnist-loop"].update(ratio=2.5), "as its times give"),
    ],
)
def test_a_record_of_speed_that_does_not_fit_together_is_refused(measured, change, words):
    record = json.loads(json.dumps(measured[0].to_dict()))
    studies.SpeedRecord.from_dict(record)
    change(record)
    with pytest.raises(ValueError, match=words):
        studies.SpeedRecord.from_dict(record)


def test_the_command_measures_and_writes(tmp_path, no_data, capsys, monkeypatch):
    monkeypatch.setattr(training, "CASES", (tiny_case("mnist"),))
    words = ["--quick", "--stand-in", "--rounds", "1", "--device", "cpu", "--out", str(tmp_path)]
    training.main(words)
    record = studies.SpeedRecord.read(tmp_path / "record.json")
    assert record.command == (
        "python -m benchmarks.training --quick --stand-in --rounds 1 --device cpu --out OUT"
    )
    assert not record.complete
    assert record.measurements["mnist-data"]["images"] == 16
    assert "mnist (stand-in): batches on the device" in capsys.readouterr().out
    for wrong, message in (
        (["--quick"], "name one with --out"),
        (["--rounds", "-1"], "above zero"),
    ):
        with pytest.raises(SystemExit):
            training.main(wrong)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="precision fp16 is not for cpu"):
        training.main([*words, "--precision", "fp16"])


def test_the_published_record_of_speed_is_whole_and_meets_its_goals():
    if "training-speed" not in records.list_runs():
        pytest.skip("python -m benchmarks.training has not been run yet")
    record = records.load_record("training-speed")
    assert record["complete"]
    assert record["rounds"] >= training.ROUNDS
    assert not record["commit"].endswith("-dirty")
    assert "/" not in record["command"]
    assert {data["split"] for data in record["datasets"].values()} <= {"official", "re-split"}
    names = [
        f"{case.recipe.dataset}-{what}" for case in training.CASES for what in training.MEASURES
    ]
    assert list(record["measurements"]) == names
    for rows in record["measurements"].values():
        assert rows["ratio"] >= rows["goal"]
