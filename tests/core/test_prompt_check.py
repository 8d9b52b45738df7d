import pytest

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.prompt_check import PromptCheck, check_prompts
from pipeline.core.prompts import template_names
from pipeline.core.wordnet import open_wordnet

CRANE_BIRD, CRANE_MACHINE, PAPILLON = "n02012849", "n03126707", "n02086910"
IRON, PIRATE_SHIP, TABBY = "n03584829", "n03947888", "n02123045"


def check(classes: ClassTable, **templates: str) -> PromptCheck:
    return check_prompts(classes, templates or template_names(), load_backgrounds("places365"), [], open_wordnet())


@pytest.fixture(scope="module")
def imagenet() -> PromptCheck:
    return check(load_class_table("imagenet1k"))


def test_a_crane_is_a_bird_and_a_machine_until_the_hypernym_says_which(imagenet: PromptCheck) -> None:
    assert "crane.n.04" in imagenet.polysemous[CRANE_BIRD]
    assert PAPILLON not in imagenet.polysemous
    assert all(wnid in imagenet.some_word for wnid in (IRON, PIRATE_SHIP, TABBY))
    assert "iron.n.01" in imagenet.templates["c"].partly[IRON] and IRON not in imagenet.templates["c"].unresolved
    assert imagenet.templates["c, d_c"].partly == {}
    assert imagenet.duplicate_names["crane"] == [CRANE_BIRD, CRANE_MACHINE]
    assert imagenet.templates["c"].equal == [[CRANE_BIRD, CRANE_MACHINE]]
    assert CRANE_BIRD in imagenet.templates["c"].unresolved
    assert not {CRANE_BIRD, CRANE_MACHINE} & imagenet.templates["c, h_c"].unresolved.keys()


def test_prompts_that_clip_reads_alike_are_equal() -> None:
    dog, jacket = "n02113186", "n02963159"  # Cardigan and cardigan
    both = [row for row in load_class_table("imagenet1k").rows if row["wnid"] in (dog, jacket)]
    long = "so " * 75 + "{{ d_c }}"  # what tells them apart is cut off
    found = check(ClassTable(both, "test"), first="a photo of a {{ c_first }}", all="{{ c }}", long=long).templates
    assert (found["first"].equal, found["all"].equal, found["long"].equal) == ([[dog, jacket]], [], [[dog, jacket]])


def test_definitions_tell_all_of_imagenet_apart(imagenet: PromptCheck) -> None:
    found = imagenet.templates["c, d_c"]
    assert (found.unresolved, found.equal, found.cut, found.failed) == ({}, [], [], {})
    assert found.longest_tokens == 65


def test_a_template_without_the_class_is_equal_for_all_and_a_long_one_is_cut() -> None:
    fashion = load_class_table("fashion_mnist")
    found = check(fashion, same="{{ b }}", long="{{ c }} " + "very " * 80).templates
    assert sorted(found["same"].equal[0]) == sorted(fashion.wnids)
    assert sorted(found["long"].cut) == sorted(fashion.wnids)


def test_a_class_without_hypernym_is_named_and_its_prompt_cannot_be_made() -> None:
    fashion = load_class_table("fashion_mnist")
    rows = [{**row, "hypernym_lemmas": [], "hypernym_wnids": []} for row in fashion.rows[:1]] + fashion.rows[1:]
    found = check(ClassTable(rows, "test"), **{"c, h_c": "{{ c }}, {{ h_c }}"})
    assert found.without_hypernym == [rows[0]["wnid"]] == list(found.templates["c, h_c"].failed)


def test_only_the_words_that_a_template_writes_are_looked_at() -> None:
    irons = [row for row in load_class_table("imagenet1k").rows if row["wnid"] == IRON]  # iron, smoothing iron
    found = check(ClassTable(irons, "test"), first="{{ c_first }}", drawn="{{ c_random }}", none="a thing").templates
    assert "iron.n.01" in found["first"].unresolved[IRON] and found["first"].partly == {}
    assert "iron.n.01" in found["drawn"].unresolved[IRON]
    assert (found["none"].unresolved, found["none"].partly) == ({}, {})


def test_the_longest_prompt_is_that_of_most_tokens_over_all_draws() -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "lemmas": ["ab", "x y z w v"]}
    scenes = ["internationalization", "a b c d e"]  # more letters are not more tokens
    found = check_prompts(ClassTable([row], "test"), {"t": "{{ c_random }} {{ b }}"}, scenes, [], open_wordnet())
    assert found.templates["t"].longest_tokens == 2 + 5 + 5


def test_words_that_are_drawn_make_prompts_equal_too() -> None:
    """Panther is a word of the cougar and of the jaguar, and the first word of neither."""
    cougar, jaguar = "n02125311", "n02128925"
    rows = [row for row in load_class_table("imagenet1k").rows if row["wnid"] in (cougar, jaguar)]
    found = check(ClassTable(rows, "test"), drawn="{{ c_random }}", first="{{ c_first }}").templates
    assert (found["drawn"].equal, found["first"].equal) == ([[cougar, jaguar]], [])
