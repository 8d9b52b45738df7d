"""The base of every config."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Frozen(BaseModel):
    """Base of every config: immutable, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        coerce_numbers_to_str=True,  # `--set recipe.seed_namespace=1` is a word that YAML reads as a number
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("must not be true or false")
        holds = isinstance(value, list) and any(isinstance(one, bool) for one in value)
        if holds and not re.search(r"\b(bool|Any)\b", repr(annotation)):
            raise ValueError("must not hold true or false")
        return value
