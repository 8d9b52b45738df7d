"""Storage that is damaged, closed or full: one `error:` line, the right exit code, what is there kept."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.recipe import resolve_recipe
from tests.bad_input import Case, Place, check, fill, tree
from tests.image_sets import NO_MODEL, small_config, write_image_set

UNFETCHED = f"--set recipe.model.id={NO_MODEL['id']} --set recipe.model.revision={NO_MODEL['revision']}"


def begun_set(place: Place) -> Path:
    """The folder of a finished set of 10 x 6 images."""
    config = small_config(images_per_class=6, shard_size=30)
    write_image_set(config, Store.open(str(place.tmp)))
    return place.tmp / resolve_recipe(config).images_dir


@pytest.mark.parametrize(
    ("spoil", "words", "code", "says"),
    [
        (None, "--images-per-class 9", 2, ("9 images per class", "jobs.generate")),
        ("shards/shard-000001.parquet", "--images-per-class 6", 1, ("000001.parquet is damaged", "--repair")),
        ("identity.json", "--images-per-class 6", 1, ("identity.json is damaged",)),
    ],
)  # fmt: skip
def test_an_image_set_that_is_too_small_or_damaged(
    spoil: str | None, words: str, code: int, says: tuple[str, ...], place: Place, run
) -> None:
    folder = begun_set(place)
    if spoil:
        (folder / spoil).write_bytes((folder / spoil).read_bytes()[:-20])
    before = tree(place.tmp)
    options = f"--preset fashion --set recipe.guidance_scale=2 --set train.batch_size=20 --root {place.tmp} {UNFETCHED}"
    options += " --set tracking.enabled=false"
    found = run("train", *options.split(), *words.split())
    check(*found, Case("train", words, code, says), place)
    assert tree(place.tmp) == before


def test_a_damaged_study_is_named_and_kept(place: Place, run) -> None:
    (place.tmp / "studies" / "fashion").mkdir(parents=True)
    (place.tmp / "studies" / "fashion" / "results.jsonl").write_text('{"half": ')
    before = tree(place.tmp)
    options = f"--preset fashion --root {place.tmp} @tiny --set tracking.enabled=false"
    found = run("study", *fill(options, place).split())
    check(*found, Case("study", "", 1, ("results.jsonl is damaged",)), place)
    assert tree(place.tmp) == before


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that another user may read but not write, outside pytest's own, which others may not even enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_write_permission(closed_folder: Path, place: Place, run) -> None:
    words = f"--preset fashion {UNFETCHED} --set tracking.enabled=false --root"
    assert run("build_prompts", *words.split(), str(place.tmp))[0] == 0  # the other user may not read what is imported
    os.seteuid(65534)
    try:
        found = run("build_prompts", *words.split(), str(closed_folder))
    finally:
        os.seteuid(0)
    check(*found, Case("build_prompts", "", 1, ("cannot write", "Permission denied")), place)
    assert list(closed_folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root, and only where mounting is allowed, can make a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_leaves_nothing_half_written_and_is_gone_on_from(small_disk: Path, place: Place, run) -> None:
    words = fill(f"--preset fashion --root {small_disk} @tiny --images-per-class 2000", place).split()
    found = run("build_prompts", *words)
    check(*found, Case("build_prompts", "", 1, ("cannot write", "No space left", "run the same command again")), place)
    assert tree(small_disk) == {}
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run("build_prompts", *words)[0] == 0
