import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.encoders import Encoder
from pipeline.core.errors import InputError
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.encoder_choice import baselines, chosen_encoders
from tests.image_sets import small_config


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store.open(str(tmp_path_factory.mktemp("root")))


def write_model(store: Store, config: RunConfig) -> str:
    """What the choice reads of a model of a config; its weights are not asked for."""
    identity, identity_hash = model_identity(config, resolve_recipe(config))
    directory = model_directory(identity_hash)
    names = {"class_names": ["shirt"], "wnids": ["n00000001"]}
    store.write_json(f"{directory}/config.json", {"train": config.train.model_dump(mode="json"), **names})
    store.write_json(f"{directory}/manifest.json", {"identity": identity, "files": {}})
    return directory


def test_models_of_the_config_come_by_seed_with_their_twins_first(store: Store):
    made = {
        (data, seed): write_model(store, small_config(data=data, seed=seed))
        for data in ("synthetic", "real")
        for seed in (0, 1)
    }
    found = chosen_encoders(small_config(), store, (), (0, 1), twin=True)
    wanted = [("real", 0), ("real", 1), ("synthetic", 0), ("synthetic", 1)]
    assert [encoder.model_dir for encoder in found] == [made[key] for key in wanted]
    assert [encoder.group for encoder in found] == ["real, 8 per class"] * 2 + ["synthetic, 8 per class"] * 2
    assert [encoder.seed for encoder in found] == [0, 1, 0, 1] and {e.input_size for e in found} == {32}
    assert len({encoder.fingerprint for encoder in found}) == 4
    alone = chosen_encoders(small_config(), store, (), (), twin=False)
    assert [encoder.model_dir for encoder in alone] == [made["synthetic", 0]]


def test_named_models_that_differ_in_more_than_the_seed_are_groups_of_their_own(store: Store):
    names = [write_model(store, small_config(epochs=n, seed=s))[7:] for n, s in ((2, 0), (2, 1), (3, 0))]
    found = chosen_encoders(small_config(), store, names, (), twin=False)
    groups = [encoder.group for encoder in found]
    assert groups[0] == groups[1] != groups[2]
    assert all(group.startswith("synthetic, 8 per class (") for group in groups)


@pytest.mark.parametrize(
    ("models", "seeds", "twin", "said"),
    [
        (("a",), (1,), False, "leave out --seed and --twin"),
        (("a",), (), True, "leave out --seed and --twin"),
        (("../x",), (), False, "'../x' is no directory name"),
        (("none",), (), False, r"models/none.*jobs\.train"),
        ((), (9,), False, "seed 9"),
    ],
)
def test_models_that_are_not_there_are_named(store: Store, models, seeds, twin: bool, said: str):
    with pytest.raises(InputError, match=said):
        chosen_encoders(small_config(), store, models, seeds, twin=twin)


def test_there_is_a_random_network_for_each_seed_and_one_of_pixels():
    models = [Encoder(str(n), "g", seed, 32, "models/x", "w") for n, seed in enumerate((2, 0, 2))]
    assert [encoder.id for encoder in baselines(models, pixels=True)] == ["random-0", "random-2", "pixels"]
    assert [encoder.id for encoder in baselines(models, pixels=False)] == ["random-0", "random-2"]
    with pytest.raises(InputError, match=r"\[32, 64\]"):
        baselines([*models, Encoder("x", "g", 0, 64, "models/x", "w")], pixels=True)
