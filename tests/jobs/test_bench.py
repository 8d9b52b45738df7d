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
