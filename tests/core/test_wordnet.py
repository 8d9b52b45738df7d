"""The WordNet reader against facts of WordNet 3.0, from the data this machine has or the project fetches."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nltk.data
import pytest

from pipeline.core import wordnet as wordnet_module
from pipeline.core.errors import InputError, WorkError
from pipeline.core.wordnet import WordNet, find_wordnet, open_wordnet

FILES = {name for part in ("adj", "adv", "noun", "verb") for name in (f"data.{part}", f"index.{part}", f"{part}.exc")}


@pytest.fixture(scope="module")
def wordnet() -> WordNet:
    return open_wordnet()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without WordNet, whose Debian archive does not answer; returns its cache directory."""

    def no_network(names: list[str], target: Path) -> None:
        raise WorkError("the archive does not answer")

    monkeypatch.delenv("SYNTHCLONES_WORDNET", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(wordnet_module, "DEBIAN_DIRECTORY", tmp_path / "usr/share/wordnet")
    monkeypatch.setattr(wordnet_module, "unpack_debian_packages", no_network)
    return tmp_path / "cache"


def test_a_wnid_and_a_synset_name_are_the_same_noun(wordnet: WordNet) -> None:
    handbag = wordnet.by_wnid("n02774152")
    assert handbag == wordnet.by_synset_name("bag.n.04")
    assert handbag.lemmas == ["bag", "handbag", "pocketbook", "purse"]
    assert handbag.definition.startswith("a container used for carrying money")


def test_definitions_leave_out_quoted_examples(wordnet: WordNet) -> None:
    # The gloss goes on with an example: "she reached into her bag and found a comb".
    assert wordnet.by_synset_name("bag.n.04").definition.endswith("(especially by women)")


def test_lemmas_have_spaces(wordnet: WordNet) -> None:
    assert wordnet.by_wnid("n03472535").lemmas == ["gym shoe", "sneaker", "tennis shoe"]


def test_hypernyms_come_in_the_order_of_the_data_file(wordnet: WordNet) -> None:
    baseball = wordnet.by_wnid(
        "n02799071"
    )  # … 002 @ 02778669 n 0000 @ 02799897 n 0000 | a ball used in playing baseball
    assert [parent.wnid for parent in wordnet.hypernyms(baseball)] == ["n02778669", "n02799897"]


def test_an_instance_has_what_it_is_an_instance_of(wordnet: WordNet) -> None:
    bridge = wordnet.by_word("Golden Gate Bridge")
    assert [parent.lemmas for parent in wordnet.hypernyms(bridge)] == [["suspension bridge"]]


def test_the_root_has_no_hypernym(wordnet: WordNet) -> None:
    assert wordnet.hypernyms(wordnet.by_synset_name("entity.n.01")) == []


def test_a_word_with_one_sense_is_found_in_any_form(wordnet: WordNet) -> None:
    assert {wordnet.by_word(word).wnid for word in ("tennis shoe", "Tennis  Shoes", "tennis_shoe")} == {"n03472535"}


def test_an_ambiguous_word_lists_every_sense(wordnet: WordNet) -> None:
    with pytest.raises(InputError) as caught:
        wordnet.by_word("crane")
    for sense in wordnet.senses("crane"):
        assert f"{sense.synset} {sense.wnid} ({sense.definition})" in str(caught.value)
    assert "crane=1" in str(caught.value)


def test_a_sense_is_picked_by_its_number(wordnet: WordNet) -> None:
    assert wordnet.by_word("bag", 4).synset == "bag.n.04"


@pytest.mark.parametrize("sense", [0, -1, 10])
def test_a_sense_that_is_not_there_is_an_error(wordnet: WordNet, sense: int) -> None:
    with pytest.raises(InputError, match="has no sense"):
        wordnet.by_word("bag", sense)


def test_an_unknown_word_names_near_ones(wordnet: WordNet) -> None:
    with pytest.raises(InputError, match="did you mean .*'sandal'"):
        wordnet.by_word("sandall")


@pytest.mark.parametrize("word", ["", " ", "quickly", "zzzqqq", "a/b\n", "nul\0", "{{ c }}", "😀", "x" * 10_000])
def test_what_is_no_noun_is_an_error(wordnet: WordNet, word: str) -> None:
    with pytest.raises(InputError, match="not a noun"):
        wordnet.by_word(word)


@pytest.mark.parametrize(
    "wnid", ["n00000000", "n99999999", "n02774153", "n277", "v02774152", "n02774152 ", "n٠٢٧٧٤١٥٢"]
)
def test_a_wrong_wnid_is_an_error(wordnet: WordNet, wnid: str) -> None:
    with pytest.raises(InputError, match="no noun"):
        wordnet.by_wnid(wnid)


@pytest.mark.parametrize("name", ["bag.n.00", "bag.n.10", "sandall.n.01", "run.v.01", "big.a.01"])
def test_a_wrong_synset_name_is_an_error(wordnet: WordNet, name: str) -> None:
    with pytest.raises(InputError, match="synset"):
        wordnet.by_synset_name(name)


def test_a_wrong_folder_of_the_user_is_never_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SYNTHCLONES_WORDNET", str(tmp_path))
    with pytest.raises(InputError, match=r"SYNTHCLONES_WORDNET=.* has no data\.noun"):
        find_wordnet()


def test_the_users_folder_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("data.noun", "index.noun"):
        (tmp_path / name).touch()
    monkeypatch.setenv("SYNTHCLONES_WORDNET", str(tmp_path))
    assert find_wordnet() == tmp_path


def test_nothing_found_says_how_to_mend_it(nowhere: Path) -> None:
    with pytest.raises(
        InputError, match=r"does not answer.*install Debian's package wordnet-base.*SYNTHCLONES_WORDNET"
    ):
        find_wordnet()


def test_what_was_fetched_is_found_in_the_cache(nowhere: Path) -> None:
    folder = nowhere / "synthclones/wordnet" / wordnet_module.DEBIAN_DIRECTORY.relative_to("/")
    folder.mkdir(parents=True)
    for name in ("data.noun", "index.noun"):
        (folder / name).touch()
    assert find_wordnet() == folder


def test_the_archive_is_asked_for_the_package(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], Path]] = []
    monkeypatch.setattr(wordnet_module, "unpack_debian_packages", lambda names, target: asked.append((names, target)))
    folder = find_wordnet()
    assert asked == [(["wordnet-base"], nowhere / "synthclones/wordnet")]
    assert str(folder).startswith(str(nowhere))


