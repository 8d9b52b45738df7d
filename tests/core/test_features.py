from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from torch import nn

from pipeline.core import features
from pipeline.core.artifact import Store
from pipeline.core.encoders import Encoder, pixel_encoder
from pipeline.core.errors import InputError, WorkError
from pipeline.core.features import check_device, features_dir, features_of
from pipeline.core.real_images import ArrayImages

HOW = {"batch_size": 4, "device": "cpu", "torch_threads": 1}


def pictures(count: int = 10) -> ArrayImages:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    return ArrayImages("noise", "ab" * 32, images, np.arange(count, dtype=np.int64))


FLATTEN = nn.Flatten()


@dataclass(frozen=True)
class Fixed(Encoder):
    """An encoder with a given network."""

    network: nn.Module | None = FLATTEN

    def load(self, store: Store) -> nn.Module:
        assert self.network is not None
        return self.network


def test_rows_are_the_images_in_order_over_batches_and_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PART_ROWS", 5)  # batches of 4: parts of 8 and 2
    store, images = Store.open(str(tmp_path)), pictures()
    found, labels = features_of(pixel_encoder(8), images, store, **HOW)
    wanted = torch.cat([batch for batch, _ in images.batches(10, 8)]).flatten(1).numpy()
    assert np.array_equal(found, wanted) and found.dtype == np.float32
    assert labels.tolist() == list(range(10))
    directory = features_dir(pixel_encoder(8), images.fingerprint)
    assert store.list_names(directory) == ["manifest.json", "part-000000.safetensors", "part-000001.safetensors"]


def test_images_are_resized_as_they_are_scored(tmp_path):
    store, images = Store.open(str(tmp_path)), pictures()
    plain, _ = features_of(pixel_encoder(8), images, store, **HOW)
    wider, _ = features_of(pixel_encoder(8), images, store, **HOW, resize=12)
    wanted = torch.cat([batch for batch, _ in images.batches(10, 8, 12)]).flatten(1).numpy()
    assert np.array_equal(wider, wanted) and not np.array_equal(plain, wider)


def test_a_second_call_looks_at_no_image_and_loads_no_network(tmp_path):
    store = Store.open(str(tmp_path))
    encoder = Fixed("a", "g", 0, 8, "", "w")
    first, _ = features_of(encoder, pictures(), store, **HOW)
    gone = replace(pictures(), images=np.zeros((0, 8, 8, 3), np.uint8))
    again, _ = features_of(replace(encoder, network=None), gone, store, **HOW)
    assert np.array_equal(first, again)


def test_another_encoder_or_other_images_are_computed_anew(tmp_path):
    one, other = Fixed("a", "g", 0, 8, "", "w"), Fixed("a", "g", 0, 8, "", "v")
    assert len({features_dir(one, "x"), features_dir(other, "x"), features_dir(one, "y")}) == 3


class Counting(nn.Module):
    """Flattens images, counts them and is killed before a batch would take it over `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.seen, self.limit = 0, limit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.seen + len(images) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(images)
        return images.flatten(1)


@pytest.fixture
def stopped(tmp_path, monkeypatch) -> Path:
    """A root on which a command was killed after part 2 of 3, which are 8, 8 and 4 of 20 images."""
    monkeypatch.setattr(features, "PART_ROWS", 5)
    with pytest.raises(KeyboardInterrupt):
        features_of(counting(18), pictures(20), Store.open(str(tmp_path)), **HOW)
    return tmp_path


def counting(limit: int = 20) -> Fixed:
    return Fixed("a", "g", 0, 8, "", "w", Counting(limit))


def undisturbed(root: Path, **how) -> dict[str, bytes]:
    """The files of an undisturbed command, by name."""
    features_of(counting(), pictures(20), Store.open(str(root)), **{**HOW, **how})
    return files(root)


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "features").rglob("*.*")}


def test_a_killed_command_goes_on_after_the_parts_that_are_there(stopped: Path, tmp_path_factory):
    encoder = counting()
    found, labels = features_of(encoder, pictures(20), Store.open(str(stopped)), **HOW)
    assert encoder.network.seen == 4 and labels.tolist() == list(range(20))
    wanted = torch.cat([batch for batch, _ in pictures(20).batches(20, 8)]).flatten(1).numpy()
    assert np.array_equal(found, wanted)
    assert files(stopped) == undisturbed(tmp_path_factory.mktemp("undisturbed"))


def test_parts_of_another_batch_size_are_made_again(stopped: Path, tmp_path_factory):
    for limit, seen in ((10, 9), (20, 14)):  # parts of 6, 6, 6 and 2: killed after the first one, then it goes on
        encoder = counting(limit)
        try:
            features_of(encoder, pictures(20), Store.open(str(stopped)), **{**HOW, "batch_size": 3})
        except KeyboardInterrupt:
            assert limit == 10
        assert encoder.network.seen == seen
    assert files(stopped) == undisturbed(tmp_path_factory.mktemp("undisturbed"), batch_size=3)


def without_its_making(path: Path) -> None:
    """As parts were written before they said how they were made."""
    part = load(path.read_bytes())
    path.write_bytes(save({name: part[name] for name in ("features", "labels")}))


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(path.read_bytes()[:-7]), lambda path: path.unlink(), without_its_making],
    ids=["cut", "gone", "old"],
)
def test_a_part_that_is_not_whole_is_made_again_with_those_after_it(stopped: Path, tmp_path_factory, spoil):
    spoil(next(stopped.rglob("part-000001.safetensors")))
    encoder = counting()
    features_of(encoder, pictures(20), Store.open(str(stopped)), **HOW)
    assert encoder.network.seen == 12
    assert files(stopped) == undisturbed(tmp_path_factory.mktemp("undisturbed"))


def test_where_only_the_manifest_is_wanting_no_network_is_loaded(stopped: Path):
    store = Store.open(str(stopped))
    first, _ = features_of(counting(), pictures(20), store, **HOW)
    next(stopped.rglob("manifest.json")).unlink()
    again, _ = features_of(replace(counting(), network=None), pictures(20), store, **HOW)
    assert np.array_equal(first, again)


def test_features_that_are_no_numbers_are_refused_and_not_kept(tmp_path):
    class Diverged(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) * float("nan")

    with pytest.raises(WorkError, match="no numbers"):
        features_of(Fixed("a", "g", 0, 8, "", "w", Diverged()), pictures(), Store.open(str(tmp_path)), **HOW)
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("spoil", ["cut", "gone"])
def test_a_damaged_copy_is_named(tmp_path, spoil: str):
    store, encoder = Store.open(str(tmp_path)), Fixed("a", "g", 0, 8, "", "w")
    features_of(encoder, pictures(), store, **HOW)
    part = Path(store.root) / features_dir(encoder, pictures().fingerprint) / "part-000000.safetensors"
    part.write_bytes(part.read_bytes()[:-7]) if spoil == "cut" else part.unlink()
    with pytest.raises(WorkError, match=r"part-000000\.safetensors is damaged"):
        features_of(encoder, pictures(), store, **HOW)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named_by_its_key():
    check_device("cpu", "transfer.device")
    with pytest.raises(InputError, match=r"transfer\.device=cpu"):
        check_device("cuda", "transfer.device")
