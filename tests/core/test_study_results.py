"""What a study keeps of each scored training."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.study_results import RESULTS, keep_result, read_results, set_columns


def line(report: str, **more: Any) -> dict[str, Any]:
    return {"report": f"reports/{report}/report.html", "top1": 0.5, "cell": "c, h_c \u2028 \u00e9", **more}


def test_lines_are_read_as_they_were_kept(store: Store) -> None:
    results = read_results(store, "studies/small")
    assert results == {}
    for one in (line("a"), line("b"), line("a", top1=0.6)):  # the same report again: the new one counts
        keep_result(store, "studies/small", results, one)
    assert read_results(store, "studies/small") == results == {"a": line("a", top1=0.6), "b": line("b")}


def test_lines_of_another_command_stay(store: Store) -> None:
    """As of two `jobs.study --only`, each of which read the file before the other one wrote."""
    one, two = read_results(store, "studies/small"), read_results(store, "studies/small")
    keep_result(store, "studies/small", one, line("a"))
    keep_result(store, "studies/small", two, line("b"))
    assert read_results(store, "studies/small") == two == {"a": line("a"), "b": line("b")}


def test_lines_that_are_kept_at_the_same_time_all_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes, reading = Store.write_bytes, threading.Barrier(2)

    def write_late(self: Store, path: str, data: bytes, patience_s: float | None = None) -> None:
        if path.endswith(RESULTS):
            time.sleep(1)  # the other one has read the file by now, unless it waits
        write_bytes(self, path, data, patience_s)

    def keep(report: str) -> None:
        reading.wait(60)
        keep_result(store, "studies/small", {}, line(report))

    monkeypatch.setattr(Store, "write_bytes", write_late)
    threads = [threading.Thread(target=keep, args=(report,)) for report in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(read_results(store, "studies/small")) == {"a", "b"}


def test_an_older_line_has_fewer_columns() -> None:
    whole = line("a", top5=0.9, other_test_sets={"imagenet_r": 0.3}, corrupted_top1=None)
    assert set_columns(whole) == {"top-5": 0.9, "imagenet_r": 0.3}
    assert set_columns(line("a")) == {}


@pytest.mark.parametrize("text", [b'{"top1": 0.5}\n', b"[]\n", b'{"report": "x"}\n', b'{"report"'])
def test_a_damaged_file_is_named(store: Store, text: bytes) -> None:
    store.write_bytes(f"studies/small/{RESULTS}", text)
    with pytest.raises(WorkError, match=r"results.jsonl is damaged .*move it away"):
        read_results(store, "studies/small")
