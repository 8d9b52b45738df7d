"""Identity of images: ids, row order, seeds and the prefix property, as promised in docs/architecture.md."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.classes import load_class_table
from pipeline.core.identity import (
    canonical_json,
    choose,
    class_permutation,
    content_hash,
    image_id,
    image_row,
    noise_seed,
    num_rows,
    num_shards,
    row_image_id,
    split_image_id,
)

MAX_INT64 = 2**63 - 1
class_indices = st.integers(0, 2**31 - 1)
indices = st.integers(0, 2**32 - 1)
identifiers = st.integers(0, MAX_INT64)
# Golden values: when one of these changes, every image set ever made would be made anew.
FASHION_PERMUTATION = [8, 4, 7, 3, 0, 9, 2, 6, 1, 5]
IMAGENET_PERMUTATION_START = [185, 766, 775, 494, 968, 837, 151, 16, 395, 470]
GOLDEN_SEEDS = [(765648139636285803, 289), (203920072615040609, 300), (3348836646444642608, 25)]
recipe_hashes = st.integers(0, 2**256 - 1).map("{:064x}".format)
wnid_lists = st.lists(st.integers(0, 99_999_999).map("n{:08d}".format), min_size=1, max_size=50, unique=True)


@given(class_indices, indices)
def test_an_id_gives_back_its_class_and_index(class_index: int, index: int) -> None:
    assert split_image_id(image_id(class_index, index)) == (class_index, index)


@given(identifiers)
def test_every_int64_is_the_id_of_one_class_and_index(identifier: int) -> None:
    assert image_id(*split_image_id(identifier)) == identifier


@given(class_indices, indices)
def test_ids_fit_int64(class_index: int, index: int) -> None:
    assert 0 <= image_id(class_index, index) <= MAX_INT64


def test_largest_id_is_the_largest_int64() -> None:
    assert image_id(2**31 - 1, 2**32 - 1) == MAX_INT64


@pytest.mark.parametrize(("class_index", "index"), [(-1, 0), (0, -1), (2**31, 0), (0, 2**32)])
def test_out_of_range_ids_are_refused(class_index: int, index: int) -> None:
    with pytest.raises(AssertionError):
        image_id(class_index, index)


@given(wnid_lists)
def test_permutation_holds_every_class_once(wnids: list[str]) -> None:
    assert sorted(class_permutation(wnids)) == list(range(len(wnids)))


@given(wnid_lists, st.randoms())
def test_permutation_orders_wnids_the_same_whatever_their_labels(wnids: list[str], random: object) -> None:
    shuffled = list(wnids)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert [wnids[c] for c in class_permutation(wnids)] == [shuffled[c] for c in class_permutation(shuffled)]


def test_permutation_of_fashion_mnist_is_fixed() -> None:
    assert class_permutation(load_class_table("fashion_mnist").wnids) == FASHION_PERMUTATION


def test_permutation_of_imagenet_is_fixed_and_not_the_label_order() -> None:
    assert class_permutation(load_class_table("imagenet1k").wnids)[:10] == IMAGENET_PERMUTATION_START


@given(wnid_lists, st.integers(0, 2000))
def test_a_row_gives_back_its_place(wnids: list[str], row: int) -> None:
    permutation = class_permutation(wnids)
    assert image_row(row_image_id(row, permutation), permutation) == row


@given(wnid_lists, st.integers(0, 300))
def test_every_prefix_is_class_balanced_within_one(wnids: list[str], length: int) -> None:
    permutation = class_permutation(wnids)
    counts = Counter(split_image_id(row_image_id(row, permutation))[0] for row in range(length))
    images = [counts[class_index] for class_index in range(len(wnids))]
    assert max(images) - min(images) <= 1


@given(wnid_lists, st.integers(1, 20))
def test_whole_prefix_holds_the_first_indices_of_each_class(wnids: list[str], images_per_class: int) -> None:
    permutation = class_permutation(wnids)
    made = {split_image_id(row_image_id(row, permutation)) for row in range(len(wnids) * images_per_class)}
    assert made == {(c, i) for c in range(len(wnids)) for i in range(images_per_class)}


@given(wnid_lists, st.integers(1, 8), st.integers(1, 40))
def test_rows_of_1x_are_the_first_rows_of_10x(wnids: list[str], images_per_class: int, shard_size: int) -> None:
    permutation = class_permutation(wnids)
    small, large = (
        [row_image_id(row, permutation) for row in range(num_rows(len(wnids), scale * images_per_class, shard_size))]
        for scale in (1, 10)
    )
    assert large[: len(small)] == small


@given(st.integers(1, 2000), st.integers(1, 10_000), st.integers(1, 65_536))
def test_rows_are_the_least_whole_shards_that_hold_the_images(classes: int, per_class: int, shard_size: int) -> None:
    rows = num_rows(classes, per_class, shard_size)
    assert rows == num_shards(classes, per_class, shard_size) * shard_size
    assert rows - shard_size < classes * per_class <= rows


@given(st.integers(1, 1000), st.integers(1, 2000), st.integers(0, 2000), st.integers(1, 5000))
def test_growing_only_adds_shards(classes: int, per_class: int, more: int, shard_size: int) -> None:
    assert num_shards(classes, per_class, shard_size) <= num_shards(classes, per_class + more, shard_size)


@given(recipe_hashes, identifiers)
def test_seeds_fit_int64_and_repeat(recipe_hash: str, identifier: int) -> None:
    seed = noise_seed(recipe_hash, identifier)
    assert 0 <= seed <= MAX_INT64
    assert seed == noise_seed(recipe_hash, identifier)


def test_seeds_and_choices_are_fixed() -> None:
    recipe_hash = content_hash({"recipe": "golden"})
    found = [(noise_seed(recipe_hash, i), choose(recipe_hash, i, "background", 365)) for i in (0, 1, 1 << 32)]
    assert found == GOLDEN_SEEDS


@given(recipe_hashes, recipe_hashes, identifiers)
def test_different_recipes_have_different_seeds(first: str, second: str, identifier: int) -> None:
    assert (noise_seed(first, identifier) == noise_seed(second, identifier)) == (first == second)


def test_many_images_have_different_seeds() -> None:
    recipe_hash = content_hash("any")
    seeds = {noise_seed(recipe_hash, image_id(c, i)) for c in range(1000) for i in range(100)}
    assert len(seeds) == 100_000


def test_backgrounds_are_close_to_uniform() -> None:
    """Chi-square with 364 degrees of freedom: 2.3 standard deviations either side hold 98 % of fair draws."""
    recipe_hash, choices = content_hash("uniform"), 365
    ids = [image_id(c, i) for c in range(100) for i in range(365)]
    counts = Counter(choose(recipe_hash, identifier, "background", choices) for identifier in ids)
    expected = len(ids) / choices
    chi_square = sum((counts[choice] - expected) ** 2 / expected for choice in range(choices))
    assert abs(chi_square - 364) < 2.33 * math.sqrt(2 * 364)


@given(recipe_hashes, identifiers, st.integers(1, 1000))
def test_choices_are_in_range(recipe_hash: str, identifier: int, num_choices: int) -> None:
    assert 0 <= choose(recipe_hash, identifier, "background", num_choices) < num_choices


def test_choices_of_two_purposes_are_independent() -> None:
    pairs = {(choose("r", i, "background", 4), choose("r", i, "variant", 4)) for i in range(400)}
    assert len(pairs) == 16


@given(
    st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.floats(allow_nan=False, allow_infinity=False))
)
def test_hash_does_not_depend_on_key_order(value: dict[str, object]) -> None:
    reversed_keys = dict(reversed(list(value.items())))
    assert content_hash(reversed_keys) == content_hash(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_without_a_json_form_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": number})
