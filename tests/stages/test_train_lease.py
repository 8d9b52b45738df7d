"""Two trainings of one model at a time, with a stand-in for the work of Ray's."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.stages.ingest import open_training_data
from pipeline.stages.train import LEASE, train
from pipeline.stages.worker_job import METRICS, Watch
from tests.image_sets import small_config


def fake_fit(_config: RunConfig, store: Store, model_dir: str, *_: Any) -> str:
    line = {"epoch": 1, "images": 16, "loss": 1.0, "accuracy": 0.5, "seconds": 1.0}
    store.write_bytes(f"{model_dir}/{METRICS}", json.dumps(line).encode())
    return "sha256 of the weights"


def train_twice(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, meanwhile: Callable[[], object]
) -> tuple[int, Store, list[dict[str, Any]]]:
    """How many fits two trainings of one model have, the second begun in the first one's; and what they returned.

    `meanwhile` is called when the second one waits, or fits, too.
    """
    store, config = Store.open(root), small_config(data="real", images_per_class=4)
    fits, begun, may_end = [], threading.Event(), threading.Event()

    def fit(*about: Any) -> str:
        fits.append(1)
        begun.set()
        assert may_end.wait(60)
        return fake_fit(*about)

    monkeypatch.setattr("pipeline.stages.train.fit", fit)
    with ThreadPoolExecutor(2) as drivers:
        first = drivers.submit(train, config, store)
        assert begun.wait(60)
        second = drivers.submit(train, config, store)
        deadline = time.monotonic() + 30
        while len(fits) == 1 and not any("holds" in line for line in caplog.messages) and time.monotonic() < deadline:
            time.sleep(0.05)
        meanwhile()
        may_end.set()
        return len(fits), store, [first.result(), second.result()]


def test_a_second_training_of_a_model_waits_for_the_first_and_finds_its_model(
    tmp_root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fits, store, (first, second) = train_twice(tmp_root, monkeypatch, caplog, lambda: None)
    assert fits == 1 and (first["existing"], second["existing"]) == (False, True)
    assert store.list_names(f"{first['model_dir']}/{LEASE}") == []


def test_whoever_waits_holds_no_images_meanwhile(
    tmp_root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[weakref.ref[Any]] = []
    is_there: list[bool] = []

    def open_data(*about: Any) -> Any:
        data = open_training_data(*about)
        held.append(weakref.ref(data))
        return data

    def look() -> None:
        time.sleep(0.5)
        is_there.extend(reference() is not None for reference in held)

    monkeypatch.setattr("pipeline.stages.train.open_training_data", open_data)
    train_twice(tmp_root, monkeypatch, caplog, look)
    assert is_there == [True, False]


def test_a_search_can_name_the_lease_of_its_training(tmp_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def fit(config: RunConfig, store: Store, model_dir: str, *_: Any) -> str:
        names.extend(store.list_names(f"{model_dir}/{LEASE}"))
        return fake_fit(config, store, model_dir)

    monkeypatch.setattr("pipeline.stages.train.fit", fit)
    watch = Watch((np.zeros((0, 28, 28)), np.zeros(0)), "images", lease_key="0a1b")
    train(small_config(data="real", images_per_class=4), Store.open(tmp_root), watch)
    assert [name.endswith("-0a1b") for name in names] == [True]
