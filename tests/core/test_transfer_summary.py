import pytest

from pipeline.core.encoders import Encoder
from pipeline.core.linear_probe import ProbeResult, log_odds
from pipeline.core.transfer_summary import ProbeRun, summary


def run(encoder: str, group: str, dataset: str, seed: int, correct: int, finished: bool = True) -> ProbeRun:
    result = ProbeResult(correct, 100, 0.5, {"C": 1.0}, finished, 30)
    return ProbeRun(Encoder(encoder, group, 0, 32, "", encoder), dataset, seed, result)


def test_means_go_over_seeds_then_encoders_then_sets_then_groups():
    runs = [
        *(run("r0", "real", "a", seed, correct) for seed, correct in ((0, 80), (1, 90))),
        *(run("r1", "real", "a", seed, correct) for seed, correct in ((0, 70), (1, 70))),
        *(run(name, "real", "b", seed, 40) for name in ("r0", "r1") for seed in (0, 1)),
        *(run(name, "real", "c", seed, 10, finished=False) for name in ("r0", "r1") for seed in (0, 1)),
        *(run("p", "pixels", name, seed, 50 + seed) for name in "abc" for seed in (0, 1)),
    ]
    real, pixels = summary(runs, {"a": "small", "b": "small", "c": "long tail"})
    assert real["group"] == "real" and real["encoders"] == ["r0", "r1"]
    cell = real["sets"]["a"]
    assert cell["top1_mean"] == pytest.approx(0.775) and cell["std_over"] == "encoders"
    assert cell["top1_std"] == pytest.approx(0.15 / 2**0.5)
    assert cell["log_odds"] == pytest.approx(log_odds(77.5, 100))  # of the mean, as trex has it
    assert [r["correct"] for r in cell["runs"]] == [80, 90, 70, 70]
    assert real["top1_mean"] == pytest.approx((0.775 + 0.4 + 0.1) / 3)
    assert real["group_means"] == pytest.approx({"small": 0.5875, "long tail": 0.1})
    assert real["top1_mean_of_groups"] == pytest.approx((0.5875 + 0.1) / 2)
    assert real["sets"]["c"]["unfinished"] == 4 and cell["unfinished"] == 0
    assert pixels["sets"]["a"]["std_over"] == "probe seeds"
    assert pixels["sets"]["a"]["top1_std"] == pytest.approx(0.01 / 2**0.5)
    assert pixels["log_odds_mean"] == pytest.approx(log_odds(50.5, 100))


def test_a_set_that_every_probe_gets_right_has_finite_log_odds():
    (row,) = summary([run("p", "pixels", "a", seed, 100) for seed in (0, 1)], {"a": "small"})
    assert row["log_odds_mean"] == pytest.approx(log_odds(99.5, 100))


def test_one_probe_has_no_deviation():
    (row,) = summary([run("p", "pixels", "a", 0, 50)], {"a": "small"})
    assert row["sets"]["a"]["top1_std"] is None
