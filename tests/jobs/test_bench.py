import json
from pathlib import Path

from tests.conftest import Cli


def test_jobs_bench_generate_measures_both_sides_in_one_run(tiny_model: Path, cli: Cli):
    settings = [f"recipe.model.id={tiny_model}", "recipe.width=16", "recipe.height=16", "recipe.num_inference_steps=1"]
    sets = [word for setting in [*settings, "tracking.enabled=false"] for word in ("--set", setting)]
    done = cli(
        "jobs.bench", "generate", "--preset", "fashion", "--images-per-class", "20", "--repeats", "1", "--json", *sets
    ).check_ok()
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rates = {line["side"]: line["images_per_s"] for line in lines if "side" in line}
    assert done.json["images"] == 200 and done.json["ratios"] == [rates["ray"] / rates["bare"]]


def test_jobs_bench_gpu_compares_options_in_a_tiny_shape(cli: Cli):
    words = ["--shape", "tiny", "--device", "cpu", "--dtype", "float32", "--num-inference-steps", "2"]
    options = ["--batch-size", "2", "--repeats", "1", "--option", "none", "--option", "channels_last"]
    done = cli("jobs.bench", "gpu", *words, *options, env={"OMP_NUM_THREADS": "1"}).check_ok()
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line.get("variant") for line in lines] == ["matmul", "plain pipeline", "none", "channels_last", None]
    assert lines[-1]["best"] in [{k: v for k, v in line.items() if k != "bench"} for line in lines[2:4]]


def test_jobs_bench_gpu_without_one_is_an_error(cli: Cli):
    cli("jobs.bench", "gpu", env={"CUDA_VISIBLE_DEVICES": ""}).check_error(2, "torch sees no GPU here", "--device cpu")
