# SPDX-License-Identifier: MIT
"""An exported model says the same as in torch, and knows where it came from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from core_helpers import randomise, small_images, small_vit
from torch import Tensor

from tools.set_repository import ROOT
from vitcore import export as exporting
from vitcore.__main__ import main
from vitcore.attention import ATTENTIONS, Attention, register_attention
from vitcore.export import FORMATS, export, export_web
from vitcore.training import load_weights, save_weights

LIVE = ROOT / "book" / "_static" / "live"
# What the live pages ship, and the run that it came from.
SHIPPED = {"mnist": "mnist-adamw-seed0", "cifar100": "cifar100-cpu-seed0"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    extra = {"dataset": "mnist", "seen_images": "x" * 5_000, "test_accuracy": 0.5}
    use: dict[str, Any] = {"classes": list("abcde"), "mean": [0.5] * 3, "std": [0.2] * 3}
    save_weights(path, randomise(small_vit()), **use, extra=extra)
    return path


@pytest.mark.parametrize(("half", "size", "error"), [(True, 0.55, 2e-3), (False, 1.0, 0.0)])
def test_a_copy_says_the_same(
    source: Path, tmp_path: Path, half: bool, size: float, error: float
) -> None:
    out = tmp_path / "web" / "copy.safetensors"
    assert export_web(source, out, half=half) == out.stat().st_size < size * source.stat().st_size
    whole, copy = load_weights(source), load_weights(out)
    assert (copy.config, copy.classes) == (whole.config, whole.classes)
    assert (copy.mean, copy.std) == (whole.mean, whole.std)
    assert copy.metadata == {
        "dataset": "mnist",
        "test_accuracy": 0.5,
        "exported_from": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    logits = [loaded.model(small_images()) for loaded in (whole, copy)]
    assert (logits[0] - logits[1]).abs().max() <= error * logits[0].abs().max()


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy.safetensors"
    assert main(["export-web", str(source), str(out)]) == 0
    half = out.read_bytes()
    assert f"wrote {out}: {len(half) / 1e3:.0f} kB" in capsys.readouterr().out
    assert main(["export-web", str(source), str(out), "--float32"]) == 0
    assert out.stat().st_size > 1.5 * len(half)
    assert main(["export-web", str(tmp_path / "none"), str(out)]) == 2
    assert "there is no weights file" in capsys.readouterr().err


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = small_vit()
    with torch.no_grad():
        model.head.weight[0, 0] = 70_000  # type: ignore[union-attr, index, operator]
    path = tmp_path / "model.safetensors"
    save_weights(path, model, classes=list("abcde"), mean=[0.5] * 3, std=[0.2] * 3)
    with pytest.raises(ValueError, match=r"holds 70000, beyond float16: add --float32"):
        export_web(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("name", "limit"), [("mnist", 500e3), ("cifar100", 2e6)])
def test_the_pages_run_the_weights_of_today(name: str, limit: float) -> None:
    source, copy = ROOT / f"runs/{SHIPPED[name]}/model.safetensors", LIVE / f"{name}.safetensors"
    told = load_weights(copy).metadata["exported_from"]
    assert told == hashlib.sha256(source.read_bytes()).hexdigest(), (
        f"the run is another one: python -m vitcore export-web {source.relative_to(ROOT)} "
        f"{copy.relative_to(ROOT)}"
    )
    assert copy.stat().st_size < limit


# --- graphs -------------------------------------------------------------------------------------

# Between them every part that the graph must hold; positions of other sizes are resized in it.
KINDS: dict[str, dict[str, Any]] = {
    "class token, registers": {"registers": 2, "layer_scale": 0.5},
    "mean, stem, local": {
        "pool": "mean", "class_token": False, "patch_embed": "conv_stem",
        "attention": "locally_enhanced",
    },
}  # fmt: skip
# (B, H, W): that of the model and others, down to one image of two patches a side.
BATCHES = [(2, 12, 16), (1, 8, 8), (3, 20, 12), (5, 16, 32)]
MEAN, STD = [0.5, 0.4, 0.6], [0.2, 0.3, 0.4]


def write(path: Path, **options: Any) -> Path:
    model = randomise(small_vit(depth=1, **options))
    extra = {"dataset": "mnist", "seen_images": "x", "test_accuracy": 0.5}
    save_weights(path, model, classes=list("abcde"), mean=MEAN, std=STD, extra=extra)
    return path


def pairs(path: Path, run: Any) -> list[tuple[Tensor, Tensor]]:
    """The logits of the exported model, and those of torch, for every one of ``BATCHES``."""
    loaded, found = load_weights(path), []
    for count, height, width in BATCHES:
        images = small_images(count, (height, width)).sigmoid()
        with torch.no_grad():
            found.append((run(images), loaded.model(loaded.normalise(images))))
    return found


def start(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def with_onnx(path: Path) -> Any:
    session = start(path)
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def tells_where_it_came_from(told: dict[str, str], source: Path) -> bool:
    about = {name: json.loads(told[name]) for name in ("classes", "dataset", "test_accuracy")}
    assert "seen_images" not in told
    assert json.loads(told["exported_from"]) == hashlib.sha256(source.read_bytes()).hexdigest()
    return about == {"classes": list("abcde"), "dataset": "mnist", "test_accuracy": 0.5}


def names_no_folder(path: Path) -> bool:
    """Whether nothing in the file tells on what machine it was made."""
    return not re.search(rb"site-packages|vitcore/\w+\.py", path.read_bytes())


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_onnx_gives_the_logits_of_torch(options: dict[str, Any], tmp_path: Path) -> None:
    source, out = write(tmp_path / "model.safetensors", **options), tmp_path / "new" / "model.onnx"
    assert export(source, out) == out.stat().st_size
    for found, expected in pairs(source, with_onnx(out)):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert tells_where_it_came_from(start(out).get_modelmeta().custom_metadata_map, source)
    assert names_no_folder(out)


def test_int8_nearly_agrees(tmp_path: Path) -> None:
    wide = {"dim": 96, "attention": "global"}
    source, out = write(tmp_path / "model.safetensors", **wide), tmp_path / "model.onnx"
    assert main(["export", str(source), str(out), "--format", "int8"]) == 0
    assert out.stat().st_size < 0.6 * source.stat().st_size
    for found, expected in pairs(source, with_onnx(out)):
        assert 1e-4 < (found - expected).abs().max() < 0.05 * expected.abs().max()
        assert (found.argmax(1) == expected.argmax(1)).all()
    assert tells_where_it_came_from(start(out).get_modelmeta().custom_metadata_map, source)


def test_torch_export_gives_the_logits_of_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "LIBRARIES", ("no_such_library",))  # it needs none of them
    source, out = write(tmp_path / "model.safetensors"), tmp_path / "model.pt2"
    assert main(["export", str(source), str(out), "--format", "torch"]) == 0
    assert f"wrote {out}: {out.stat().st_size / 1e3:.0f} kB" in capsys.readouterr().out
    told = dict.fromkeys(["classes", "dataset", "test_accuracy", "exported_from"], "")
    model = torch.export.load(out, extra_files=told).module()
    for found, expected in pairs(source, model):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert tells_where_it_came_from(told, source)
    assert names_no_folder(out)


def test_the_format_of_the_page(source: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("one", "other")]
    assert main(["export", str(source), str(outs[0]), "--format", "web"]) == 0
    assert main(["export-web", str(source), str(outs[1])]) == 0
    one, other = (load_weights(out) for out in outs)
    assert one.metadata == other.metadata
    assert outs[0].stat().st_size == outs[1].stat().st_size
    both = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in both)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_stays_where_its_successor_fails(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Torn off at the end, for lack of space; nothing half written lies beside it."""

    def fill(*_: Any) -> None:
        raise OSError("No space left on device")

    out = tmp_path / "out" / "model"
    out.parent.mkdir()
    out.write_bytes(b"old")
    monkeypatch.setattr(exporting, "trace", lambda loaded: None)
    monkeypatch.setattr(exporting, "_write_onnx", lambda *a, int8: a[2].write_bytes(b"half"))
    monkeypatch.setattr("torch.export.save", lambda _, file, **__: file.write(b"half"))
    monkeypatch.setattr("vitcore.training.files.os.fsync", fill)
    assert main(["export", str(source), str(out), "--format", name]) == 2
    assert f"error: could not write {out} (No space left on device)" in capsys.readouterr().err
    assert [path.read_bytes() for path in out.parent.iterdir()] == [b"old"]


def test_what_is_missing_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(exporting, "LIBRARIES", ("onnx", "no_such_library"))
    for name in ("onnx", "int8"):
        assert main(["export", str(source), str(tmp_path / "out"), "--format", name]) == 2
        words = f"error: {name} needs what is not installed here: pip install no_such_library.\n"
        assert capsys.readouterr().err == words
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out"), "--format", "torch"]) == 2
    assert "there is no weights file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="format is 'tflite'; give one of 'onnx', 'int8', 'torch'"):
        export(source, tmp_path / "out", "tflite")
    assert not (tmp_path / "out").exists()


def test_a_part_that_torch_cannot_trace(tmp_path: Path) -> None:
    @register_attention("sorted")
    class Sorted(Attention):
        def gather(self, q: Tensor, k: Tensor, v: Tensor, layout: Any) -> Tensor:
            return v if float(q.sum()) > 0 else -v

    try:
        source = write(tmp_path / "model.safetensors", attention="sorted")
        with pytest.raises(ValueError, match=r"^torch cannot trace this model \(.+\): see torch"):
            export(source, tmp_path / "out", "torch")
    finally:
        del ATTENTIONS["sorted"]
    assert not (tmp_path / "out").exists()
