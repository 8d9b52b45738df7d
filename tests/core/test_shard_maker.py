import hashlib
import io
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.config import GenerateConfig, ModelConfig, RecipeConfig, RunConfig
from pipeline.core.diffusion import DiffusionEngine, GeneratedImage
from pipeline.core.errors import WorkerBrokenError
from pipeline.core.extra_shards import extra_shard
from pipeline.core.identity import FIRST_EXTRA, image_id
from pipeline.core.image_set import read_summary, shard_path
from pipeline.core.recipe import resolve_recipe
from pipeline.core.schema import IMAGE_SCHEMA
from pipeline.core.shard_maker import ShardMaker
from pipeline.stages.prompts import ensure_prompt_table
from tests.tiny_models import build_tiny_checker

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "runs"))


@pytest.fixture
def maker(tiny_model: Path, store: Store) -> ShardMaker:
    config = RunConfig(
        images_per_class=3,
        recipe=RecipeConfig(
            template="c, h_c inside b",
            model=ModelConfig(id=str(tiny_model)),
            width=16,
            height=16,
            num_inference_steps=2,
        ),
        generate=GenerateConfig(shard_size=12, batch_size=5),
    )
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    return ShardMaker(config, store, recipe.prompts_dir, parts, "images/x", recipe=recipe)


def rows_of(store: Store, shard: int) -> list[dict]:
    file_system, path = store.filesystem(shard_path("images/x", shard))
    return pq.read_table(path, filesystem=file_system).to_pylist()


def failing_for(bad: int) -> Callable[..., list[GeneratedImage]]:
    """The engine's own `generate`, but for one seed."""
    generate = DiffusionEngine.generate

    def broken(
        engine: DiffusionEngine, prompts: list[str], seeds: list[int], scales: list[float]
    ) -> list[GeneratedImage]:
        if bad in seeds:
            raise RuntimeError("no such\ncolour")
        return generate(engine, prompts, seeds, scales)

    return broken


def test_a_shard_holds_its_prompts_with_decodable_images(maker: ShardMaker, store: Store):
    maker.make(1)
    rows = rows_of(store, 1)
    prompts = maker.prompt_rows(1)
    assert [{name: row[name] for name in prompts[0]} for row in rows] == prompts
    for row in rows:
        assert row["sha256"] == hashlib.sha256(row["image"]["bytes"]).hexdigest()
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (row["width"], row["height"]) == (16, 16)


def test_the_file_has_the_declared_schema_and_an_image_feature(maker: ShardMaker, store: Store):
    maker.make(0)
    file_system, path = store.filesystem(shard_path("images/x", 0))
    schema = pq.read_schema(path, filesystem=file_system)
    assert schema.equals(IMAGE_SCHEMA) and b'"_type": "Image"' in schema.metadata[b"huggingface"]


