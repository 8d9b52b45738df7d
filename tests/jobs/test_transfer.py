"""`python -m jobs.transfer`, in this process: importing torch takes one of its own seconds."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.artifact import Store
from tests.transfer_layouts import picture


def test_jobs_transfer_prints_a_table_of_models_and_baselines_and_json_last(
    run, save_model, tmp_root: str, tmp_path: Path
):
    for label, name in enumerate(("dark", "bright")):
        for number in range(10):
            picture(tmp_path / "shades" / name / f"{number}.png", 20 + 200 * label + number)
    model = save_model(Store.open(tmp_root), "real").removeprefix("models/")
    settings = ["num_trials=1", "probe_seeds=[0]", "torch_threads=1", f"data_dir={tmp_path}"]
    sets = [word for text in settings for word in ("--set", f"transfer.{text}")]
    words = ["--preset", "fashion", "--root", tmp_root, "--set", "tracking.enabled=false", *sets, "--model", model]
    found = [word for name in (str(tmp_path / "shades"), "pets") for word in ("--dataset", name)]
    code, out, err = run("transfer", *words, *found, "--baselines", "--json")
    assert code == 0, err
    header, *rows, left_out, numbers, last = out.splitlines()
    summary = json.loads(last)
    assert header.split() == ["encoder", "models", "shades", "mean", "of", "groups", "log-odds"]
    assert [row.split("  ")[0] for row in rows] == ["real, 3 per class", "random weights", "raw pixels"]
    assert left_out == "left out: pets (see above)" and "pets: get it from https://" in err
    assert numbers == f"numbers: {summary['metrics']}" and Path(summary["metrics"]).is_file()
    assert summary["groups"]["raw pixels"] == 1.0
