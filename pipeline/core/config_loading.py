"""Preset + config file + `--set` -> one validated `RunConfig`; every mistake is one `InputError` line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError

M = TypeVar("M", bound=BaseModel)
PRESETS = Path(__file__).parent.parent / "presets"
_ENCLOSED = ('"', "'", "[", "{", "|", ">")
"""Where YAML opens with one of these, it says itself where text ends; `|` and `>` are blocks of lines."""
_COMMENT = re.compile(r"(^|\s)#")
_MOST_DEEP = 40
"""Levels of a value: anchors may lead back to themselves, and what walks through it would never end."""
_MOST_VALUES = 1_000_000
"""In a file: anchors in a few lines of text may repeat each other to billions."""


def preset_names() -> list[str]:
    """Names of the run presets that ship."""
    return sorted(path.stem for path in (PRESETS / "runs").glob("*.yaml"))


def training_names() -> list[str]:
    """Names of the training recipes that ship."""
    return sorted(path.stem for path in (PRESETS / "trainings").glob("*.yaml"))


def expand_training(values: Mapping[str, Any]) -> dict[str, Any]:
    """`train: "@paper_rn50"` becomes that recipe's values, which then lie over those that were there before it.

    Raises:
        InputError: there is no such recipe.
    """
    train = values.get("train")
    if not isinstance(train, str) or not train.startswith("@"):
        return dict(values)
    name = train[1:]
    if name not in training_names():
        raise InputError(f"train={train!r:.80} is unknown{nearest(name, training_names())}")
    return {**values, "train": load_yaml(PRESETS / "trainings" / f"{name}.yaml")}


class _Loader(yaml.SafeLoader):
    """YAML without code, in which a key given twice is an error: the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # e.g. `{{ c }}`: a mapping as a key, which SafeLoader refuses below
            if key.value in seen and key.value != "<<":
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    left, count = [(value, 0)], 0
    while left:
        one, depth = left.pop()
        count += 1
        if depth > _MOST_DEEP or count > _MOST_VALUES:
            raise yaml.YAMLError(f"values nest more than {_MOST_DEEP} deep, or are more than {_MOST_VALUES:,}")
        if isinstance(one, (bytes, set)):
            raise yaml.YAMLError("!!binary and !!set are nothing that a setting takes")
        if isinstance(one, (dict, list, tuple)):
            left += [(inner, depth + 1) for inner in (chain(*one.items()) if isinstance(one, dict) else one)]
    return value


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file holding one mapping. Raises `InputError` with the line when it is not."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"config file {str(path)!r} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config file {str(path)!r} cannot be read: {error}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, path: str) -> dict[str, Any]:
    """The mapping that a YAML or JSON text holds, `path` names it. Raises `InputError` with the line when it is not."""
    try:
        value = _parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{path!r} is not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    except (ValueError, RecursionError) as error:  # e.g. 2026-13-45, which looks like a date
        raise InputError(f"{path!r} is not valid YAML: {error}; put the value in quotes") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path!r} must hold `key: value` lines, not a {type(value).__name__}")
    return value


class _Unquoted(dict[Any, Any]):
    """A mapping that YAML made of text without quotes or braces, which may have been meant as text."""


def parse_override(text: str) -> tuple[list[str], Any]:
    """`a.b=c` -> (["a", "b"], value as YAML reads it; nothing is empty text). Raises `InputError`.

    Nothing in it is a comment: a prompt may hold ` #`, and what follows would be lost without a word.
    """
    key, separator, raw = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not separator or not all(keys) or len(keys) > _MOST_DEEP:
        raise InputError(f"--set {text!r:.200} is not KEY=VALUE, e.g. --set recipe.guidance_scale=2")
    plain = raw.strip()
    if not plain:
        return keys, ""  # YAML would make it null
    try:
        value = _parse_yaml(raw)
    except (yaml.YAMLError, ValueError, RecursionError):
        return keys, raw  # e.g. a template that opens with `{`: keep the text
    if plain.startswith(_ENCLOSED):
        return keys, value
    if _COMMENT.search(plain):
        return keys, plain
    return keys, _Unquoted(value) if isinstance(value, dict) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if nested else value
    return merged


def load_config(preset: str | None, files: Iterable[str] = (), overrides: Iterable[str] = ()) -> RunConfig:
    """The run's config: preset, then each config file, then each `--set`, later ones win. Raises `InputError`.

    `train=@NAME` in a config file or `--set` lays a training recipe of presets/trainings over what was there.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        if preset not in preset_names():
            raise InputError(f"--preset {preset!r} is unknown{nearest(preset, preset_names())}")
        values = load_yaml(PRESETS / "runs" / f"{preset}.yaml")
    for file in files:
        values = merge(values, expand_training(load_yaml(Path(file))))
    return validate(RunConfig, apply_overrides(values, overrides))


def with_overrides(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """A config with other values laid over it, in the words of `--set`. Raises `InputError`."""
    return validate(RunConfig, apply_overrides(config.model_dump(mode="json"), overrides))


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """`a.b=c` words laid over nested mappings, not validated. Raises `InputError` when one is no KEY=VALUE."""
    merged = dict(values)
    for text in overrides:
        keys, value = parse_override(text)
        for key in reversed(keys):
            value = {key: value}
        merged = merge(merged, expand_training(value))
    return merged


def validate(model: type[M], values: Mapping[str, Any], where: str = "") -> M:
    """A config from plain values. Raises `InputError`, `where` first, that names every mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(where + "; ".join(describe(model, item) for item in error.errors())) from error


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` or the list of choices, for the end of a message."""
    known = list(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}"


def describe(model: type[BaseModel], error: Any) -> str:
    """One pydantic error as `where: what; mend`."""
    location = [str(part) for part in error["loc"]]
    where = ".".join(location) or "config"
    if error["type"] == "extra_forbidden":
        parent = _model_at(model, location[:-1])
        return f"unknown key {where!r}{nearest(location[-1], parent.model_fields) if parent else ''}"
    message = str(error["msg"]).removeprefix("Value error, ")
    found = f"{where}: {message} (got {error['input']!r:.80})" if error["loc"] else message
    return f"{found}; put text that holds `: ` in quotes" if isinstance(error["input"], _Unquoted) else found


def _model_at(model: type[BaseModel], location: Iterable[str]) -> type[BaseModel] | None:
    """The model that pydantic's path leads to, through models and mappings; None where it leads through more."""
    annotation: Any = model
    for part in location:
        annotation = _below(annotation, part)
    return next((kind for kind in _alternatives(annotation) if _is_model(kind)), None)


def _below(annotation: Any, part: str) -> Any:
    """The annotation of a field of a model, or of a mapping's values."""
    for kind in _alternatives(annotation):
        if get_origin(kind) is dict:
            return get_args(kind)[1]
        if _is_model(kind) and part in kind.model_fields:
            return kind.model_fields[part].annotation
    return None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The kinds that an annotation such as `X | None` allows."""
    return (annotation,) if get_origin(annotation) is dict else (annotation, *get_args(annotation))


def _is_model(kind: Any) -> bool:
    # Python 3.10 holds `list[int]` for a type, too.
    return get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel)