def test_a_set_loads_with_the_datasets_library(
    maker: ShardMaker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its images arrive decoded, since the schema says which column holds them; a failed row has none."""
    from datasets import load_dataset

    maker.make(0)
    bad = maker.prompt_rows(1)[2]["seed"]
    monkeypatch.setattr(DiffusionEngine, "generate", failing_for(bad))
    assert maker.make(1).counts == {"ok": 11, "failed": 1}
    files = [store.uri(shard_path("images/x", shard)) for shard in (0, 1)]
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["image"] and row["image"].size for row in loaded] == [(16, 16)] * 14 + [None] + [(16, 16)] * 9
    assert loaded["sha256"][:] == [row["sha256"] for shard in (0, 1) for row in rows_of(store, shard)]


def test_an_image_does_not_depend_on_the_rows_around_it(maker: ShardMaker, store: Store, tiny_model: Path):
    maker.make(0)
    for row in rows_of(store, 0)[3:7]:  # across the edge of two batches
        alone = maker.engine.generate([row["prompt"]], [row["seed"]])[0].pixels
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), alone)


def test_an_extra_shard_is_a_batch_of_one_class_and_not_in_the_prompt_table(maker: ShardMaker, store: Store):
    summary = maker.make(extra_shard(4, 2))
    assert (summary.row_start, summary.rows, summary.counts) == (10, 5, {"ok": 5})
    rows = rows_of(store, extra_shard(4, 2))
    assert [row["image_id"] for row in rows] == [image_id(4, FIRST_EXTRA + number) for number in range(10, 15)]
    assert {row["class_index"] for row in rows} == {4} and len({row["sha256"] for row in rows}) == 5
    alone = maker.engine.generate([rows[3]["prompt"]], [rows[3]["seed"]])[0].pixels
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(rows[3]["image"]["bytes"]))), alone)


def test_the_footer_says_what_the_rows_are(maker: ShardMaker, store: Store):
    returned = maker.make(1)
    read = read_summary(store, "images/x", 1)
    assert read == returned
    assert (read.shard, read.row_start, read.rows, read.counts) == (1, 12, 12, {"ok": 12})


def test_making_a_shard_again_gives_the_same_rows(maker: ShardMaker):
    assert maker.make(0).rows_sha256 == maker.make(0).rows_sha256 != maker.make(1).rows_sha256


def test_shards_made_on_two_threads_are_those_made_one_by_one(maker: ShardMaker):
    alone = [maker.make(shard).rows_sha256 for shard in range(3)]
    with ThreadPoolExecutor(2) as pool:
        together = [summary.rows_sha256 for summary in pool.map(maker.make, range(3))]
    assert together == alone


def test_the_engines_seconds_of_shards_on_two_threads_are_no_more_than_the_clocks(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch
):
    def slow(engine: DiffusionEngine, prompts: list[str], seeds: list[int], scales: list[float]) -> list[Any]:
        time.sleep(0.05)
        return [GeneratedImage(PIXELS, is_nsfw=False)] * len(prompts)

    monkeypatch.setattr(DiffusionEngine, "generate", slow)
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(maker.make, range(3)))
    wall_s = time.perf_counter() - began
    assert 3 * 3 * 0.05 <= sum(summary.engine_s or 0 for summary in made) <= wall_s
    assert made[0].stored_bytes == sum(len(row["image"]["bytes"]) for row in rows_of(maker._store, 0))


def test_the_next_shard_is_drawn_while_one_is_written(maker: ShardMaker, monkeypatch: pytest.MonkeyPatch):
    """The first shard's write waits until the second one's images are there; without the overlap that is for ever."""
    drawn, write, rows = threading.Event(), Store.write_bytes, ShardMaker.rows

    def slow_write(store: Store, path: str, data: bytes) -> None:
        if path == shard_path("images/x", 0):
            assert drawn.wait(60)
        write(store, path, data)

    def told_rows(shard_maker: ShardMaker, shard: int) -> dict[int, dict[str, object]]:
        made = rows(shard_maker, shard)
        if shard == 1:
            drawn.set()
        return made

    monkeypatch.setattr(Store, "write_bytes", slow_write)
    monkeypatch.setattr(ShardMaker, "rows", told_rows)
    with ThreadPoolExecutor(2) as pool:
        assert [summary.shard for summary in pool.map(maker.make, [0, 1])] == [0, 1]


def test_a_row_that_fails_stays_a_row_and_spoils_no_other(
    maker: ShardMaker, store: Store, monkeypatch: pytest.MonkeyPatch
):
    bad = maker.prompt_rows(0)[2]["seed"]
    good = maker.make(0)
    reference = rows_of(store, 0)
    monkeypatch.setattr(DiffusionEngine, "generate", failing_for(bad))
    summary = maker.make(0)
    rows = rows_of(store, 0)
    assert summary.counts == {"ok": 11, "failed": 1} and summary.reasons == {"RuntimeError: no such colour": 1}
    assert (rows[2]["status"], rows[2]["image"], rows[2]["sha256"]) == ("failed", None, None)
    assert [r["sha256"] for r in rows if r["status"] == "ok"] == [
        r["sha256"] for i, r in enumerate(reference) if i != 2
    ]
    assert summary.rows_sha256 != good.rows_sha256


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (GeneratedImage(PIXELS, is_nsfw=False), "ok"),
        (GeneratedImage(np.zeros((16, 16, 3), np.uint8), is_nsfw=True), "nsfw"),
        (GeneratedImage(np.zeros((16, 16, 3), np.uint8), is_nsfw=False), "blank"),
    ],
)
def test_flagged_and_blank_images_are_told_apart(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch, image: GeneratedImage, status: str
):
    monkeypatch.setattr(DiffusionEngine, "generate", lambda engine, prompts, seeds, scales: [image] * len(prompts))
    summary = maker.make(0)
    assert summary.counts == {status: 12} and summary.reasons == {}


def test_a_safety_model_scores_images_and_keeps_them(maker: ShardMaker, store: Store, tiny_model: Path, tmp_path: Path):
    """At a threshold of -1 a checker flags all images; the same pixels are stored as without one."""
    maker.make(0)
    plain = rows_of(store, 0)
    recipe = maker._config.recipe.model_copy(
        update={"safety_model": ModelConfig(id=str(build_tiny_checker(tmp_path / "checker", threshold=-1)))}
    )
    config = maker._config.model_copy(update={"recipe": recipe})
    told: list[dict[str, float]] = []

    def hear(event: str, images: int = 0, seconds: Any = None, outcomes: Any = None) -> None:
        told.append(seconds)

    summary = ShardMaker(config, store, maker._prompts._prompts_dir, maker._prompts._parts, "images/x", hear).make(0)
    rows = rows_of(store, 0)
    assert summary.counts == {"nsfw": 12} and {row["reason"] for row in rows} == {"flagged by recipe.safety_model"}
    assert all(0 < row["nsfw_score"] <= 2.011 for row in rows) and {row["nsfw_score"] for row in plain} == {None}
    assert [row["sha256"] for row in rows] == [row["sha256"] for row in plain]
    assert sum("safety" in seconds for seconds in told) == 3  # once per batch


GPU_LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out of memory"), torch.AcceleratorError("CUDA error: unknown"), GPU_LOST]
)
def test_a_failing_device_burns_no_rows(
    maker: ShardMaker, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fails(engine: DiffusionEngine, prompts: list[str], seeds: list[int], scales: list[float]) -> None:
        raise error

    monkeypatch.setattr(DiffusionEngine, "generate", fails)
    with pytest.raises(WorkerBrokenError, match=r"device of this worker failed \(.*; look at that GPU"):
        maker.make(0)
    assert not store.exists(shard_path("images/x", 0))


def test_a_row_that_upsets_the_device_alone_is_a_failed_row_and_seconds_count_once(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch
):
    """12 rows in batches of 5, 5 and 2; each call takes a second; the first batch is made again row by row."""
    bad, told = maker.prompt_rows(0)[2]["seed"], []

    def calls(
        engine: DiffusionEngine, prompts: list[str], seeds: list[int], scales: list[float]
    ) -> list[GeneratedImage]:
        if bad in seeds:
            raise GPU_LOST
        engine.seconds = {"denoise": 1.0}
        return [GeneratedImage(PIXELS, is_nsfw=False)] * len(prompts)

    monkeypatch.setattr(DiffusionEngine, "generate", calls)
    monkeypatch.setattr(maker, "_on_batch", lambda event, images=0, seconds=None, outcomes=None: told.append(seconds))
    assert maker.make(0).counts == {"ok": 11, "failed": 1}
    assert [seconds["denoise"] for seconds in told if "denoise" in seconds] == [4.0, 1.0, 1.0]


def test_the_error_of_a_row_keeps_no_tensor_of_its_call(maker: ShardMaker, monkeypatch: pytest.MonkeyPatch):
    tensors: list[weakref.ref[torch.Tensor]] = []

    def fails(engine: DiffusionEngine, *columns: list[Any]) -> None:
        latents = torch.zeros(2)
        tensors.append(weakref.ref(latents))
        try:
            latents.view(3)
        except RuntimeError as error:
            raise ValueError from error

    monkeypatch.setattr(DiffusionEngine, "generate", fails)
    kept = maker._images(maker.prompt_rows(0)[:2])
    assert kept and [tensor() for tensor in tensors] == [None] * 3


@pytest.mark.parametrize(
    ("shape", "is_finite", "says"), [((16, 0), True, "Error: "), ((16, 16, 3), False, "give recipe.dtype=bfloat16 or")]
)
def test_a_picture_that_cannot_be_stored_is_a_failed_row(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], is_finite: bool, says: str
):
    made = [GeneratedImage(PIXELS, is_nsfw=False)] * 5
    made[1] = GeneratedImage(np.zeros(shape, np.uint8), is_nsfw=False, is_finite=is_finite)
    monkeypatch.setattr(DiffusionEngine, "generate", lambda engine, prompts, *_: made[: len(prompts)])
    monkeypatch.setitem(maker._config.recipe.__dict__, "dtype", "float16")
    summary = maker.make(0)
    assert summary.counts == {"ok": 9, "failed": 3} and all(says in reason for reason in summary.reasons)
