import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.generator_config import TRAINING
from pipeline.core.image_set import published_shards, read_summaries, read_summary, set_totals, shard_path
from pipeline.core.model_source import EMBEDDED
from pipeline.core.recipe import resolve_recipe
from pipeline.core.shard_maker import ShardMaker
from pipeline.core.tracking_uri import tracking_uri
from pipeline.stages.bench_null import NullMakers, NullShardMaker
from pipeline.stages.generate import check_failures, generate, make_shards
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.run_handle import RunHandle, mlflow_client
from tests.tiny_models import spoil_decoder

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config_of(model: Path, **values: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "images_per_class": 4,
            "recipe": {"model": {"id": str(model)}, "width": 16, "height": 16, "num_inference_steps": 1},
            "generate": {"shard_size": 10, "batch_size": 4, "num_actors": 1},
            "tracking": {"enabled": False},
            **values,
        }
    )


@pytest.fixture(scope="module")
def made(tiny_model: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A storage root with a finished set of 4 shards, and what `generate` said of it."""
    root = tmp_path_factory.mktemp("made") / "runs"
    return root, generate(config_of(tiny_model), Store.open(str(root)))


@pytest.fixture
def first(made: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return made[1]


@pytest.fixture
def store(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Store:
    """A copy of that root, to be changed."""
    return Store.open(str(shutil.copytree(made[0], tmp_path / "runs")))


def modified(store: Store, summary: dict[str, object]) -> dict[int, int]:
    """When each shard was written, nanoseconds."""
    paths = {k: Path(store.uri(shard_path(str(summary["images_dir"]), k))) for k in range(int(str(summary["shards"])))}
    return {shard: path.stat().st_mtime_ns for shard, path in paths.items() if path.exists()}


def test_words_that_the_generator_has_never_read_are_told_when_images_are_made(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copy(EMBEDDED / TRAINING, model)
    config = config_of(model)
    config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"template": "multiple c"})})
    for told in (1, 0):  # a set that is there is nothing to tell of
        caplog.clear()
        generate(config, Store.open(str(tmp_path / "runs")), make_maker=NullMakers(3_000))
        assert sum("has never read 'multiple'" in message for message in caplog.messages) == told


def test_a_set_is_resumed_and_extended_without_touching_a_shard(
    tiny_model: Path, store: Store, first: dict[str, Any]
) -> None:
    assert (first["rows"], first["ok"], first["images_made"], first["shards"]) == (40, 40, 40, 4)
    before = modified(store, first)
    lost = read_summary(store, first["images_dir"], 2).rows_sha256
    Path(store.uri(shard_path(first["images_dir"], 2))).unlink()
    larger = generate(config_of(tiny_model, images_per_class=7), store)
    assert (larger["rows"], larger["images_made"]) == (70, 40)  # shard 2 again, and 4, 5, 6
    after = modified(store, larger)
    assert {k for k in before if after[k] != before[k]} == {2}
    assert read_summary(store, first["images_dir"], 2).rows_sha256 == lost
    assert set_totals(read_summaries(store, first["images_dir"], range(4)))["set_sha256"] == first["set_sha256"]


def test_two_jobs_make_a_set_by_parts_and_the_last_one_writes_its_manifest(tiny_model: Path, tmp_root: str) -> None:
    config, store, maker = config_of(tiny_model), Store.open(tmp_root), NullMakers(3_000)
    end = generate(config, store, shards="1:", make_maker=maker)
    assert (end["rows"], end["images_made"], end["missing_shards"]) == (30, 30, 1)
    assert not store.exists(f"{end['images_dir']}/manifest.json")
    begin = generate(config, store, shards=":1", make_maker=maker)
    assert (begin["rows"], begin["images_made"], begin["shards"]) == (40, 10, 4)
    assert store.read_json(f"{end['images_dir']}/manifest.json")["set_sha256"] == begin["set_sha256"]
    assert begin["set_sha256"] == set_totals(read_summaries(store, end["images_dir"], range(4)))["set_sha256"]


def test_two_shards_in_flight_give_the_same_set(tiny_model: Path, tmp_root: str, first: dict[str, Any]) -> None:
    settings = {"shard_size": 10, "batch_size": 4, "num_actors": 1, "shards_in_flight": 2}
    overlapped = generate(config_of(tiny_model, generate=settings), Store.open(tmp_root))
    assert (overlapped["images_made"], overlapped["set_sha256"]) == (40, first["set_sha256"])


def test_a_smaller_request_leaves_a_larger_set_as_it_is(tiny_model: Path, store: Store, first: dict[str, Any]) -> None:
    before = modified(store, first)
    smaller = generate(config_of(tiny_model, images_per_class=2), store)
    assert (smaller["rows"], smaller["images_made"], modified(store, smaller)) == (40, 0, before)


def test_a_model_that_breaks_on_the_worker_is_one_clear_error(tiny_model: Path, store: Store, tmp_path: Path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises((InputError, WorkError), match="broken"):
        generate(config_of(broken), store)


def test_too_many_failed_rows_end_the_job_with_their_reasons(tiny_model: Path, store: Store, tmp_path: Path):
    """The failure is real: this scheduler refuses more steps than it was trained with, once it is called."""
    model = shutil.copytree(tiny_model, tmp_path / "flaky")
    settings = model / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "num_train_timesteps": 1}))
    recipe = {
        "model": {"id": str(model)},
        "width": 16,
        "height": 16,
        "num_inference_steps": 2,
        "scheduler": "DDIMScheduler",
    }
    with pytest.raises(WorkError, match=r"10 of 40 images .*max_failed_fraction=0.01 .*ValueError.*--retry-failed"):
        generate(config_of(model, recipe=recipe, generate={"shard_size": 10, "batch_size": 4, "num_actors": 1}), store)


def test_a_set_of_images_without_numbers_ends_with_an_error(tiny_model: Path, tmp_root: str, tmp_path: Path) -> None:
    config = config_of(spoil_decoder(shutil.copytree(tiny_model, tmp_path / "overflowing")))
    with pytest.raises(
        WorkError, match=r"10 of 40 images .*FloatingPointError: the model gave NaN .*check the weights"
    ):
        generate(config, Store.open(tmp_root))


def test_a_limit_in_rows_counts_beside_the_fraction(tiny_model: Path, store: Store):
    config = config_of(tiny_model, generate={"max_failed_fraction": 1, "max_failed_rows": 3})
    recipe = resolve_recipe(config)
    check_failures(config, recipe, store, 3, 40, {"X: a": 3})
    with pytest.raises(WorkError, match=r"max_failed_rows=3 allows \(3 x X: b; 1 x X: a\)"):
        check_failures(config, recipe, store, 4, 40, {"X: a": 1, "X: b": 3})


def test_a_shard_that_another_driver_published_meanwhile_is_left_alone(
    tiny_model: Path, store: Store, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other driver is real enough: its shards are there although this one's look at the ledger saw none."""
    before = modified(store, first)
    Path(store.uri(shard_path(first["images_dir"], 2))).unlink()
    monkeypatch.setattr("pipeline.stages.generate.published_shards", lambda store, images_dir: set())
    again = generate(config_of(tiny_model), store, make_maker=NullMakers(3_000))
    assert (again["images_made"], again["rows"]) == (10, 40)
    assert {k for k, written in modified(store, first).items() if written != before[k]} == {2}


def test_retry_makes_the_shards_with_failed_rows_again(
    tiny_model: Path, store: Store, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny_model)
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir)
    with monkeypatch.context() as patch:
        patch.setattr(maker.engine, "generate", lambda prompts, seeds, scales: 1 / 0)
        maker.make(1)
    with pytest.raises(WorkError, match="10 of 40 images"):
        generate(config, store)
    mended = generate(config, store, retry_failed=True)
    assert (mended["images_made"], mended["ok"], mended["set_sha256"]) == (10, 40, first["set_sha256"])


