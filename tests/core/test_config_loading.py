from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import (
    load_config,
    load_yaml,
    merge,
    nearest,
    parse_override,
    preset_names,
    validate,
    with_overrides,
)
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_ships_is_valid(name: str) -> None:
    assert isinstance(load_config(name), RunConfig)


def test_later_wins_preset_then_files_then_overrides(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("train: {epochs: 3, batch_size: 32}\nrecipe: {guidance_scale: 4}\n")
    second.write_text("train: {epochs: 5}\n")
    config = load_config("fashion", [str(first), str(second)], ["recipe.guidance_scale=7.5", "recipe.guidance_scale=9"])
    assert (config.train.epochs, config.train.batch_size, config.recipe.guidance_scale) == (5, 32, 9)
    assert config.train.input_size == load_config("fashion").train.input_size  # what nobody named stays the preset's


def test_a_config_survives_its_own_dump() -> None:
    config = load_config("fashion", overrides=["recipe.template={{ c }} x", "train.seed=3"])
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config("fashion", [str(tmp_path / "empty.yaml")]) == load_config("fashion")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.epochs=5", 5),
        ("train.learning_rate=1e-3", "1e-3"),  # YAML 1.1 reads this as a word; pydantic makes the number
        ("tracking.enabled=false", False),
        ("recipe.template={{ c }}, {{ h_c }}", "{{ c }}, {{ h_c }}"),  # no YAML: kept as text
        ("recipe.negative_prompt=", ""),
        ("recipe.template=a=b", "a=b"),
        ("recipe.seed_namespace=2026-13-45", "2026-13-45"),  # looks like a date and is none
        ("recipe.template=a photo of {{ c }} #1", "a photo of {{ c }} #1"),  # no comment: all of it is text
        ("recipe.negative_prompt= #nsfw ", "#nsfw"),
        ("recipe.seed_namespace=1 #2", "1 #2"),
        ("recipe.template='a {{ c }}' #1", "a {{ c }}"),  # behind what is quoted there is a comment
        ("recipe.template=|\n  {{ c }}, photo", "{{ c }}, photo"),
        ("recipe.template=|\n  a {{ c }} #1", "a {{ c }} #1"),
        ("recipe.template=>\n  a {{ c }},\n  photo", "a {{ c }}, photo"),
    ],
)
def test_an_override_is_read_as_yaml_or_kept_as_text(text: str, value: object) -> None:
    keys, found = parse_override(text)
    assert keys == text.partition("=")[0].split(".") and found == value


def test_a_number_may_stand_for_a_word() -> None:
    assert load_config("fashion", overrides=["recipe.seed_namespace=1"]).recipe.seed_namespace == "1"


