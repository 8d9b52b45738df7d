"""`jobs.verify` on real Ray: what is wrong is named, what is repaired is as it was."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import ray

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.bench_null import NullMakers
from pipeline.stages.generate import generate
from tests.bad_input import tree
from tests.finished_sets import make_extras, make_set
from tests.tiny_sets import options, tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> RunConfig:
    return tiny_config(tiny_model)


@pytest.fixture(scope="module")
def root(config: RunConfig, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished set of 4 shards."""
    root = tmp_path_factory.mktemp("verify") / "runs"
    make_set(config, Store.open(str(root)))
    return root


@pytest.fixture
def call(tiny_model: Path, run) -> Callable[..., tuple[int, str, str]]:
    return lambda root, *words: run("verify", *options(tiny_model, root), *words)


def test_a_sound_set_is_told_to_be_sound(root: Path, call) -> None:
    code, out, _ = call(root, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and "40 images in 4 shards" in out
    assert (found["rows"], found["bad"], found["missing"], found["finished"]) == (40, {}, [], True)


def test_faults_are_named_and_repair_makes_only_those_shards_again(root: Path, config: RunConfig, call) -> None:
    folder = root / resolve_recipe(config).images_dir
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    sha256 = json.loads((folder / MANIFEST).read_text())["set_sha256"]
    torn, gone = folder / "shards/shard-000001.parquet", folder / "shards/shard-000002.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    gone.unlink()
    code, _, err = call(root)
    assert code == 1 and f"{torn}: it cannot be read" in err and f"{gone}: it is not there" in err
    assert "error: " in err and "1 bad and 1 missing of 4 shards" in err

    code, out, _ = call(root, "--repair", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["repaired"] == [1, 2]
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {torn.name, gone.name}
    assert json.loads((folder / MANIFEST).read_text())["set_sha256"] == sha256
    assert call(root)[0] == 0


def test_a_manifest_that_is_wrong_is_found(root: Path, config: RunConfig, call) -> None:
    path = root / resolve_recipe(config).images_dir / MANIFEST
    right = path.read_text()
    path.write_text(json.dumps({**json.loads(right), "ok": 39}))
    code, _, err = call(root)
    assert code == 1 and "it says ok 39, its shards say 40" in err
    assert call(root, "--repair")[0] == 0
    assert json.loads(path.read_text()) == json.loads(right)


def test_an_emptied_manifest_is_no_missing_one(root: Path, config: RunConfig, call) -> None:
    path = root / resolve_recipe(config).images_dir / MANIFEST
    right = path.read_text()
    path.write_text("{}")
    code, out, err = call(root)
    path.write_text(right)
    assert code == 1 and f"{path} is damaged (no 'shards')" in err and "Traceback" not in out + err


@pytest.fixture
def copied(root: Path, config: RunConfig, tmp_path: Path) -> Path:
    """The shards' folder of a copy of that set, to be changed."""
    return shutil.copytree(root, tmp_path / "runs") / resolve_recipe(config).images_dir / "shards"


def test_a_repair_that_cannot_be_made_here_changes_nothing(copied: Path, call) -> None:
    (copied / "shard-000001.parquet").write_bytes(b"torn")
    before = tree(copied.parents[2])
    gpu = ["--set", "generate.device=cuda", "--set", "generate.num_gpus_per_actor=1"]
    code, _, err = call(copied.parents[2], "--repair", *gpu)
    assert code == 2 and "this machine has no usable GPU" in err
    assert tree(copied.parents[2]) == before


def test_an_interrupted_extension_is_mended_up_to_its_highest_shard(
    copied: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shard 4 is torn and 5 is not there; the manifest knows of 4 shards, 0 to 3."""
    (copied / "shard-000004.parquet").write_bytes(b"torn")
    (copied / "shard-000006.parquet").write_bytes(b"torn")
    root = copied.parents[2]
    code, _, err = call(root)
    assert code == 1 and "shard-000005.parquet: it is not there" in err and "2 bad and 1 missing of 7 shards" in err
    monkeypatch.setattr("pipeline.stages.verify.generate", partial(generate, make_maker=NullMakers(3_000)))
    code, out, _ = call(root, "--repair", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["repaired"] == [4, 5, 6]
    code, out, _ = call(root)
    assert code == 0 and "70 images in 7 shards" in out


def test_a_shard_that_is_bad_again_is_no_repair(copied: Path, call, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "shard-000001.parquet").write_bytes(b"torn")
    monkeypatch.setattr("pipeline.stages.verify.generate", lambda *_, **__: None)
    monkeypatch.setattr("pipeline.stages.verify.publish_manifest", lambda *_: None)
    code, _, err = call(copied.parents[2], "--repair")
    assert code == 1 and "1 of 1 shards are bad again" in err


def test_strangers_are_named_and_what_killed_writers_left_is_removed(copied: Path, call) -> None:
    (copied / "shard-1.parquet").write_bytes(b"")
    old, young = copied / ".shard-000001.parquet.0f.tmp", copied / ".shard-000002.parquet.0f.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    code, out, err = call(copied.parents[2])
    assert code == 0 and "shard-1.parquet: no shard" in err and "1 files of killed writers, --repair" in out
    assert call(copied.parents[2], "--repair")[0] == 0
    assert not old.exists() and young.exists()


def test_a_set_that_is_not_there_is_named(tmp_path: Path, call) -> None:
    code, _, err = call(tmp_path / "runs")
    assert code == 2 and "is not there; run `python -m jobs.generate`" in err


def test_no_room_for_its_tasks_is_an_error_and_no_endless_wait(
    root: Path, tiny_model: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job holds every CPU, as one may on a cluster.

    One look takes up to 10 s while the pulse's process starts, so the time to the error is longer than that.
    """
    monkeypatch.setattr("pipeline.stages.pool_watch.POLL_S", 0.5)
    monkeypatch.setattr("pipeline.stages.pool_watch.WARN_AFTER_S", 2.0)
    holder = ray.remote(num_cpus=4)(type("Holder", (), {"is_there": lambda self: True})).remote()
    try:
        assert ray.get(holder.is_there.remote())
        code, out, err = run("verify", *options(tiny_model, root, {"generate.stall_timeout_s": 20}))
    finally:
        ray.kill(holder)
    assert code == 1 and "verify: nothing has happened for" in out
    assert "error: nothing has happened for" in err and "no actor could start; each needs 1 CPU" in err


@pytest.fixture
def with_extras(copied: Path, config: RunConfig) -> Path:
    """The folder of three extra shards beside that set: one of class 1, two of class 3."""
    wnids = resolve_recipe(config).classes.wnids
    make_extras(config, Store.open(str(copied.parents[2])), ((wnids[1], 5), (wnids[3], 10)))
    return copied.parent / "extra"


def test_extra_images_are_checked_and_repaired_in_their_places(with_extras: Path, call) -> None:
    root, before = with_extras.parents[2], json.loads((with_extras / MANIFEST).read_text())
    code, out, _ = call(root, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and (found["rows"], found["shards"], found["extra_shards"]) == (55, 7, 3)
    torn, gone = with_extras / "class-000001-000000.parquet", with_extras / "class-000003-000000.parquet"
    torn.write_bytes(torn.read_bytes()[:-9])
    gone.unlink()
    code, _, err = call(root)
    assert code == 1 and f"{torn}: it cannot be read" in err and f"{gone}: it is not there" in err
    uniform = tree(with_extras.parent / "shards")
    assert call(root, "--repair")[0] == 0
    assert json.loads((with_extras / MANIFEST).read_text())["set_sha256"] == before["set_sha256"]
    assert tree(with_extras.parent / "shards") == uniform
    assert call(root)[0] == 0


def test_extra_images_that_the_manifest_promises_are_missed(with_extras: Path, call) -> None:
    last = with_extras / "class-000003-000001.parquet"
    last.unlink()
    code, _, err = call(with_extras.parents[2])
    assert code == 1 and f"{last}: it is not there" in err and "0 bad and 1 missing of 7 shards" in err


def test_wrong_numbers_of_extra_images_are_found_and_mended(with_extras: Path, call) -> None:
    path = with_extras / MANIFEST
    right = json.loads(path.read_text())
    path.write_text(json.dumps({**right, "ok": 14}))
    code, _, err = call(with_extras.parents[2])
    assert code == 1 and f"{path}: it says ok 14, its shards say 15" in err
    assert call(with_extras.parents[2], "--repair")[0] == 0 and json.loads(path.read_text()) == right


def test_extra_images_of_no_class_are_strangers(with_extras: Path, call) -> None:
    shutil.copy(with_extras / "class-000001-000000.parquet", with_extras / "class-000010-000000.parquet")
    code, _, err = call(with_extras.parents[2])
    assert code == 0 and "extra/class-000010-000000.parquet: no shard" in err
