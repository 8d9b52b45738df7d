"""Real Fashion-MNIST: the order of places, the checks, the arrays."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import datasets
from pipeline.core.datasets import IDX_SHA256, as_rgb32, class_prefix, find_fashion_mnist, load_fashion_mnist
from pipeline.core.errors import InputError, WorkError

# Seconds since 1970 in the gzip headers of Zalando's files; with the name they are all that Debian's files lack.
GZIP_DATES = {"train": 1504176606, "t10k": 1504176627}


@pytest.fixture(scope="module")
def real() -> Path:
    return find_fashion_mnist()


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No data anywhere, no network, no apt; the returned folder is the cache."""
    monkeypatch.delenv("SYNTHCLONES_DATA", raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_DIRECTORY", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens: torchvision's download fails at once
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    return tmp_path / "cache" / "synthclones" / "fashion-mnist"


def copy_files(real: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for name in IDX_SHA256:
        shutil.copy(real / f"{name}.gz", target)
    return target


def test_users_path_comes_first(bare_machine: Path, real: Path, tmp_path: Path) -> None:
    copy_files(real, datasets.DEBIAN_DIRECTORY)
    mine = copy_files(real, tmp_path / "mine")
    assert find_fashion_mnist(str(mine)) == mine


def test_environment_names_the_users_path(
    bare_machine: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy_files(real, tmp_path / "mine")
    monkeypatch.setenv("SYNTHCLONES_DATA", str(mine))
    assert find_fashion_mnist() == mine


def test_wrong_users_path_is_not_passed_over(bare_machine: Path, real: Path, tmp_path: Path) -> None:
    copy_files(real, datasets.DEBIAN_DIRECTORY)
    with pytest.raises(InputError, match=r"no Fashion-MNIST in .*nowhere.*is not there; give the folder"):
        find_fashion_mnist(str(tmp_path / "nowhere"))


def test_debian_directory_comes_before_the_cache(bare_machine: Path, real: Path) -> None:
    copy_files(real, datasets.DEBIAN_DIRECTORY)
    copy_files(real, bare_machine / "torchvision" / "FashionMNIST" / "raw")
    assert find_fashion_mnist() == datasets.DEBIAN_DIRECTORY


def test_what_was_fetched_once_is_found_again(bare_machine: Path, real: Path) -> None:
    cached = copy_files(real, bare_machine / "torchvision" / "FashionMNIST" / "raw")
    assert find_fashion_mnist() == cached


@pytest.fixture
def mirror(real: Path, monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> Iterator[dict[str, bytes]]:
    """A proxy that answers for torchvision's mirror with Zalando's own files, byte for byte; change one to spoil it."""
    files = {}
    for name in IDX_SHA256:
        debian = (real / f"{name}.gz").read_bytes()
        head = debian[:3] + b"\x08" + GZIP_DATES[name.split("-")[0]].to_bytes(4, "little") + bytes([0, 3])
        files[f"{name}.gz"] = head + name.encode() + b"\0" + debian[10:]

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files[self.path.rsplit("/", 1)[1]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    yield files
    server.shutdown()
    server.server_close()


def test_torchvision_downloads_when_no_folder_has_the_data(mirror: dict[str, bytes], bare_machine: Path) -> None:
    assert find_fashion_mnist() == bare_machine / "torchvision" / "FashionMNIST" / "raw"


def refuse(root: Path) -> None:
    raise WorkError("the host does not answer")


def fake_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    program.chmod(0o755)


def test_debian_package_is_the_last_resort(bare_machine: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_download_with_torchvision", refuse)
    programs = Path(os.environ["PATH"])
    fake_program(programs, "apt-get", "touch dataset-fashion-mnist_1_all.deb")
    inside = f'"$3{datasets.DEBIAN_DIRECTORY}"'
    fake_program(programs, "dpkg-deb", f"mkdir -p {inside} && cp {real}/*.gz {inside}")
    found = find_fashion_mnist()
    assert found.is_relative_to(bare_machine / "debian") and len(list(found.iterdir())) == 4


def test_spoilt_download_falls_through_and_every_failure_is_told(mirror: dict[str, bytes], bare_machine: Path) -> None:
    mirror["train-labels-idx1-ubyte.gz"] = gzip.compress(b"something else")
    with pytest.raises(InputError) as caught:
        find_fashion_mnist()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        f"{datasets.DEBIAN_DIRECTORY}: train-images-idx3-ubyte.gz is not there",
        "torchvision's download: ",
        "Debian's package dataset-fashion-mnist: apt-get is not on this machine",
        "SYNTHCLONES_DATA",
    ):
        assert part in message


def test_changed_file_is_not_accepted(bare_machine: Path, real: Path, tmp_path: Path) -> None:
    mine = copy_files(real, tmp_path / "mine")
    labels = bytearray(gzip.decompress((mine / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    labels[100] ^= 1
    (mine / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(labels)))
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte.gz is not the published file"):
        find_fashion_mnist(str(mine))


def test_cut_file_is_not_accepted(bare_machine: Path, real: Path, tmp_path: Path) -> None:
    mine = copy_files(real, tmp_path / "mine")
    (mine / "train-images-idx3-ubyte.gz").write_bytes((real / "train-images-idx3-ubyte.gz").read_bytes()[:1000])
    with pytest.raises(InputError, match="train-images-idx3-ubyte.gz is damaged"):
        find_fashion_mnist(str(mine))


def test_a_file_that_changes_after_it_was_found_is_seen(bare_machine: Path, real: Path, tmp_path: Path) -> None:
    mine = copy_files(real, tmp_path / "mine")
    assert find_fashion_mnist(str(mine)) == mine
    (mine / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(InputError, match="train-labels-idx1-ubyte.gz is damaged|is not the published file"):
        find_fashion_mnist(str(mine))


def test_what_was_found_is_not_unpacked_to_be_found_again(
    bare_machine: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copy_files(real, tmp_path / "mine")
    find_fashion_mnist(str(mine))
    monkeypatch.setattr(gzip, "decompress", lambda _: pytest.fail("unpacked again"))
    assert find_fashion_mnist(str(mine)) == mine


@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_splits_are_balanced(split: datasets.Split, count: int) -> None:
    images, labels = load_fashion_mnist(None, split)
    assert images.shape == (count, 28, 28) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [count // 10] * 10


def test_first_test_images_are_the_published_ones() -> None:
    images, labels = load_fashion_mnist(None, "test")
    assert labels[:5].tolist() == [9, 2, 1, 1, 6]  # boot, pullover, trouser, trouser, shirt
    assert images[2, :, :9].max() < 10 < 200 < images[2, :, 9:19].max()  # a trouser is narrow


def test_rgb32_pads_with_black_and_repeats_the_grey() -> None:
    image = np.arange(28 * 28, dtype=np.uint8).reshape(1, 28, 28)
    coloured = as_rgb32(image)
    assert coloured.shape == (1, 32, 32, 3) and coloured.dtype == np.uint8
    for channel in range(3):
        assert np.array_equal(coloured[:, 2:-2, 2:-2, channel], image)
    coloured[:, 2:-2, 2:-2] = 0
    assert coloured.max() == 0


@given(
    st.lists(st.integers(0, 3), min_size=20, max_size=60).filter(lambda values: len(set(values)) > 1),
    st.integers(1, 8),
)
def test_class_prefix_is_balanced_ordered_and_nested(values: list[int], images_per_class: int) -> None:
    labels = np.array(values, np.uint8)
    classes, counts = np.unique(labels, return_counts=True)
    if images_per_class > counts.min():
        with pytest.raises(InputError, match="images_per_class"):
            class_prefix(labels, images_per_class)
        return
    chosen = class_prefix(labels, images_per_class)
    assert labels[chosen].reshape(images_per_class, -1).tolist() == [classes.tolist()] * images_per_class
    for label in classes:
        mine = chosen[labels[chosen] == label]
        assert mine.tolist() == np.flatnonzero(labels == label)[:images_per_class].tolist()
    assert chosen[: len(classes)].tolist() == class_prefix(labels, 1).tolist()
