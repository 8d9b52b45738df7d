import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.gallery import ClassRow, Picture
from pipeline.core.report import Report, Stage, duration, percent, points, render_report
from pipeline.core.shift import ShiftRow

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


def group(top1: float, **changes) -> dict:
    model = {
        "model_id": "ab12", "seed": 0, "top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01], "top5": 0.99,
        "calibration_error": 0.04,
    }  # fmt: skip
    means = {f"{name}_mean": value for name, value in (("top1", top1), ("top5", 0.99), ("calibration_error", 0.04))}
    stds = {f"{name}_std": None for name in ("top1", "top5", "calibration_error")}
    return {"training_images": 2000, "models": [model], "per_class_mean": [top1, None], **means, **stds, **changes}


def report(text: str = "text", twin: bool = True, **changes) -> Report:
    groups = {"synthetic": group(0.7123)} | ({"real": group(0.781)} if twin else {})
    metrics = {
        "test_set": {"name": text, "images": 10_000}, "groups": groups, "top_k": 2, "num_calibration_bins": 15,
        "gap": {"top1": 0.0687, "top1_interval": [0.06, 0.0774], "top5": 0.0} if twin else None, "corruptions": None,
    }  # fmt: skip
    row = ClassRow(text, text, [Picture(PIXEL, text, [text, "seed 7"])], [Picture(PIXEL, text, [text], True)])
    both = dict.fromkeys(groups, (0.7, 0.01))
    shift = ShiftRow(text, 30_000, 19, text, True, both, 0.05 if twin else None)
    values = {
        "created": "2026-01-02 03:04 UTC", "metrics": metrics, "class_names": [text, "other"], "rows": [row],
        "confusions": [(name, PIXEL) for name in groups], "curves": PIXEL, "shift": [shift], "spider": PIXEL,
        "stages": [Stage("generate", text, 61.0, 20.5)],
        "identities": {text: text}, "settings": {text: text}, "versions": {text: text}, "tracking": (text, text),
    }  # fmt: skip
    return Report(**{**values, **changes})


def test_classes_with_the_largest_gap_come_first_and_each_tells_its_gap() -> None:
    found = report(class_names=["least", "unseen", "most"])
    found.metrics["groups"]["synthetic"]["per_class_mean"] = [0.9, None, 0.5]
    found.metrics["groups"]["real"]["per_class_mean"] = [0.85, None, 0.75]
    assert found.by_class == [(2, 0.25), (0, pytest.approx(-0.05)), (1, None)]
    text = " ".join(" ".join(Page(render_report(found)).text).split())
    assert "most gap +25.0 50.0% 75.0% least gap −5.0 90.0% 85.0% unseen – –" in text


def test_without_a_twin_classes_stand_in_label_order() -> None:
    found = report(twin=False)
    assert found.by_class == [(0, None), (1, None)]
    assert "gap" not in render_report(found).partition("Accuracy by class")[2].partition("Confusion")[0]


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def shape(html: str) -> list:
    """The page without its text: tags in order and the names of their attributes."""
    return [(tag, sorted(attributes)) for tag, attributes in Page(html).tags]


PLAIN_SHAPE = shape(render_report(report("plain")))
HOSTILE = st.text(st.sampled_from(list("<>&\"'`={}%#/\\;:$ \n\tabscript!-")), min_size=1, max_size=40)


def for_hostile_texts(check: Callable[[str], None]) -> Callable[[], None]:
    """The check, for texts that would break out of a page if one place of it did not escape them."""
    texts = [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "'); </style><script>",
        "javascript:alert(1)",
    ]
    for text in [*texts, "{{ 7 * 7 }}{% for x in y %}{#", "]]><!--"]:
        check = example(text)(check)
    checked: Callable[[], None] = settings(max_examples=100)(given(HOSTILE | st.text(min_size=1))(check))
    return checked


