"""`jobs.regenerate` on real Ray: the same bits in the same environment, and honest words otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.regenerate import describe
from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.identity import FIRST_EXTRA, image_id
from pipeline.core.image_set import read_summary, shard_path
from pipeline.core.recipe import resolve_recipe
from pipeline.core.shard_maker import shard_bytes, summarize
from tests.finished_sets import make_extras, make_set
from tests.tiny_sets import options, tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> RunConfig:
    return tiny_config(tiny_model)


@pytest.fixture(scope="module")
def made(config: RunConfig, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regenerate") / "runs"
    make_set(config, Store.open(str(root)))
    return root


@pytest.fixture
def call(tiny_model: Path, run) -> Callable[..., tuple[int, str, str]]:
    return lambda root, *words: run("regenerate", *options(tiny_model, root), *words)


def test_images_are_bit_equal_in_the_same_environment(made: Path, call) -> None:
    ids = [image_id(0, 0), image_id(9, 3), image_id(4, 1)]
    code, out, _ = call(made, "--json", *(word for i in ids for word in ("--image-id", str(i))))
    found = json.loads(out.splitlines()[-1])["images"]
    assert code == 0 and {each["image_id"] for each in found} == set(ids)
    assert all(each["is_equal"] and each["psnr_db"] == 100 and each["differs"] == {} for each in found)


def test_extra_images_are_bit_equal_too(made: Path, config: RunConfig, tmp_path: Path, call) -> None:
    root = shutil.copytree(made, tmp_path / "runs")
    make_extras(config, Store.open(str(root)), ((resolve_recipe(config).classes.wnids[4], 8),))
    ids = [image_id(4, 1), image_id(4, FIRST_EXTRA + 6)]
    code, out, _ = call(root, "--json", *(word for i in ids for word in ("--image-id", str(i))))
    found = json.loads(out.splitlines()[-1])["images"]
    assert code == 0 and [(each["image_id"], each["is_equal"]) for each in found] == [(i, True) for i in ids]


def with_another_image(root: Path, config: RunConfig, environment: dict[str, str] | None) -> int:
    """Put the set's first image where its second should be, honestly hashed; the id of that second one."""
    import pyarrow.parquet as pq

    store, recipe = Store.open(str(root)), resolve_recipe(config)
    path = shard_path(recipe.images_dir, 0)
    rows = pq.read_table(store.uri(path)).to_pylist()
    rows[1] = {**rows[1], "image": rows[0]["image"], "sha256": rows[0]["sha256"]}
    then = {**read_summary(store, recipe.images_dir, 0).environment, **(environment or {})}
    store.write_bytes(path, shard_bytes(rows, summarize(0, 0, rows, 0.0, then)))
    return int(rows[1]["image_id"])


def test_another_image_in_the_same_environment_is_an_error(made: Path, config: RunConfig, tmp_path: Path, call) -> None:
    root = shutil.copytree(made, tmp_path / "runs")
    identifier = with_another_image(root, config, None)
    code, _, err = call(root, "--image-id", str(identifier))
    assert code == 1 and "1 of 1 images are others" in err and "the environment is the same" in err


def test_another_environment_explains_it_and_says_how_far_apart(
    made: Path, config: RunConfig, tmp_path: Path, call
) -> None:
    root = shutil.copytree(made, tmp_path / "runs")
    identifier = with_another_image(root, config, {"torch": "1.0", "device": "NVIDIA H100"})
    code, out, _ = call(root, "--image-id", str(identifier))
    assert code == 0 and "dB (ok then, ok now)" in out
    assert "device: NVIDIA H100 then" in out and "torch: 1.0 then" in out


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"is_equal": True, "has_equal_pixels": True}, "bit-equal"),
        (
            {"has_equal_pixels": True, "psnr_db": 100.0},
            "the same pixels in other bytes of the file; encoder: a then, b now",
        ),
        ({"stored_status": "failed", "status": "failed"}, "failed both times"),
        ({"status": "failed"}, "no two pictures of one size to compare (ok then, failed now); encoder: a then, b now"),
        ({"psnr_db": 31.25}, "PSNR 31.2 dB (ok then, ok now); encoder: a then, b now"),
    ],
)
def test_a_comparison_in_words(values: dict[str, object], says: str) -> None:
    other = {"is_equal": False, "has_equal_pixels": False, "psnr_db": None, "stored_status": "ok", "status": "ok"}
    about = {"image_id": 7, "shard": 2, "differs": {"encoder": ("a", "b")}}
    assert describe({**about, **other, **values}).startswith(f"image 7 in shard 2: {says}")


def test_a_torn_shard_is_one_line(made: Path, config: RunConfig, tmp_path: Path, call) -> None:
    root = shutil.copytree(made, tmp_path / "runs")
    path = root / shard_path(resolve_recipe(config).images_dir, 0)
    path.write_bytes(path.read_bytes()[:-9])
    code, out, err = call(root, "--image-id", str(image_id(0, 0)))
    assert code == 1 and "Traceback" not in out + err
    assert "shard-000000.parquet is damaged" in err and "jobs.verify --repair" in err


@pytest.mark.parametrize(
    ("identifier", "says"), [(image_id(10, 0), "names no class"), (-1, "names no class"), (image_id(0, 9), "shard 9")]
)
def test_an_image_that_is_not_there_is_an_input_error(identifier: int, says: str, made: Path, call) -> None:
    code, _, err = call(made, "--image-id", str(identifier))
    assert code == 2 and says in err


def test_no_room_for_the_worker_is_an_error_and_no_endless_wait(
    made: Path, tiny_model: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.pool_watch.POLL_S", 0.5)
    greedy = {"generate.num_cpus_per_actor": 64, "generate.stall_timeout_s": 5}
    code, _, err = run("regenerate", *options(tiny_model, made, greedy), "--image-id", str(image_id(0, 0)))
    assert code == 1 and "no actor could start; each needs 64 CPU" in err
