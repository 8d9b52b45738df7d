from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.core.scaling_law import ScalingFit, ScalingLaw, fit_scaling_law
from pipeline.core.scaling_report import REAL, Curve, advice, all_crossings, curve_facts, scaling_markdown, scaling_png

FAST, SLOW = ScalingLaw(0.10, 0.3, 0.8, 1000), ScalingLaw(0.15, 0.2, 0.3, 1000)
SIZES = [500, 1000, 2000, 4000]
TRUTH = {500: 0.72, 1000: 0.75, 2000: 0.77}
"""Images -> accuracy of two recipes without a difference."""


def curve(name: str, law: ScalingLaw, usd_per_image: float = 0.0) -> Curve:
    noise = (-0.002, 0.0, 0.002)
    return Curve(name, fit_scaling_law({n: [law.accuracy(n) + e for e in noise] for n in SIZES}), usd_per_image)


CURVES = [curve("fast", FAST, 0.001), curve("slow | one", SLOW)]


def test_the_next_doubling_is_the_law_s() -> None:
    facts = curve_facts(CURVES[0])
    assert facts["next_doubling"] == pytest.approx(FAST.accuracy(8000) - FAST.accuracy(4000), abs=2e-3)
    low, high = facts["next_doubling_interval"]
    assert low <= facts["next_doubling"] <= high


def test_a_dollar_buys_what_its_images_add() -> None:
    facts = curve_facts(CURVES[0])
    assert facts["next_usd"] == pytest.approx(facts["next_1000_images"])  # 1,000 images cost one
    assert curve_facts(CURVES[1])["next_usd"] is None


def test_a_thousand_more_images_add_what_the_law_says() -> None:
    law = ScalingLaw(0.1, 0.5, 0.5, 200)
    facts = curve_facts(Curve("small", ScalingFit(law, (law, law), {50: [0.5], 100: [0.5], 1000: [0.5]})))
    assert facts["next_1000_images"] == facts["next_doubling"] == law.accuracy(2000) - law.accuracy(1000)


def test_curves_meet_where_the_laws_do() -> None:
    (found,) = all_crossings([curve("fast", FAST), curve("slow", SLOW)])
    assert FAST.accuracy(found["images"]) == pytest.approx(SLOW.accuracy(found["images"]), abs=5e-3)


def test_the_advice_takes_the_best_at_each_budget_and_changes_at_the_crossing() -> None:
    late, early = ScalingLaw(0.05, 0.35, 0.6, 1000), ScalingLaw(0.2, 0.12, 0.6, 1000)
    lines = advice([curve("late", late), curve("early", early)])
    assert [line["images"] for line in lines] == [500, 1000, 2000, 4000, 8000, 16000, 32000]
    assert [line["measured"] for line in lines] == [True] * 4 + [False] * 3
    for line in lines:
        gap = late.accuracy(line["images"]) - early.accuracy(line["images"])
        if abs(gap) > 0.02:
            assert line["best"] == ("late" if gap > 0 else "early") and line["sure"] > 0.9
    assert {line["best"] for line in lines} == {"late", "early"}


def test_what_most_draws_put_first_is_taken_though_the_best_fit_says_otherwise() -> None:
    better, middle, worse = (ScalingLaw(0.1, amplitude, 0.5, 1000) for amplitude in (0.20, 0.21, 0.25))
    measured = {size: [0.5, 0.5] for size in SIZES}
    lucky = Curve("lucky", ScalingFit(better, (worse, worse, worse, better), measured))
    steady = Curve("steady", ScalingFit(middle, (middle,) * 4, measured))
    assert {(line["best"], line["runner_up"], line["sure"]) for line in advice([lucky, steady])} == {
        ("steady", "lucky", 0.75)
    }


def test_one_seed_has_no_spread_to_be_sure_by() -> None:
    laws = {"fast": FAST, "slow": SLOW}
    alone = [Curve(name, fit_scaling_law({n: [law.accuracy(n)] for n in SIZES})) for name, law in laws.items()]
    assert {line["sure"] for line in advice(alone)} == {None}
    assert "%" not in scaling_markdown(alone).split("| sure |")[1]


def test_equal_recipes_are_seldom_called_surely_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of two equal ones is at 95 % or more in 10 % of all studies, since it is chosen after the fact."""
    monkeypatch.setattr("pipeline.core.scaling_law.NUM_RESAMPLES", 60)  # 200 fits in seconds
    random, claims = np.random.default_rng(1), 0
    for pair in range(100):
        studies = [{n: [float(v) for v in random.normal(a, 0.006, 3)] for n, a in TRUTH.items()} for _ in range(2)]
        curves = [Curve(f"{i}", fit_scaling_law(study, seed=2 * pair + i)) for i, study in enumerate(studies)]
        claims += next(line["sure"] for line in advice(curves) if line["images"] == max(TRUTH)) >= 0.95
    assert claims <= 13


def test_real_images_are_no_choice() -> None:
    assert {line["best"] for line in advice([curve(REAL, FAST), curve("slow", SLOW)])} == {"slow"}
    assert advice([curve(REAL, FAST)]) == []


def test_the_text_holds_every_curve_and_no_name_breaks_its_table() -> None:
    text = scaling_markdown(CURVES)
    assert "| slow \\| one | " in text and "meet at about" in text and "(beyond what was measured)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {8, 6}


def test_a_choice_by_the_test_images_says_so_and_without_one_nothing_does() -> None:
    says = "chosen by accuracy on these very test images"
    assert says in scaling_markdown(CURVES)
    assert says not in scaling_markdown([CURVES[0], curve(REAL, SLOW)])


def test_the_plot_is_a_picture_of_these_numbers() -> None:
    hostile = [CURVES[0], Curve("$\\frac{", CURVES[1].fit)]
    one, other = scaling_png(CURVES, "A $title$"), scaling_png(hostile, "A $title$")
    assert Image.open(io.BytesIO(one)).size[0] > 800 and one != other
