from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.user_files import file_marks, user_path


def test_a_home_directory_is_meant_by_its_sign() -> None:
    assert user_path("~/data", "data_dir") == Path.home() / "data"
    assert user_path("data/x", "data_dir") == Path("data/x")


@pytest.mark.parametrize(("text", "why"), [("~nobody-of-this-name/x", "home directory"), ("a" * 300, "name too long")])
def test_what_no_file_can_be_called_is_refused_with_its_key(text: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"^evaluate\.test_set '[^']*' is no path \((?i:.*{why}).*\); write it out$"):
        user_path(text, "evaluate.test_set")


@pytest.mark.parametrize("ending", ["bmp", "tiff", "ppm"])
def test_formats_without_compression_are_told_by_their_content(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 200, 200, 3), dtype=np.uint8)
    files = [tmp_path / f"{number}.{ending}" for number in range(2)]
    for path, pixels in zip(files, noise, strict=True):
        Image.fromarray(pixels).save(path)
    first, second = file_marks(files)
    assert first[0] == second[0] > 100_000 and first != second


def test_small_files_are_told_by_their_content_and_large_pictures_by_their_size(tmp_path: Path) -> None:
    contents = {"a.png": b"one", "b.png": b"two", "large.jpg": b"x" * 70_000}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    a, b, large = file_marks([tmp_path / name for name in contents])
    assert a[0] == b[0] == 3 and a != b
    assert large == [70_000]


def test_only_files_that_are_read_are_sent_to_threads_and_many_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **more: Any) -> Any:
            tasks.append(arguments)
            return super().submit(*arguments, **more)

    monkeypatch.setattr("pipeline.core.user_files.ThreadPoolExecutor", Counting)
    large, small = tmp_path / "large.jpg", tmp_path / "small.jpg"
    large.write_bytes(b"x" * 70_000)
    small.write_bytes(b"y")
    assert file_marks([large] * 300) == [[70_000]] * 300 and not tasks
    marks = file_marks([large, *[small] * 300, large])
    assert marks == [[70_000], *[[1, sha256(b"y").hexdigest()]] * 300, [70_000]] and 1 < len(tasks) < 30
