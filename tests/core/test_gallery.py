import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.core.errors import WorkError
from pipeline.core.gallery import (
    MAX_CLASSES,
    MAX_PICTURES,
    ClassRow,
    chosen_examples,
    fill_generated,
    pictures_per_class,
    scored_picture,
    shown_classes,
    thumbnail_uri,
)
from pipeline.core.metrics import ScoreSums
from pipeline.core.set_gallery import INDEX_SIDE
from pipeline.core.set_gallery import MAX_SIDE as GALLERY_SIDE


def pixels(source: str) -> np.ndarray:
    kind, _, data = source.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.array(image)


def image_row(label: int, index: int, status: str = "ok") -> dict:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (label, index, 0)).save(out, "PNG")
    content = {"bytes": out.getvalue() if status == "ok" else None, "path": None}
    known = {"class_index": label, "class_name": f"name {label}", "prompt": f"prompt {label} {index}", "status": status}
    return {**known, "seed": 1000 + index, "image_id": label << 32 | index, "image": content}


def test_rows_get_the_first_good_images_of_their_class():
    rows = {0: ClassRow("a", "n1"), 2: ClassRow("c", "n3")}
    table = [image_row(c, i, "nsfw" if (c, i) == (0, 0) else "ok") for i in range(4) for c in range(3)]
    fill_generated(rows, [("a shard", row) for row in table], 2)
    captions = {label: [list(p.caption) for p in row.generated] for label, row in rows.items()}
    assert captions[0] == [["prompt 0 1", "seed 1001", "image 1"], ["prompt 0 2", "seed 1002", "image 2"]]
    assert captions[2][0] == ["prompt 2 0", "seed 1000", f"image {2 << 32}"]
    assert (pixels(rows[2].generated[1].source) == [2, 1, 0]).all()


def test_reading_stops_when_all_rows_are_full():
    read = []

    def table():
        for index in range(100):
            read.append(index)
            yield "a shard", image_row(0, index)

    fill_generated({0: ClassRow("a", "n1")}, table(), 3)
    assert len(read) == 3


def test_an_image_that_cannot_be_decoded_is_one_line_that_names_its_shard():
    damaged = {**image_row(0, 7), "image": {"bytes": b"junk", "path": None}}
    with pytest.raises(WorkError, match="shard-1 is damaged .image 7 cannot be decoded"):
        fill_generated({0: ClassRow("a", "n1")}, [("shard-1", damaged)], 3)


def test_small_images_are_kept_exactly_and_large_ones_are_shrunk():
    small = np.random.default_rng(0).integers(0, 255, (32, 28, 3), dtype=np.uint8)
    assert (pixels(thumbnail_uri(Image.fromarray(small))) == small).all()
    assert pixels(thumbnail_uri(Image.new("RGB", (512, 256)))).shape == (48, 96, 3)


@pytest.mark.parametrize("side", [64, 96, 512])
def test_photographs_of_any_size_keep_a_gallery_s_pages_small(side: int):
    """What docs/evaluation.md promises of 1,000 classes: the index below 4 MB, a page of 400 pictures below 5 MB."""
    china = Image.fromarray(load_sample_images().images[0]).crop((0, 0, 427, 427)).resize((side, side))
    cover = thumbnail_uri(china.copy(), INDEX_SIDE)
    assert max(pixels(cover).shape) <= INDEX_SIDE and len(cover) * 1000 < 3_500_000  # the rest is for the words
    assert len(thumbnail_uri(china.copy(), GALLERY_SIDE)) * 400 < 4_500_000


def scores():
    labels = torch.tensor([0, 0, 0, 1, 0, 0, 0, 0])
    logits = torch.tensor([[2.0, 0], [0, 1.0], [0, 3.0], [0, 1.0], [2.0, 0], [0, 2.0], [2.0, 0], [0, 4.0]])
    sums = ScoreSums(2, 15)
    sums.add(logits, labels)
    return sums.result()


def test_examples_are_first_right_then_surest_wrong():
    assert chosen_examples(scores(), 0) == [0, 4, 6, 7, 2, 5]
    assert chosen_examples(scores(), 1) == [3]


def test_a_mistake_is_marked_and_says_what_it_was_taken_for():
    picture = scored_picture(np.zeros((28, 28, 3), np.uint8), scores(), 7, ["coat", "shirt"])
    assert picture.is_wrong and picture.caption[0] == "✗ shirt 98%" and "coat" in picture.alt
    assert not scored_picture(np.zeros((28, 28, 3), np.uint8), scores(), 0, ["coat", "shirt"]).is_wrong


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_a_report_never_has_too_many_pictures(count: int):
    shares = [i / count for i in range(count)]
    shown = shown_classes(shares)
    assert len(shown) == min(count, MAX_CLASSES) == len(set(shown)) and shown == sorted(shown)
    assert 1 <= len(shown) * pictures_per_class(len(shown)) <= MAX_PICTURES
    assert shown[0] == 0 and shown[-1] == count - 1


def test_classes_without_a_test_image_are_neither_best_nor_worst():
    shares = [None if label % 5 else label / 1000 for label in range(1000)]
    assert all(shares[label] is not None for label in shown_classes(shares))
    few = [0.5 if label < 3 else None for label in range(100)]
    assert shown_classes(few) == list(range(MAX_CLASSES))
