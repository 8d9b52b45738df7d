from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from pipeline.core.corruption_names import ALL, FAMILIES, SEVERITIES, STANDARD
from pipeline.core.corruptions import CorruptionPool, corrupt
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.errors import WorkError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return as_rgb32(load_fashion_mnist(None, "test")[0][:6])


def test_names_are_the_librarys() -> None:
    import imagecorruptions

    assert list(STANDARD) == imagecorruptions.get_corruption_names("common")
    assert list(ALL) == imagecorruptions.get_corruption_names("all")
    assert all(list(names) == imagecorruptions.get_corruption_names(family) for family, names in FAMILIES.items())


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_corrupted_the_same_alone_and_among_others(images: np.ndarray, name: str) -> None:
    for severity in (1, 5):
        whole = corrupt(images, range(6), name, severity, seed=3)
        assert whole.shape == images.shape and whole.dtype == np.uint8
        np.random.seed(12345)  # noqa: NPY002 - what was drawn before does not matter
        assert (corrupt(images[4:5], [4], name, severity, seed=3)[0] == whole[4]).all()
    assert not (whole == images).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "glass_blur", "motion_blur", "frost", "fog"])
def test_draws_differ_by_position_severity_and_seed(images: np.ndarray, name: str) -> None:
    same = np.repeat(images[1:2], 2, axis=0)
    first, second = corrupt(same, [0, 1], name, 3, seed=0)
    assert not (first == second).all()
    assert not (corrupt(same[:1], [0], name, 3, seed=1)[0] == first).all()
    assert not (corrupt(same[:1], [0], name, 4, seed=0)[0] == first).all()


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "contrast"])
def test_a_higher_severity_is_farther_from_the_image(images: np.ndarray, name: str) -> None:
    clean = images.astype(float)
    distances = [np.abs(corrupt(images, range(6), name, s, seed=0) - clean).mean() for s in SEVERITIES]
    assert distances == sorted(distances) and distances[0] < distances[-1]


def test_no_spatter_on_a_small_picture_leaves_it_and_not_black() -> None:
    images = as_rgb32(load_fashion_mnist(None, "test")[0][:100])
    spattered = corrupt(images, range(100), "spatter", 1, seed=0)
    assert spattered.any(axis=(1, 2, 3)).all()
    assert 0 < (spattered == images).all(axis=(1, 2, 3)).sum() < 50  # the case is among them


def test_numpys_own_draws_go_on(images: np.ndarray) -> None:
    before = np.random.get_state()  # noqa: NPY002
    corrupt(images[:1], [0], "gaussian_noise", 1, seed=0)
    after = np.random.get_state()  # noqa: NPY002
    assert (after[1] == before[1]).all() and after[2:] == before[2:]


def test_processes_give_what_one_gives_in_order(images: np.ndarray) -> None:
    kinds = [("gaussian_noise", 2), ("impulse_noise", 5), ("pixelate", 1)]
    positions = [10, 11, 3, 4, 5]
    with CorruptionPool(2, seed=9) as pool:
        found = list(pool.each(images[:5], positions, kinds))
    assert [kind for kind, _ in found] == kinds
    for (name, severity), corrupted in found:
        assert (corrupted == corrupt(images[:5], positions, name, severity, seed=9)).all()


def test_a_killed_process_is_one_line(images: np.ndarray) -> None:
    with CorruptionPool(1, seed=0) as pool:
        kinds = pool.each(images[:1], [0], [("pixelate", 1), ("pixelate", 2), ("pixelate", 3)])
        next(kinds)
        (process,) = pool._pool._processes.values()
        process.kill()
        process.join()
        more = pool.each(images[:1], [0], [("pixelate", 4)])  # the kill may come after the last one above was made
        with pytest.raises(WorkError, match=r"was killed .*evaluate.corruptions.num_processes"):
            list(chain(kinds, more))
