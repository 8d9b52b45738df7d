import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, CommandResult
from tests.tiny_sets import options


def lines(done: CommandResult) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.check_ok().stdout.splitlines() if line.startswith("{")]


def temporary(folder: Path) -> dict[str, str | None]:
    """Temporary folders in a place of the test's own, but not Ray's sockets: their paths must be short."""
    return {"TMPDIR": str(folder), "RAY_TMPDIR": tempfile.gettempdir()}


def test_jobs_bench_generate_measures_one_ratio(tiny_model: Path, cli: Cli, tmp_path: Path) -> None:
    ratio = "parquet_over_bare_pyarrow"
    given = [*options(tiny_model, tmp_path / "unused"), "--only", ratio, "--repeats", "1", "--json"]
    done = cli("jobs.bench", "generate", *given, env=temporary(tmp_path))
    rates = {line["side"]: line["images_per_s"] for line in lines(done) if "side" in line}
    assert rates.keys() == {"shard_writes", "bare_pyarrow"} and done.json["spread"].keys() == {ratio}
    assert done.json[ratio] == rates["shard_writes"] / rates["bare_pyarrow"]


@pytest.mark.slow
def test_jobs_bench_generate_measures_every_side_in_one_run(tiny_model: Path, cli: Cli, tmp_path: Path) -> None:
    given = options(tiny_model, tmp_path / "unused")
    done = cli("jobs.bench", "generate", *given, "--repeats", "1", "--json", env=temporary(tmp_path))
    rates = {line["side"]: line["images_per_s"] for line in lines(done) if "side" in line}
    assert done.json["images"] == 40 and done.json["processes"] == 1
    assert {name: done.json[name] for name in done.json["spread"]} == {
        "stage_over_bare_loop": rates["stage"] / rates["bare_loop"],
        "engine_over_pipeline_call": rates["bare_loop"] / rates["pipeline_call"],
        "stage_over_ray_docs_way": rates["stage"] / rates["ray_docs_way"],
        "parquet_over_bare_pyarrow": rates["shard_writes"] / rates["bare_pyarrow"],
    }
    assert not (tmp_path / "unused").exists() and list(tmp_path.glob("synthclones-bench-*")) == []


def test_jobs_bench_scale_publishes_resumes_and_holds_shards_in_flight(cli: Cli, tmp_path: Path) -> None:
    rows = ["--rows", "3000", "--shard-rows", "50", "--sample-seconds", "0.02"]
    load = ["--inflight-shards", "8", "--inflight-actors", "2", "--shards-per-s", "8", "--inflight-seconds", "4"]
    done = cli("jobs.bench", "scale", *rows, *load, "--json", env=temporary(tmp_path))
    made, held = lines(done)[:2]
    assert done.json == {"bench": "scale", "rows": made, "in_flight": held}
    assert (made["rows"], made["shards"]) == (3000, 60) and made["files"] >= 60 + 3
    assert made["gigabytes"] > 3000 * 10_000 / 1e9  # distinct images: no dictionary made them one
    assert made["private_mb_by_rows"][-1][0] == 3000
    assert 0 < made["resume_first_image_s"] < made["resume_wall_s"]
    assert held["shards"] == 40 and 4 < held["in_flight"] <= 8 and held["driver_cpu_share"] > 0
    assert list(tmp_path.glob("synthclones-bench-*")) == []


def test_jobs_bench_gpu_compares_options_in_a_tiny_shape(cli: Cli) -> None:
    words = ["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--num-inference-steps", "2"]
    given = [
        "--batch-size",
        "2",
        "--try-batch-size",
        "2",
        "--repeats",
        "1",
        "--option",
        "none",
        "--option",
        "channels_last",
    ]
    found = lines(cli("jobs.bench", "gpu", *words, *given, env={"OMP_NUM_THREADS": "1"}))
    assert [line.get("variant") for line in found] == ["matmul", "plain pipeline", "none", "channels_last", None]
    assert found[-1]["best"] in [{k: v for k, v in line.items() if k != "bench"} for line in found[2:4]]


def test_jobs_bench_gpu_without_one_is_an_error(here: Cli) -> None:
    here("jobs.bench", "gpu", env={"CUDA_VISIBLE_DEVICES": ""}).check_error(2, "torch sees no GPU here", "--device cpu")


@pytest.mark.parametrize("words", [("generate", "--only", "speed"), ("scale", "--rows", "-1")])
def test_a_wrong_option_is_one_line(here: Cli, words: tuple[str, ...]) -> None:
    here("jobs.bench", *words, "--preset", "fashion").check_error(2, words[1])


@pytest.mark.slow
def test_jobs_bench_train_measures_every_side_in_one_run(cli: Cli, tmp_path: Path) -> None:
    sizes = ["images_per_class=4", "generate.shard_size=20", "train.epochs=2", "train.batch_size=16"]
    given = [word for size in (*sizes, "train.warmup_epochs=1") for word in ("--set", size)]
    words = ["--preset", "fashion", "--root", str(tmp_path / "unused"), *given, "--repeats", "1", "--json"]
    done = cli("jobs.bench", "train", *words, env=temporary(tmp_path))
    rates = {line["side"]: line["images_per_s"] for line in lines(done) if "side" in line}
    assert done.json["images"] == 40 and done.json["workers"] == 2
    assert {name: done.json[name] for name in done.json["spread"]} == {
        "ray_over_bare_ddp": rates["ray_memory"] / rates["bare_ddp"],
        "data_over_tensors": rates["bare_ddp"] / rates["tensors"],
        "stream_over_tensors": rates["ray_stream"] / rates["tensors"],
        "loader_over_bare_decode": rates["loader"] / rates["bare_decode"],
        "stream_over_torchvision_script": rates["ray_stream"] / rates["torchvision_script"],
    }
    assert not (tmp_path / "unused").exists() and list(tmp_path.glob("synthclones-bench-*")) == []


def test_jobs_bench_train_refuses_a_training_without_a_timed_epoch(here: Cli, tmp_path: Path) -> None:
    words = ["--preset", "fashion", "--root", str(tmp_path / "unused"), "--set", "train.epochs=1"]
    here("jobs.bench", "train", *words).check_error(2, "train.epochs is 1", "train.epochs=3")
