import pytest

from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused_before_any_feature_is_made(seed: int) -> None:
    with pytest.raises(InputError, match=r"^transfer\.probe_seeds"):
        load_config("fashion", overrides=[f"transfer.probe_seeds=[0, {seed}]"])
