"""Sweeps through their command. Small ones train on real pictures in the place of generated ones: no pool starts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError
from pipeline.core.image_set import published_shards
from pipeline.core.sweep_config import SweepConfig
from pipeline.core.sweep_report import COLUMNS
from tests.image_sets import small_config, write_image_set

SPACE: dict[str, Any] = {
    "search": "grid",
    "validation": {"images_per_class": 20},
    "early_stopping": {
        "min_epochs": 6,
        "reduction_factor": 2,
    },  # the good point is at 0.36 by then
    "max_failures": 0,
    "base": ["train.num_workers=1", "generate.num_actors=1"],
    "space": {
        # One process waits beside the slot: the one to be stopped comes third, so the good one is always before it.
        "train.learning_rate": {"choice": [1.0e-8, 0.4, 1.0e-9]},
        "train.batch_size": {"choice": [512], "when": {"train.learning_rate": 1.0e-8}},  # more than there are images
    },
}


def real_pictures(store: Store) -> None:
    """A finished image set of 8 images of each class."""
    from pipeline.stages.generate import publish_manifest

    config = small_config()
    recipe = write_image_set(config, store)
    publish_manifest(config, recipe, store, sorted(published_shards(store, recipe.images_dir)))


def write_space(folder: Path) -> str:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    return str(path)


def write_config(folder: Path) -> str:
    """The run of `small_config` as --config takes it."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(small_config(epochs=8, warmup_epochs=0).model_dump(mode="json")))
    return str(path)


def created_placement_groups() -> list[str]:
    from ray.util import placement_group_table

    return [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]


def test_a_small_sweep_stops_one_trial_lists_another_as_failed_and_gives_all_workers_back(
    run, ray_cluster: None, tmp_path: Path
) -> None:
    store = Store.open(str(tmp_path / "runs"))
    real_pictures(store)
    words = ["--config", write_config(tmp_path), "--root", store.root, "--space", write_space(tmp_path), "--json"]
    code, out, err = run("tune.sweep", *words, "--slots", "1")
    assert code == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert (facts["finished"], facts["stopped_early"], facts["failed"]) == (1, 1, 1), facts
    best, stopped, failed = facts["trials"]
    assert best["point"] == {"train.learning_rate": 0.4} and best["epochs"] == 8 and stopped["epochs"] == 6
    assert facts["best"]["trial"] == best["trial"] and facts["front"] == [best["trial"]]
    assert best["accuracy"] > stopped["accuracy"]
    assert "batch_size" in failed["reason"]
    assert store.read_bytes(f"sweeps/small/tune/{failed['trial']}/error.txt").count(b"Failure #") == 1
    assert (facts["images_asked"], facts["images_made"], facts["images_reused"]) == (270, 0, 270)
    assert 0 < facts["slot_use"] <= 1
    assert store.exists(f"{best['model_dir']}/manifest.json")
    assert not (tmp_path / "runs" / stopped["model_dir"] / "checkpoints").exists()
    table = store.read_bytes("sweeps/small/table.csv").decode()
    assert table.startswith(",".join(COLUMNS)) and table.count("\n") == 4
    assert "## Failed" in store.read_bytes("sweeps/small/table.md").decode()
    assert store.read_bytes("sweeps/small/plot.png").startswith(b"\x89PNG")
    deadline = time.monotonic() + 60  # Ray frees what the dead held a moment after they died
    while created_placement_groups() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert created_placement_groups() == []
    code, again, err = run("tune.sweep", *words)
    assert code == 0 and json.loads(again.splitlines()[-1]) == facts


def test_dry_run_prints_the_plan_and_writes_nothing(run, tmp_path: Path) -> None:
    code, out, err = run("tune.sweep", "--preset", "fashion", "--root", str(tmp_path / "runs"), "--dry-run")
    assert code == 0, err
    assert "tpe, 24 trials, compared on real images" in out and "train.learning_rate: between 0.1, 0.8" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--space", "fashoin"], "did you mean 'fashion'"),
        (["--name", "../x"], "letters, digits"),
        (["--trials", "0"], "--trials"),
        (["--space", "none.yaml"], "does not exist"),
        (["--set", "train.epochs=none"], "train.epochs"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, words: list[str], says: str) -> None:
    code, _, err = run("tune.sweep", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()


def test_a_folder_of_another_sweep_is_an_input_error(tmp_path: Path) -> None:
    from pipeline.stages.sweep import Sweep

    store = Store.open(str(tmp_path))
    settings = SweepConfig.model_validate(SPACE)
    Sweep(settings, small_config(), store, "x")._begin()
    Sweep(settings, small_config(), store, "x")
    with pytest.raises(InputError, match="another space or preset"):
        Sweep(settings, small_config(epochs=7), store, "x")


def test_a_slot_is_what_a_trial_reserves_at_most_at_a_time() -> None:
    from pipeline.stages.sweep_tuner import slot_needs

    config = small_config(num_workers=3, num_cpus_per_worker=0.5)
    assert slot_needs(config) == {"CPU": 2, "GPU": 0}  # the pool of two actors
    streaming = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "stream"})})
    assert slot_needs(streaming)["CPU"] == 2.5  # the workers and the tasks that read


def test_a_trial_larger_than_the_cluster_is_an_input_error(ray_cluster: None) -> None:
    from pipeline.stages.sweep_tuner import cluster_slots

    with pytest.raises(InputError, match=r"a trial needs 99 CPU, more than this machine has"):
        cluster_slots(small_config(num_workers=99))


def test_a_cluster_may_grow_so_slots_are_believed(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.stages.sweep_tuner import cluster_slots

    config = small_config(num_workers=1)  # its pool of two actors is the most that it reserves
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    assert [cluster_slots(config, slots) for slots in (None, 9)] == [2, 9]
    larger = small_config(num_workers=99, batch_size=198)
    assert cluster_slots(larger) == 1