@for_hostile_texts
def test_no_text_can_become_markup(text: str):
    html = render_report(report(text))
    assert shape(html) == PLAIN_SHAPE
    page = Page(html)
    shown = text.replace("\r\n", "\n")
    assert shown in page.text
    assert [a["alt"] for tag, a in page.tags if tag == "img"][-2] == text  # the last one is the curves


def test_it_says_the_verdict():
    text = " ".join("".join(Page(render_report(report())).text).split())
    assert "71.2% top-1 on real ones" in text
    assert "gap to real, points +6.9 real is better; 95% interval 6.0 to 7.7" in text
    assert "10,000 real test images" in text and "1 min 01 s" in text and "20.5" in text


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.001, 0.02, "real is better"), (-0.012, 0.013, "not told apart"), (-0.03, -0.001, "generated is better")],
)
def test_the_gap_claims_no_more_than_its_interval(low: float, high: float, says: str):
    page = report()
    page.metrics["gap"]["top1_interval"] = [low, high]
    assert says in render_report(page)


def test_twins_of_unlike_sizes_say_so_where_their_accuracy_stands():
    page = report()
    assert "of them" not in render_report(page)
    page.metrics["groups"]["synthetic"] = group(0.7123, training_images=20_000)
    html = render_report(page)
    assert "generated images, 20,000 of them" in html and "real images (the twin), 2,000 of them" in html


def test_nothing_is_fetched_and_nothing_runs():
    html = render_report(report())
    tags = Page(html).tags
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in tags}
    sources = [value for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"@import|url\(", html)
    policy = next(a["content"] for tag, a in tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_every_image_has_a_text_for_those_who_do_not_see_it():
    assert all(attributes.get("alt") for tag, attributes in Page(render_report(report())).tags if tag == "img")


def test_the_table_of_test_sets_and_of_corruptions():
    share = {"mean": 0.513, "std": 0.0123}
    group = {"clean": share, "corrupted": share, "relative": share, "table": {"fog": [0.611, 0.222]}}
    settings = {"names": ["fog"], "severities": [1, 5], "seed": 7}
    robust = {"images": 1000, "settings": settings, "groups": {"synthetic": group, "real": group}}
    page = Page(render_report(report(metrics={**report().metrics, "corruptions": robust})))
    text = " ".join(" ".join(page.text).split())
    assert "text 30,000 19 text 70.0% ± 1.0 70.0% ± 1.0 +5.0" in text
    assert "real 51.3% ± 1.2 51.3% ± 1.2 51.3% ± 1.2" in text and "fog synthetic 61.1% 22.2%" in text
    assert "on 1,000 images of text, each image with draws of its own (seed 7)" in text


def test_one_whole_test_set_without_corruptions_has_neither():
    html = render_report(report(shift=[], spider=None))
    assert "Domain shift" not in html and "Corruptions" not in html


def test_without_twin_curves_and_tracking():
    html = render_report(report(twin=False, curves=None, tracking=None))
    assert "gap to real" not in html and "MLflow" not in html and "71.2%" in html


def test_a_real_model_alone():
    metrics = {**report().metrics, "groups": {"real": group(0.78)}, "gap": None}
    assert "Trained on real images: 78.0% top-1" in render_report(report(metrics=metrics))


def test_seeds_show_their_spread():
    groups = {"synthetic": group(0.70, models=group(0.7)["models"] * 3, top1_std=0.0123)}
    html = render_report(report(metrics={**report().metrics, "groups": groups, "gap": None}))
    assert "mean of 3 seeds, ± 1.2" in html


def test_numbers_as_people_write_them():
    assert (percent(0.7126), percent(None), points(0.0312), points(-0.004)) == ("71.3%", "–", "+3.1", "−0.4")
    assert [duration(s) for s in (None, 2.34, 42.4, 425, 12_000)] == ["–", "2.3 s", "42 s", "7 min 05 s", "3 h 20 min"]
