import numpy as np

from pipeline.core.class_draws import drawn_from_each_class

LABELS = np.tile([2, 0, 0, 5], 6)


def test_each_class_gives_its_number():
    drawn = drawn_from_each_class(LABELS, lambda count: count // 2, seed=0)
    assert np.bincount(LABELS[drawn]).tolist() == [6, 0, 3, 0, 0, 3]
    assert not drawn_from_each_class(LABELS, lambda _count: 0, seed=0).any()


def test_the_seed_decides_which_rows():
    drawn = [drawn_from_each_class(LABELS, lambda _count: 2, seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