@pytest.fixture
def opened_anew() -> Iterator[None]:
    open_wordnet.cache_clear()
    yield
    open_wordnet.cache_clear()


@pytest.mark.usefixtures("opened_anew")
@pytest.mark.parametrize(
    ("content", "message"),
    [("  1 WordNet 2.1 Copyright 2005\n", "holds WordNet 2.1"), ("", "holds WordNet None"), (None, "cannot be read")],
)
def test_other_data_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, message: str
) -> None:
    """NLTK reads the version from data.adj."""
    for name in FILES - {"data.adj"}:
        (tmp_path / name).touch()
    if content is not None:
        (tmp_path / "data.adj").write_text(content)
    monkeypatch.setenv("SYNTHCLONES_WORDNET", str(tmp_path))
    with pytest.raises(InputError, match=message):
        open_wordnet()


def copy_of_wordnet(folder: Path) -> None:
    source = find_wordnet()
    assert isinstance(source, Path)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(source / name, folder)


@pytest.mark.usefixtures("opened_anew")
@pytest.mark.parametrize("zipped", [False, True])
def test_nltks_own_corpus_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, zipped: bool) -> None:
    monkeypatch.delenv("SYNTHCLONES_WORDNET", raising=False)
    monkeypatch.setattr(nltk.data, "path", [])
    corpora = tmp_path / "nltk_data/corpora"
    copy_of_wordnet(corpora / "wordnet")
    if zipped:
        with zipfile.ZipFile(corpora / "wordnet.zip", "w") as archive:
            for file in (corpora / "wordnet").iterdir():
                archive.write(file, f"wordnet/{file.name}")
        shutil.rmtree(corpora / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    read: list[str] = []
    whole_open = wordnet_module._Reader.open
    monkeypatch.setattr(
        wordnet_module._Reader, "open", lambda self, name: (read.append(name), whole_open(self, name))[1]
    )
    assert "nltk_data" in str(find_wordnet())
    wordnet = open_wordnet()
    for bridge in (wordnet.by_word("Golden Gate Bridge"), wordnet.by_word("Brooklyn Bridge")):
        assert [parent.lemmas for parent in wordnet.hypernyms(bridge)] == [["suspension bridge"]]
    assert read.count("data.noun") == 1  # in a zip, each time unpacks it whole


@pytest.mark.usefixtures("opened_anew")
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_zip_of_nltks_is_one_line(nowhere: Path, monkeypatch: pytest.MonkeyPatch, cut: bool) -> None:
    archive = nowhere / "corpora/wordnet.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        for name in FILES:
            file.writestr(f"wordnet/{name}", "  1 WordNet 3.0 Copyright 2006\n" * 10)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2] if cut else content.replace(b"Copyright", b"Copywrong"))
    monkeypatch.setattr(nltk.data, "path", [str(nowhere)])
    with pytest.raises(InputError, match=r"wordnet\.zip.*(damaged|cannot be read).*install Debian's package"):
        open_wordnet()


@pytest.mark.usefixtures("opened_anew")
@pytest.mark.parametrize("name", ["data.noun", "index.noun"])
def test_a_cut_file_is_found_when_wordnet_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    copy_of_wordnet(tmp_path / "dict")
    path = tmp_path / "dict" / name
    path.write_bytes(path.read_bytes()[:1_000_013])
    monkeypatch.setenv("SYNTHCLONES_WORDNET", str(tmp_path / "dict"))
    with pytest.raises(InputError, match=r"dict' (is damaged|cannot be read)"):
        open_wordnet()


@pytest.mark.usefixtures("opened_anew")
@pytest.mark.filterwarnings("error")
def test_a_hole_in_the_data_is_an_error_at_its_nouns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy_of_wordnet(tmp_path / "dict")
    with (tmp_path / "dict/data.noun").open("r+b") as file:
        file.seek(2774152 - 100)
        file.write(b"\0" * 200)
        file.seek(4133789 + 30)  # the line of sandal.n.01, whose offset stays
        file.write(b" " * 60)
    monkeypatch.setenv("SYNTHCLONES_WORDNET", str(tmp_path / "dict"))
    damaged = open_wordnet()
    calls = [
        lambda: damaged.by_wnid("n02774152"),
        lambda: damaged.by_synset_name("bag.n.04"),
        lambda: damaged.by_word("handbag"),
        lambda: damaged.by_wnid("n04133789"),
        lambda: damaged.by_synset_name("sandal.n.01"),
        lambda: damaged.by_word("sandal"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="is damaged"):
            call()
    assert damaged.by_word("zebra").synset == "zebra.n.01"
