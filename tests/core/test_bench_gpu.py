from pathlib import Path

import pytest
import torch

from pipeline.core.bench_gpu import Plan, bench_gpu
from pipeline.core.errors import InputError, WorkError
from pipeline.core.random_sd import SHAPES, flops_per_image, networks

TINY = Plan(
    shape="tiny",
    device="cpu",
    dtypes=["float32"],
    num_inference_steps=2,
    batch_size=2,
    batch_sizes=[1, 2],
    options=["none", "channels_last", "attention=cudnn"],
    repeats=1,
)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return list(bench_gpu(TINY, tmp_path_factory.mktemp("bench")))


def test_every_variant_is_measured_beside_the_plain_pipeline_and_the_bare_engine(records: list[dict]):
    measured = {record["variant"]: record for record in records[1:5] if "images_per_s" in record}
    plain, bare, last = (measured[name] for name in ("plain pipeline", "none", "channels_last"))
    assert bare["gain"] == pytest.approx(bare["images_per_s"] / plain["images_per_s"])
    assert last["gain"] == pytest.approx(last["images_per_s"] / plain["images_per_s"])
    assert last["engine_gain"] == pytest.approx(last["images_per_s"] / bare["images_per_s"])
    assert "engine_gain" not in bare and "gain" not in plain
    reached = records[0]["tflop_per_s"] * 1e12 / flops_per_image(SHAPES["tiny"], 3, guidance=True)
    shares = [record["images_per_s"] / reached for record in measured.values()]
    assert [record["matmul_share"] for record in measured.values()] == pytest.approx(shares)
    assert {record["unet_calls"] for record in measured.values()} == {3}  # PNDM makes one more than its steps


def test_a_record_names_its_device_and_its_dtype(records: list[dict]):
    assert {(record["device"].split()[0], record["dtype"]) for record in records[:-1]} == {("cpu", "float32")}


def test_a_kernel_that_is_not_there_is_recorded_and_the_others_go_on(records: list[dict]):
    failed = next(record for record in records if record.get("variant") == "attention=cudnn")
    assert "attention=cudnn is not there for float32 on cpu" in failed["error"]


def test_other_batch_sizes_are_tried_with_the_fastest_options(records: list[dict]):
    assert [record["batch_size"] for record in records[1:-1]] == [2, 2, 2, 2, 1]
    assert records[-1]["best"]["images_per_s"] == max(record.get("images_per_s", 0) for record in records[2:-1])


def test_nothing_measured_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("pipeline.core.bench_gpu._drawer", full)
    with pytest.raises(WorkError, match="none of 3 variants could be measured; the first: OutOfMemoryError: no room"):
        list(bench_gpu(TINY, tmp_path))


def test_a_missing_gpu_is_an_error_and_not_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch sees no GPU here"):
        next(bench_gpu(Plan(**{**TINY.__dict__, "device": "cuda"}), tmp_path))


def test_the_architecture_is_that_of_stable_diffusion_v1_4():
    """The published sizes, 859.5 M, 83.7 M and 123.1 M parameters, and 82.86 TFLOP for an image of 50 steps."""
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in network.parameters()) for network in networks(SHAPES["sd14"])]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert flops_per_image(SHAPES["sd14"], 50, guidance=True) == pytest.approx(82.86e12, rel=1e-3)
