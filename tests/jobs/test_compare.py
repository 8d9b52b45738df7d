from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.stages.tracking import tracked_run


def test_it_prints_the_table(run, save_model, tmp_path: Path, noise_folder: Path) -> None:
    store = Store.open(str(tmp_path))
    names = [save_model(store, "synthetic", seed).removeprefix("models/") for seed in (0, 1, 2)]
    with tracked_run(load_config("fashion"), store, "train", names[2], {}, {}) as tracked:
        pass
    options = ["--preset", "fashion", "--root", str(tmp_path), "--set", f"evaluate.test_set={noise_folder}"]
    code, out, err = run("jobs.compare", *options, *names[:2])
    assert code == 0, err
    assert out.count("top-1") == 3 and "McNemar" in out and f"| {names[1]} | " in out
    assert out.count("| 3 |") == 10 and "comparison.md and comparison.json in " in out
    name = f"train-{names[2][:8]}"
    code, out, err = run("jobs.compare", *options, names[0], str(tracked.run_id), name)  # a run's id, a run's name
    assert code == 0 and out.count(f"compare: models/{names[2]} ") == 1, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["abc"], "at least two"),
        (["abc", "../x"], "16 digits"),
        (["abc", "d,"], "16 digits"),
        (["abc", "abd"], "models/abc"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, words: list[str], says: str) -> None:
    code, _, err = run("compare", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()
