import itertools

import numpy as np
import pytest

from pipeline.core import feature_analysis
from pipeline.core.feature_analysis import (
    analyse,
    coding_length,
    column_redundancy,
    first_of_each_class,
    intra_class_distance,
    map_of_features,
)
from pipeline.core.linear_probe import normalised
from pipeline.core.transfer_config import AnalyzeConfig

SETTINGS = AnalyzeConfig()


@pytest.fixture
def noise() -> tuple[np.ndarray, np.ndarray]:
    """60 features of width 12 as a ReLU leaves them: half of the entries are 0."""
    generator = np.random.default_rng(0)
    features = np.maximum(generator.standard_normal((60, 12)), 0).astype(np.float32)
    return features, np.repeat(np.arange(4), [30, 20, 9, 1])


@pytest.fixture(params=[7, 2048])
def block_rows(request, monkeypatch) -> int:
    """The numbers do not depend on how the rows are cut."""
    monkeypatch.setattr(feature_analysis, "BLOCK_ROWS", request.param)
    return request.param


def test_every_number_is_its_formula_in_float64(noise, block_rows):
    features, labels = noise
    found = analyse(features, labels, SETTINGS)
    z = features.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert (found.rows, found.width) == (60, 12)
    assert found.sparsity == pytest.approx((z < 1e-5).mean(), rel=1e-12)
    assert found.nonzero_mean == pytest.approx((features != 0).sum(1).mean(), rel=1e-12)
    distances = [
        np.mean([np.linalg.norm(a - b) for a, b in itertools.combinations(z[labels == label], 2)]) for label in range(3)
    ]
    assert found.intra_class_distance == pytest.approx(np.mean(distances), rel=1e-6)
    assert found.classes_with_pairs == 3  # the class of one image has no pair
    assert found.redundancy == pytest.approx(np.abs(np.corrcoef(z.T)).mean(), rel=1e-6)
    _, log_determinant = np.linalg.slogdet(np.eye(12) + 12 / (60 * 0.5) * z.T @ z)
    assert found.coding_length == pytest.approx(log_determinant / 2, rel=1e-6)


def test_constants_move_the_numbers_as_they_should(noise):
    features, labels = noise
    strict = analyse(features, labels, AnalyzeConfig(sparsity_threshold=0.2, coding_eps_squared=2))
    loose = analyse(features, labels, SETTINGS)
    assert strict.sparsity > loose.sparsity and strict.coding_length < loose.coding_length


def test_numbers_do_not_depend_on_the_length_of_features(noise):
    features, labels = noise
    scales = np.random.default_rng(1).uniform(0.1, 10, (60, 1)).astype(np.float32)
    first, second = (analyse(f, labels, SETTINGS).as_dict() for f in (features, features * scales))
    assert first == pytest.approx(second, rel=1e-5)


def test_orthonormal_rows_have_known_answers():
    z = np.eye(8, dtype=np.float32)
    distance, classes = intra_class_distance(z, np.zeros(8, np.int64))
    assert (distance, classes) == (pytest.approx(2**0.5), 1)
    # Z^T Z is the identity: every eigenvalue is 1 + d / (n eps^2) = 1 + 1 / 0.5.
    assert coding_length(z, 0.5) == pytest.approx(8 / 2 * np.log(3))
    found = analyse(z, np.arange(8), SETTINGS)
    assert found.sparsity == 7 / 8 and found.nonzero_mean == 1 and found.intra_class_distance is None


def test_equal_rows_have_distance_nought_and_the_shortest_code(block_rows):
    z = normalised(np.tile(np.random.default_rng(0).standard_normal((1, 16)), (20, 1)).astype(np.float32))
    distance, _ = intra_class_distance(z, np.zeros(20, np.int64))
    assert distance == pytest.approx(0, abs=1e-6)
    # One eigenvalue, n: 1/2 log(1 + d / eps^2).
    assert coding_length(z, 0.5) == pytest.approx(np.log(1 + 16 / 0.5) / 2, rel=1e-6)
    assert column_redundancy(z) == (None, 16)


def test_opposite_rows_are_two_apart():
    z = np.array([[1, 0], [-1, 0]], np.float32)
    assert intra_class_distance(z, np.zeros(2, np.int64)) == (2.0, 1)


def test_duplicated_columns_are_redundant_and_independent_ones_are_not(block_rows):
    column = np.random.default_rng(0).standard_normal((500, 1)).astype(np.float32)
    assert column_redundancy(np.tile(column, (1, 6)) * np.array([1, -2, 3, -4, 5, 6], np.float32))[0] == pytest.approx(
        1
    )
    independent = np.random.default_rng(1).standard_normal((5000, 6)).astype(np.float32)
    # Only the six columns with themselves count: 6 / 36.
    assert column_redundancy(independent)[0] == pytest.approx(1 / 6, abs=0.015)


def test_columns_that_never_change_are_counted_and_left_out():
    generator = np.random.default_rng(0)
    pair = np.tile(generator.standard_normal((50, 1)), (1, 2))
    dead = np.stack([np.zeros(50), np.full(50, 0.1)], axis=1)
    assert column_redundancy(np.hstack([pair, dead]).astype(np.float32)) == (pytest.approx(1), 2)


def test_wide_and_tall_features_have_the_same_code():
    z = normalised(np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32))
    wide, tall = z[:39], z  # 39 x 40 takes Z Z^T, 40 x 40 Z^T Z
    for rows in (wide, tall):
        double = rows.astype(np.float64)
        wanted = np.linalg.slogdet(np.eye(40) + 40 / (len(rows) * 0.5) * double.T @ double)[1] / 2
        assert coding_length(rows, 0.5) == pytest.approx(wanted, rel=1e-9)


def test_the_map_keeps_classes_apart_that_lie_apart():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    features = 5 * np.eye(60)[labels] + 0.1 * generator.standard_normal((60, 60))
    places = map_of_features(features.astype(np.float32), 30)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert places.shape == (60, 2) and (labels[distances.argmin(1)] == labels).all()


def test_the_rows_of_the_map_are_the_first_of_each_class():
    labels = np.array([2, 2, 0, 2, 0, 1, 0, 0])
    assert first_of_each_class(labels, 6).tolist() == [0, 1, 2, 4, 5]
    assert first_of_each_class(labels, 1).tolist() == [0, 2, 5]