class Points(RunHandle):
    """A run that keeps its points to itself."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.points: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.points.append((step, dict(metrics)))


def test_curves_get_a_point_now_and_then_and_a_last_one(tiny_model: Path, tmp_root: str) -> None:
    config, store, run = config_of(tiny_model), Store.open(tmp_root), Points()
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    worker = {"replace": False, "make_maker": NullMakers(3_000)}
    assert make_shards(config, recipe, store, parts, [0, 1, 2, 3], done_before=0, run=run, worker=worker) == 40
    images = [(step, metrics["images"]) for step, metrics in run.points if "images" in metrics]
    assert images == [(1, 10), (4, 40)]


def test_a_worker_with_other_weights_than_the_driver_refuses(tiny_model: Path, tmp_root: str, tmp_path: Path) -> None:
    """The files change after the driver has hashed them; on another node they would simply be others."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config, store = config_of(model), Store.open(tmp_root)
    recipe = resolve_recipe(config)
    with open(model / "unet" / "diffusion_pytorch_model.safetensors", "ab") as weights:
        weights.write(b" ")
    with pytest.raises(InputError, match="has other files than where the job was started"):
        generate(config, store, make_maker=NullMakers(3_000))
    assert not published_shards(store, recipe.images_dir)


def test_on_a_cluster_the_driver_fetches_no_weights(
    tiny_model: Path, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    recipe = {"model": {"id": "nobody/nothing", "revision": "a" * 40}}
    settings = {"shard_size": 10, "num_actors": 1, "preflight": "never"}
    config = config_of(tiny_model, recipe=recipe, generate=settings)
    assert generate(config, Store.open(tmp_root), make_maker=NullMakers(3_000))["ok"] == 40


class TellingMakers:
    """Makers of ready images that tell of a second of work and of two failed images with each shard."""

    def __call__(self, *arguments: Any) -> Any:
        maker = TellingShardMaker(*arguments)
        maker.settings = NullMakers(3_000)
        return maker


class TellingShardMaker(NullShardMaker):
    def make(self, shard: int) -> Any:
        self._on_batch("encoded", 0, {"denoise": 1.0}, {"ok": 8, "failed: OSError": 2})
        return super().make(shard)


def test_work_and_failures_are_curves_in_mlflow_while_the_job_runs(tiny_model: Path, tmp_root: str) -> None:
    """So that a killed job's run has them too."""
    settings = {"shard_size": 10, "num_actors": 1, "log_interval_s": 0.001}
    config = config_of(tiny_model, generate=settings, tracking={})
    store = Store.open(tmp_root)
    run_id = generate(config, store, make_maker=TellingMakers())["mlflow_run_id"]
    client = mlflow_client(tracking_uri(config.tracking, store))
    for name, last in (("seconds.denoise", 4.0), ("failed.OSError", 8.0)):
        points = {point.step: point.value for point in client.get_metric_history(run_id, name)}
        assert sorted(points) == [1, 2, 3, 4] and points[4] == last


def test_gpus_that_no_actor_takes_are_said_at_the_start(
    tiny_model: Path, tmp_root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.stages.generate.spare", lambda needs, _, shards: f"{needs['GPU']:g} GPU, {shards}")
    generate(config_of(tiny_model), Store.open(tmp_root))
    assert "preflight: 0 GPU, 4\n" in capsys.readouterr().out