def test_a_number_may_be_written_with_an_exponent() -> None:
    assert load_config("fashion", overrides=["train.learning_rate=1e-3"]).train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.epoch=3"], ["'train.epoch'", "'epochs'"]),
        (["recipe.model.revison=x"], ["'recipe.model.revison'", "'revision'"]),
        (["tarin.epochs=3"], ["'tarin'", "'train'"]),
        (["zzz=3"], ["'zzz'", "choose from"]),
        (["train.epochs=many"], ["train.epochs", "'many'"]),
        (["train.epochs=true"], ["train.epochs", "true or false"]),
        (["evaluate.corruptions.severities=[1, true]"], ["evaluate.corruptions.severities", "hold true or false"]),
        (["train.multi_crop.global_scale=[true, true]"], ["train.multi_crop.global_scale", "hold true or false"]),
        (["train.epochs=0"], ["train.epochs", "greater than or equal to 1"]),
        (["train=5"], ["train"]),
        (["train.epochs.x=5"], ["train.epochs"]),
        (["recipe.guidance_scale=.nan"], ["recipe.guidance_scale"]),
        (["train.stored_size=16"], ["stored_size 16 is below input_size 32"]),
        (["recipe.negative_prompt=blur"], ["negative_prompt has no effect without guidance"]),
        (["generate.device=cuda"], ["generate", "num_gpus_per_actor"]),
        (["generate.num_actors=3", "generate.max_actors=2"], ["max_actors 2"]),
        (["recipe.template=a photo of {{ c }}, style: sketch"], ["recipe.template", "`: ` in quotes"]),
        (["recipe.guidance_scale=2", "recipe.negative_prompt=text: x"], ["negative_prompt", "`: ` in quotes"]),
        (["train.epochs"], ["KEY=VALUE"]),
        (["=5"], ["KEY=VALUE"]),
        (["train.=5"], ["KEY=VALUE"]),
        (["train.epochs=0", "train.batch_size=-1"], ["train.epochs", "train.batch_size"]),  # both in one go
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(overrides: list[str], says: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config("fashion", overrides=overrides)
    message = str(caught.value)
    assert all(part in message for part in says), message
    assert "\n" not in message and "pydantic" not in message


def test_a_mapping_may_be_given_without_quotes() -> None:
    assert load_config("fashion", overrides=["recipe.model=id: org/x"]).recipe.model.id == "org/x"


class Leaf(Frozen):
    number: int = 0


class Tree(Frozen):
    leaves: dict[str, Leaf] = Field({})
    branches: dict[str, dict[str, Leaf]] | None = None
    any_of: Leaf | RunConfig = Leaf()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"leaves": {"a.b": {"nummer": 1}}}, "unknown key 'leaves.a.b.nummer'; did you mean 'number'?"),
        ({"branches": {"a": {"b": {"nummer": 1}}}}, "unknown key 'branches.a.b.nummer'; did you mean 'number'?"),
        ({"any_of": {"nummer": 1}}, "unknown key 'any_of.Leaf.nummer'; unknown key 'any_of.RunConfig.nummer'"),
    ],
)
def test_an_unknown_key_inside_a_mapping_is_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(Tree, values)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {epochs: 3", "line"),
        ("- a\n- b\n", "list"),
        ("just words", "str"),
        ("train:\n\tepochs: 3\n", "line 2"),
        ("tracking: {experiment: 2026-13-45}", "not valid YAML"),
        ("1: 2", "1"),
        ("a: &a [*a]\ntrain: {epochs: *a}", "bad.yaml' is not valid YAML: values nest more than 40 deep"),
        ("classes: !!binary aGVsbG8=", "!!binary and !!set are nothing that a setting takes"),
        ("recipe: &r\n  model: *r\n", "values nest more than 40 deep"),
        ("classes: " + "[" * 60 + "]" * 60, "values nest more than 40 deep"),
        (
            "v0: &v0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"v{n + 1}: &v{n + 1} [{', '.join([f'*v{n}'] * 10)}]\n" for n in range(9)),
            "or are more than 1,000,000",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match="(?s).*") as caught:
        load_config("fashion", [str(tmp_path / "bad.yaml")])
    assert says in str(caught.value)


def test_a_key_of_too_many_parts_is_no_key() -> None:
    with pytest.raises(InputError, match=r"--set 'classes\.a\.a.* is not KEY=VALUE"):
        parse_override("classes" + ".a" * 2000 + "=1")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.yaml").write_text(f"classes: !!python/object/apply:os.mkdir ['{mark}']\n")
    with pytest.raises(InputError, match="YAML"):
        load_yaml(tmp_path / "evil.yaml")
    assert not mark.exists()


def test_a_key_given_twice_in_one_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("train: {epochs: 3}\nrecipe: {width: 32}\ntrain: {batch_size: 4}\n")
    with pytest.raises(InputError, match="at line 3, column 1: key 'train' stands twice"):
        load_yaml(tmp_path / "twice.yaml")


def test_not_utf8_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("classes: \xe9".encode("latin-1"))
    for path in (tmp_path / "latin.yaml", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            load_yaml(path)


def test_merge_changes_neither_side() -> None:
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}} and over == {"a": {"b": 3}}


def test_nearest_names_one_or_lists_all() -> None:
    assert nearest("fashon", ["fashion", "imagenet"]) == "; did you mean 'fashion'?"
    assert nearest("qqq", ["fashion", "imagenet"]) == "; choose from fashion, imagenet"


def test_overrides_can_be_laid_over_a_resolved_config() -> None:
    config = load_config("fashion")
    changed = with_overrides(config, ["train.data=real", "images_per_class=800"])
    assert (changed.train.data, changed.images_per_class, changed.recipe) == ("real", 800, config.recipe)
    with pytest.raises(InputError, match=r"did you mean 'epochs'"):
        with_overrides(config, ["train.epoch=1"])


def test_a_training_recipe_lies_over_the_preset_and_under_what_comes_later(tmp_path: Path) -> None:
    plain = load_config("imagenet100_sd")
    config = load_config("imagenet100_sd", overrides=["train=@paper_rn50", "train.batch_size=256"])
    assert (config.train.augmentation, config.train.multi_crop.num_local) == ("dino_multicrop", 8)
    assert (config.train.batch_size, config.train.ingest) == (256, "stream")
    assert config.recipe == plain.recipe
    file = tmp_path / "mine.yaml"
    file.write_text("train: '@paper_rn50'")
    assert load_config("imagenet100_sd", [str(file)]).train.batch_size == 1024


def test_an_unknown_training_recipe_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"train='@paper_rn5' is unknown; did you mean 'paper_rn50'"):
        load_config("fashion", overrides=["train=@paper_rn5"])


@pytest.mark.parametrize("preset", ["imagenet100_sd", "imagenet1k_sd"])
def test_paper_rn50_has_the_papers_learning_rates(preset: str) -> None:
    from pipeline.core.optimizer import learning_rate

    settings = load_config(preset, overrides=["train=@paper_rn50"]).train
    rates = [learning_rate(settings, step, steps_per_epoch=100) for step in range(10_001)]
    assert rates[0] == 0 and rates[500] == pytest.approx(0.2) and rates[1000] == max(rates) == pytest.approx(0.4)
    assert rates[5500] == pytest.approx((0.4 + 1e-6) / 2) and rates[10_000] == pytest.approx(1e-6)
