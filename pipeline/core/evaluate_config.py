"""The evaluation's part of a run's configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    field_validator,
    model_validator,
)

from pipeline.core.corruption_names import ALL, SEVERITIES, STANDARD
from pipeline.core.frozen import Frozen

SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""A word that may stand in `--set evaluate.test_sets.NAME` and name a metric."""


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """A mapping of words to texts as pairs, which can be hashed as the rest of a config can."""
    try:
        pairs = dict(value)
    except (TypeError, ValueError) as error:
        raise ValueError("must be NAME: FOLDER pairs, e.g. --set evaluate.test_sets.imagenet_r=FOLDER") from error
    named = TypeAdapter(dict[SetName, str]).validate_python(pairs)
    return tuple(named.items())


PairsField = Annotated[
    tuple[tuple[str, str], ...], PlainValidator(_pairs, json_schema_input_type=Any), PlainSerializer(dict)
]


class CorruptionConfig(Frozen):
    """The main test set with ImageNet-C's corruptions (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

    names: tuple[str, ...] = ()
    """`standard` (the 15 of ImageNet-C), `all` (4 more), or a list of them; none by default."""
    severities: tuple[int, ...] = SEVERITIES
    """1 (weak) to 5 (strong)."""
    num_images_per_class: int | None = Field(None, ge=1)
    """Only the first so many test images of each class; default: all."""
    seed: int = Field(0, ge=0)
    """Of the noise: each image, corruption and severity has draws of its own, the same in every run."""
    num_processes: int = Field(2, ge=1)
    """That make the corrupted images."""

    @field_validator("names", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        words = {"standard": STANDARD, "all": ALL, "none": ()}
        return words.get(value, (value,)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> CorruptionConfig:
        if unknown := [name for name in self.names if name not in ALL]:
            raise ValueError(f"unknown corruption {unknown[0]!r}; choose from standard, all, {', '.join(ALL)}")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise ValueError(f"severities must be some of 1 to 5 (got {list(self.severities)})")
        for name, values in (("names", self.names), ("severities", self.severities)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has one twice; list each once")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the counts, JSON-able: how many processes make the images does not."""
        return self.model_dump(mode="json", exclude={"num_processes"})


class EvaluateConfig(Frozen):
    """Scoring on real test images."""

    test_set: str = "fashion_mnist"
    """The main one, which the page shows: `fashion_mnist`, a name of `test_sets`, or a folder or Parquet file."""
    test_sets: PairsField = ()
    """Further sets, name -> folder or Parquet file: names of assets/test_sets/sets.yaml, or your own."""
    resize: int | None = Field(None, ge=16)
    """Pixels of the shorter side before the centre crop; default: `input_size`, as for the paper's checkpoints."""
    corruptions: CorruptionConfig = CorruptionConfig()
    """Corrupted copies of the main test set."""
    batch_size: int = Field(500, ge=1)
    """Images per forward."""
    num_calibration_bins: int = Field(15, ge=2)
    """Equal-width bins of the expected calibration error."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model runs."""
    torch_threads: int = Field(2, ge=1)
    """Intra-op threads."""
