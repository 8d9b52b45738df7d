import pytest

from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig


def test_further_sets_are_a_mapping_that_can_be_hashed() -> None:
    settings = EvaluateConfig.model_validate({"test_sets": {"imagenet_r": "/data/r"}})
    assert settings.test_sets == (("imagenet_r", "/data/r"),) and hash(settings)
    assert settings.model_dump(mode="json")["test_sets"] == {"imagenet_r": "/data/r"}


@pytest.mark.parametrize("value", ["5", "null", "[1, 2]", "word"])
def test_what_is_no_mapping_is_one_line_that_says_how(value: str) -> None:
    """Null is what a file has whose every line below `test_sets:` is commented out."""
    with pytest.raises(InputError, match=r"^evaluate\.test_sets: must be NAME: FOLDER pairs, e\.g\."):
        load_config("fashion", overrides=[f"evaluate.test_sets={value}"])
