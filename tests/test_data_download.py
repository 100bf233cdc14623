# SPDX-License-Identifier: MIT
"""Downloads, from a server on this machine: whole and right, or one clear error."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from data_helpers import (
    know,
    load,
    tiny,
)

from vitbook.torchvision import import_torchvision
from vitcore import data
from vitcore.data import (
    DataUnavailableError,
    DownloadError,
    ImageDataset,
    Source,
    download,
    load_dataset,
)
from vitcore.data import load as loading
from vitcore.data.download import workspace
from vitcore.data.known import ARRAYS, _parse_idx


class Server:
    """Serves files; ``behaviour[path]`` lists what to do at the next requests, then "good"."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, list[str]] = {}
        self.bodies: Counter = Counter()  # how often a body was read to its end by the client
        self.requests: Counter = Counter()  # per mirror, whatever came of them
        self.stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                folder = self.path.split("/")[1]
                outer.requests[folder] += 1
                content = outer.files.get(self.path.split("/")[-1])
                todo = outer.behaviour.get(folder, [])
                act = (todo[0] if len(todo) == 1 else todo.pop(0)) if todo else "good"
                if act == "once-corrupt":
                    act = "good" if outer.bodies[self.path] else "corrupt"
                if content is None or act == "missing":
                    self.send_error(404)
                    return
                outer.bodies[self.path] += 1
                if act == "corrupt":
                    content = content[:-20] + bytes(20)
                self.send_response(200)
                if act not in ("unannounced", "trickle"):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if act == "slow":
                    time.sleep(0.2)
                half = act in ("truncated", "stalled")
                try:
                    for byte in content[:100] if act == "trickle" else b"":
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(0.05)
                    self.wfile.write(content[: len(content) // 2] if half else content)
                    self.wfile.flush()
                except OSError:
                    return
                if act == "stalled":
                    outer.stop.wait(20)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def mirror(self, name: str, *behaviour: str) -> str:
        self.behaviour[name] = list(behaviour)
        return f"{self.address}/{name}/"

    def asked(self, name: str) -> int:
        return sum(count for path, count in self.bodies.items() if path.startswith(f"/{name}/"))

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server():
    one = Server()
    yield one
    one.close()


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def cifar_archive(arrays: dict) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for part in ("train", "test"):
            images = arrays[f"x_{part}"].transpose(0, 3, 1, 2).reshape(-1, 3072)
            fine = arrays[f"y_{part}"][:, None]
            records = np.concatenate([fine * 0, fine, images], axis=1).astype(np.uint8)
            entry = tarfile.TarInfo(f"cifar-100-binary/{part}.bin")
            entry.size = records.nbytes
            tar.addfile(entry, io.BytesIO(records.tobytes()))
    return buffer.getvalue()


@pytest.fixture
def served(server, no_data, monkeypatch):
    """A server with both data sets, whose checksums count as the official ones."""
    sets = {"mnist": tiny(), "cifar100": tiny("cifar100", 200, 100)}
    mnist = [idx(sets["mnist"][key]) for key in ARRAYS]
    files = {
        "mnist": dict(zip(data.FILES["mnist"], mnist, strict=True)),
        "cifar100": {"cifar-100-binary.tar.gz": cifar_archive(sets["cifar100"])},
    }
    for name, contents in files.items():
        server.files.update(contents)
        sums = {file: hashlib.md5(raw).hexdigest() for file, raw in contents.items()}
        monkeypatch.setitem(data.FILES, name, sums)
        know(monkeypatch, name, sets[name])
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT", 1.0)
    return sets


@pytest.fixture(autouse=True)
def kept_mirrors() -> Iterator[None]:
    """Each test may name mirrors of its own."""
    with mock.patch.dict(data.MIRRORS):
        yield


def fetch(name: str = "mnist", *mirrors: str) -> ImageDataset:
    data.MIRRORS[name] = mirrors or data.MIRRORS[name]
    return load_dataset(name, validation=20, stand_in=False)


def contents(folder: Path) -> list[str]:
    """What lies in a cache; the empty files that processes lock stay there."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def check_download(loaded: ImageDataset, arrays: dict, cache: Path) -> None:
    """The images are the served ones, and the cache holds them and nothing else."""
    assert loaded.source == Source("official", "download")
    assert loaded.test.labels.tolist() == arrays["y_test"].tolist()
    images = arrays["x_test"]
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    assert np.array_equal(loaded.test.images.numpy(), images)
    assert contents(cache) == [f"{loaded.name}.npz"]
    again = fetch(loaded.name, "http://127.0.0.1:9/")
    assert again.source == Source("official", f"{loaded.name}.npz in the cache")
    assert torch.equal(again.train.images, loaded.train.images)
    with np.load(cache / f"{loaded.name}.npz") as file:
        assert str(file["split"]) == "official"


@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_download(server, served, no_data, name):
    check_download(fetch(name, server.mirror("a")), served[name], no_data)
    assert server.asked("a") == len(data.FILES[name])


@pytest.mark.parametrize("fault", ["truncated", "corrupt", "missing", "stalled"])
def test_the_next_mirror_is_asked(server, served, no_data, fault):
    bad, good = server.mirror("bad", fault), server.mirror("good")
    start = time.time()
    check_download(fetch("cifar100", bad, good), served["cifar100"], no_data)
    assert server.asked("good") == 1
    assert time.time() - start < 15
    # Only what the server had can have been read.
    assert server.asked("bad") == (0 if fault == "missing" else 1)


def test_mirrors_are_asked_in_their_order(server, served, no_data):
    fetch("mnist", server.mirror("first"), server.mirror("second"))
    assert (server.asked("first"), server.asked("second")) == (4, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_refused_connection(server, served, no_data):
    refused = f"http://127.0.0.1:{free_port()}/"
    check_download(fetch("mnist", refused, server.mirror("a")), served["mnist"], no_data)


def test_the_mirror_that_answered_is_asked_first_for_the_other_files(server, served, no_data):
    gone = server.mirror("gone", "missing")
    check_download(fetch("mnist", gone, server.mirror("a")), served["mnist"], no_data)
    assert server.requests["gone"] == 1
    assert server.asked("a") == 4


def test_the_module_s_table_of_mirrors_is_used(server, served, no_data, monkeypatch):
    monkeypatch.setitem(data.MIRRORS, "mnist", (server.mirror("table"),))
    check_download(fetch("mnist"), served["mnist"], no_data)


def test_no_mirror_gives_one_clear_error(server, served, no_data):
    refused = f"http://127.0.0.1:{free_port()}"
    mirrors = [refused, server.mirror("gone", "missing"), server.mirror("bad", "corrupt")]
    with pytest.raises(DataUnavailableError) as caught:
        fetch("mnist", *mirrors)
    text = str(caught.value)
    assert "\n" not in text
    for words in (
        "mnist could not be downloaded",
        f"put mnist.npz .* into {re.escape(str(no_data))}",
        "VITCORE_DATA",
        "stand_in=True, --stand-in or VITCORE_STANDIN=1",
        f"{refused}/train-images-idx3-ubyte.gz: .*refused",
        "gone/train-images-idx3-ubyte.gz: .*404",
        "bad/train-images-idx3-ubyte.gz: .*wrong checksum",
    ):
        assert re.search(words, text), words
    assert contents(no_data) == []
    assert socket.getdefaulttimeout() is None


def test_a_cache_that_cannot_be_written_to(server, served, no_data):
    no_data.rmdir() if no_data.exists() else None
    no_data.write_text("a file stands where the cache should be")
    with pytest.raises(OSError, match=r"cannot be written to .*name another directory"):
        fetch("mnist", server.mirror("a"))


def test_what_a_killed_process_left_is_cleared_away(server, served, no_data):
    dead, other = no_data / ".partial-mnist.npz-x", no_data / ".partial-cifar100.npz-x"
    for folder in (dead, other):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"x")
    fetch("mnist", server.mirror("a"))
    assert not dead.exists()
    assert other.exists()  # another process may be at work there


HOLD = """
import sys, time
from pathlib import Path
from vitcore.data.download import workspace

with workspace(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"half of it")
    print(folder, flush=True)
    sys.stdin.readline()
    (folder / "half").replace(sys.argv[1])
"""


def test_two_processes_wait_for_each_other_whatever_the_clock_says(tmp_path):
    """A live process keeps its unfinished files, also if they look years old."""
    target = tmp_path / "file"
    command = [sys.executable, "-c", HOLD, str(target)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        for path in (folder, folder / "half"):
            os.utime(path, (0, 0))
        seen = []

        def wait() -> None:
            with workspace(target):
                seen.append((folder.exists(), target.read_bytes()))

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.5)
        assert not seen
        assert (folder / "half").exists()
        holder.stdin.write("\n")
        holder.stdin.flush()
        waiting.join(20)
        assert seen == [(False, b"half of it")]


def test_two_threads_download_once(server, served, no_data):
    mirror = server.mirror("a", "slow")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: fetch("mnist", mirror), range(2)))
    assert torch.equal(both[0].train.images, both[1].train.images)
    assert server.asked("a") == 4
    check_download(both[0], served["mnist"], no_data)


def test_a_file_larger_than_allowed_or_slower_is_given_up(server, tmp_path, monkeypatch):
    server.files["big"] = bytes(100_000)
    path = tmp_path / "here" / "big"
    for behaviour in ("good", "unannounced"):
        with pytest.raises(DownloadError, match="larger than 99,999 bytes"):
            download.download(server.mirror("a", behaviour) + "big", path, size_limit=99_999)
    with pytest.raises(DownloadError, match=r"took longer than 0\.4 seconds"):
        download.download(server.mirror("a", "trickle") + "big", path, deadline=0.4)
    with pytest.raises(DownloadError, match="50000 of 100000 bytes arrived"):
        download.download(server.mirror("a", "truncated") + "big", path)
    with pytest.raises(DownloadError, match="wrong checksum"):
        download.download(server.mirror("a") + "big", path, sha256="0" * 64)
    for wrong in (
        "nothing",
        "http://",
        "file-that-is-not-there",
        "http://[",
        "http://127.0.0.1:1/a",
    ):
        with pytest.raises(DownloadError) as caught:
            download.download(wrong, path)
        assert "\n" not in str(caught.value)
    assert contents(path.parent) == []
    download.download(
        server.mirror("a", "unannounced") + "big",
        path,
        sha256=hashlib.sha256(server.files["big"]).hexdigest(),
        size_limit=100_000,
    )
    assert path.read_bytes() == server.files["big"]


def test_what_other_threads_print_is_not_swallowed(server, served, no_data, capsys, monkeypatch):
    """Nor do their sockets get a time limit of ours."""
    original = download._receive

    def watch(*arguments):
        print("from another thread")
        assert socket.getdefaulttimeout() is None
        return original(*arguments)

    monkeypatch.setattr(download, "_receive", watch)
    fetch("mnist", server.mirror("a"))
    assert capsys.readouterr().out == "from another thread\n" * 4


def test_the_official_files_placed_by_hand(served, server, no_data, tmp_path):
    for name in ("mnist", "cifar100"):
        for file in data.FILES[name]:
            tmp_path.joinpath(file).write_bytes(server.files[file])
        loaded = load(tmp_path, name)
        assert loaded.source == Source("official", "the official files in a directory")
        assert loaded.test.labels.tolist() == served[name]["y_test"].tolist()
    broken_file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    broken_file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"{broken_file} has another checksum"):
        load(tmp_path, "mnist")
    broken_file.unlink()
    assert loading._find("mnist", tmp_path) is None


def test_raw_files_of_another_kind():
    with pytest.raises(ValueError, match="not an IDX file"):
        _parse_idx(gzip.compress(b"\0\0\x0d\x01" + bytes(8)))


def test_the_table_agrees_with_torchvision():
    import_torchvision()
    from torchvision.datasets import MNIST

    assert data.FILES["mnist"] == dict(MNIST.resources)
    assert data.MIRRORS["mnist"][:2] == tuple(MNIST.mirrors)
    assert all(len(mirrors) > 1 for mirrors in data.MIRRORS.values())
