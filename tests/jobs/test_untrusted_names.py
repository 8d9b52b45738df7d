"""Names from outside stay text: no class, lemma or prompt becomes a path, and no name of a user's leaves the root."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.core.classes import ClassTable, class_table_bytes, load_class_table
from pipeline.core.errors import InputError
from tests.conftest import Cli
from tests.tiny_sets import options

HOSTILE = ["../up", "/etc/passwd", "a/../../b", "C:\\x", "a\nb", "<script>", "$(touch x)", "..", "~root", "%2e%2e/x"]
# Only what this project names: directories, hashes, numbers, fixed files.
PATHS = re.compile(
    r"(prompts|images|galleries)/[0-9a-f]{16}"
    r"(/(shards/)?(part-\d+-\d+\.parquet|shard-\d+\.parquet|(identity|manifest|preflight)\.json|index\.html|page-\d{3}\.html))"
)


def hostile_table(folder: Path) -> Path:
    """The ten classes, each text of theirs hostile."""
    table = load_class_table("fashion_mnist")
    rows = [
        {**row, "class_name": text, "lemmas": [text, "x" * 300], "definition": text, "hypernym_lemmas": [
            [text] for _ in row["hypernym_lemmas"]
        ]}
        for row, text in zip(table.rows, HOSTILE, strict=True)
    ]  # fmt: skip
    path = folder / "hostile.parquet"
    path.write_bytes(class_table_bytes(ClassTable(rows, "nowhere")))
    return path


@pytest.mark.usefixtures("ray_cluster")
def test_no_text_of_a_class_becomes_a_path(here: Cli, tiny_model: Path, tmp_path: Path) -> None:
    table = hostile_table(tmp_path)
    root = tmp_path / "a" / "runs"
    words = options(tiny_model, root, {"classes": table, "generate.preflight": "never"})
    for job in ("build_prompts", "generate", "gallery"):
        here(f"jobs.{job}", *words).check_ok()
    left = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert [path for path in left if not PATHS.fullmatch(path)] == [] and len(left) >= 9
    beside = {path.name for path in tmp_path.rglob("*") if not path.is_relative_to(root)}
    assert beside == {"hostile.parquet", "a"}


ESCAPES = ["../x", "a/b", "/tmp/x", "a\0b", "x\n", "..", "", "a\\b", "~", "x y"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize(
    ("module", "option", "more"),
    [
        ("tune.promote", "--sweep", ["--preset", "fashion", "--dry-run"]),
        ("tune.sweep", "--name", ["--preset", "fashion", "--dry-run"]),
        ("jobs.build_classes", "--name", ["--class", "sandal", "--dry-run"]),
    ],
)
def test_a_name_that_becomes_a_path_stays_below_the_root(
    module: str, option: str, more: list[str], name: str, here: Cli, tmp_path: Path
) -> None:
    if (module, name) == ("tune.sweep", ""):
        pytest.skip("means the sweep's own name")
    here(module, option, name, "--root", tmp_path, *more).check_error(2, option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wnid", ["../n1234", "n12345678\n", "n１２３４５６７８", "/n1234567", "n123456\0"])
def test_a_wnid_is_n_and_eight_digits(wnid: str, tmp_path: Path) -> None:
    table = load_class_table("fashion_mnist")
    (tmp_path / "t.parquet").write_bytes(
        class_table_bytes(ClassTable([{**table.rows[0], "wnid": wnid}, *table.rows[1:]], "nowhere"))
    )
    with pytest.raises(InputError, match="has the WNID"):
        load_class_table(str(tmp_path / "t.parquet"))
