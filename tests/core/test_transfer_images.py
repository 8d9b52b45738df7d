from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipeline.core.errors import InputError, MissingDataError
from pipeline.core.real_images import FolderImages
from pipeline.core.transfer_datasets import folder_images


def cut(path: Path, seed: int = 0) -> Path:
    """A picture of noise whose file ends after 60 % of it, as a download that was cut off."""
    noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    return path


def as_trex_reads(path: Path, monkeypatch) -> np.ndarray:
    """With PIL's flag for the whole process."""
    with monkeypatch.context() as patch, Image.open(path) as file:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        return np.array(file.convert("RGB"))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_image_is_read_as_far_as_it_goes(name: str, tmp_path: Path, monkeypatch):
    path = cut(tmp_path / name)
    wanted = as_trex_reads(path, monkeypatch)
    assert np.array_equal(folder_images("pets trainval", [path], [0]).image(0), wanted)
    assert wanted[:16].std() > 50  # what is there is the picture, not a grey field


def test_many_truncated_images_at_once_leave_other_readers_strict(tmp_path: Path, monkeypatch):
    files = [cut(tmp_path / f"{number}.jpg", number) for number in range(12)]
    images = folder_images("pets trainval", files, [0] * 12)
    found = [image for batch, _ in images.batches(12, 64) for image in batch]
    assert len(found) == 12 and ImageFile.LOAD_TRUNCATED_IMAGES is False
    strict = FolderImages("test set", "ab" * 32, files, images.labels)
    with pytest.raises(InputError, match=r"0\.jpg' cannot be read .*truncated"):
        strict.image(0)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0"], ids=["empty", "text", "mark"])
def test_an_image_that_cannot_be_read_at_all_is_named_with_its_set(content: bytes, tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    said = rf"^pets trainval: image '{path}' cannot be read .*; put an intact copy in its place and run again$"
    with pytest.raises(MissingDataError, match=said):
        folder_images("pets trainval", [path], [0]).image(0)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
