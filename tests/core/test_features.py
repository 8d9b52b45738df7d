from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
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
