"""`python -m jobs.analyze`, in this process: importing torch takes one of its own seconds."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from tests.transfer_layouts import picture


def test_jobs_analyze_prints_a_table_with_the_constants_and_json_last(run, save_model, tmp_root: str, tmp_path: Path):
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        for number in range(2):
            picture(tmp_path / "real" / wnid / f"{number}.png", 20 * label + number)
    model = save_model(Store.open(tmp_root), "synthetic").removeprefix("models/")
    settings = [f"evaluate.test_set={tmp_path / 'real'}", "evaluate.torch_threads=1", "tracking.enabled=false"]
    sets = [word for text in settings for word in ("--set", text)]
    words = ["--preset", "fashion", "--root", tmp_root, *sets, "--model", model, "--baselines", "--json"]
    code, out, err = run("analyze", *words)
    assert code == 0, err
    header, synthetic, random, note, metrics, chart, last = out.splitlines()
    summary = json.loads(last)
    assert header.split("  ")[0] == "encoder" and header.endswith("coding length")
    # The saved model has the initial weights of the same seed.
    assert synthetic.split()[4:] == random.split()[2:] and synthetic.startswith("synthetic, 3 per class")
    assert "20 images" in note and "share below 1e-05" in note and "eps^2 0.5" in note
    assert metrics == f"metrics: {summary['metrics']}" and chart == f"map: {summary['map']}"
    assert Path(summary["map"]).read_bytes().startswith(b"\x89PNG")
