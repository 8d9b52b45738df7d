"""The command around the chain; tests/faults/test_kill_demo.py runs it whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobs.demo import main
from pipeline.cli import run_job
from pipeline.stages import chain

SUMMARY = {
    "images": 2000, "classes": 10, "test_images": 10000, "synthetic_top1": 0.75, "real_top1": 0.78, "gap": 0.03,
    "generate_images_per_s": 21.5, "train_images_per_s": 220.0, "seconds": {"generate": 100.0, "train": 300.0},
    "report": "/somewhere/report.html",
}  # fmt: skip


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["jobs.demo", *words])
        with pytest.raises(SystemExit) as caught:
            run_job(main)
        return caught.value.code, capsys.readouterr().out

    return run


def test_without_options_it_is_the_promised_run(run_main) -> None:
    code, out = run_main("--dry-run")
    config = yaml.safe_load(out)
    assert code == 0 and config["images_per_class"] == 200 and config["recipe"]["model"]["id"] == "embedded"
    assert (config["recipe"]["num_inference_steps"], config["recipe"]["guidance_scale"]) == (15, 1.0)


def test_it_prints_the_verdict_and_the_command_that_opens_mlflow(run_main, monkeypatch, tmp_path: Path) -> None:
    called = []

    def run_chain(config, store, say):
        called.append(store.root)
        return SUMMARY

    monkeypatch.setattr(chain, "run_chain", run_chain)
    code, out = run_main()
    assert code == 0 and called == [str(tmp_path / "runs" / "demo")]
    for part in ("top-1 0.7500", "top-1 0.7800", "+0.0300", "21.5", "400 s", "/somewhere/report.html"):
        assert part in out
    assert f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/runs/demo/mlflow.db'" in out


def test_without_tracking_no_mlflow_is_named(run_main, monkeypatch) -> None:
    monkeypatch.setattr(chain, "run_chain", lambda *_, **__: SUMMARY)
    assert "MLflow" not in run_main("--set", "tracking.enabled=false")[1]
