import shutil
from pathlib import Path

import pytest

from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.model_source import CHECKER, check_models, local_model_dir, model_fingerprint
from tests.tiny_models import build_tiny_checker

COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"


def test_a_copy_elsewhere_has_the_same_fingerprint(tiny_model: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert model_fingerprint(ModelConfig(id=str(copy))) == model_fingerprint(ModelConfig(id=str(tiny_model)))


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"])
def test_other_content_has_another_fingerprint(tiny_model: Path, tmp_path: Path, file: str):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    with open(copy / file, "ab") as changed:
        changed.write(b" ")
    assert model_fingerprint(ModelConfig(id=str(copy))) != model_fingerprint(ModelConfig(id=str(tiny_model)))


def test_a_note_beside_the_components_is_not_in_the_fingerprint(tiny_model: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    (copy / "training.json").write_text("{}")
    assert model_fingerprint(ModelConfig(id=str(copy))) == model_fingerprint(ModelConfig(id=str(tiny_model)))


def test_a_sentencepiece_tokenizer_is_in_the_fingerprint(tiny_model: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    found = []
    for content in ("one", "other"):
        (copy / "tokenizer" / "spiece.model").write_text(content)
        folder = shutil.copytree(copy, tmp_path / content)  # a path's files are hashed once per process
        found.append(model_fingerprint(ModelConfig(id=str(folder))))
    assert found[0] != found[1]


def test_a_hub_id_is_named_by_its_commit():
    model = ModelConfig(id="CompVis/stable-diffusion-v1-4", revision=COMMIT)
    assert model_fingerprint(model) == {"id": model.id, "revision": COMMIT, "variant": None}


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:39], COMMIT.upper()])
def test_a_hub_id_without_a_commit_is_refused(revision: str | None):
    with pytest.raises(InputError, match="40 hex digits"):
        model_fingerprint(ModelConfig(id="CompVis/stable-diffusion-v1-4", revision=revision))


def test_weights_that_cannot_be_fetched_are_a_work_error_that_says_how():
    with pytest.raises(WorkError, match="give a local directory"):
        local_model_dir(ModelConfig(id="synthclones-test/no-such-model", revision=COMMIT))


@pytest.mark.parametrize("name", ["no/such/dir", "nowhere", "../up/there", "~/model"])
def test_a_path_that_is_not_there_is_an_input_error(name: str):
    with pytest.raises(InputError, match="recipe.model.id"):
        local_model_dir(ModelConfig(id=name))


def test_a_folder_without_an_index_is_no_model(tmp_path: Path):
    with pytest.raises(InputError, match="model_index.json"):
        local_model_dir(ModelConfig(id=str(tmp_path)))


def test_pickled_weights_are_never_loaded(tiny_model: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    for weights in copy.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="pickled weights are never loaded"):
        local_model_dir(ModelConfig(id=str(copy)))


def test_a_safety_model_is_a_folder_of_its_own_layout(tiny_model: Path, tmp_path: Path):
    checker = ModelConfig(id=str(build_tiny_checker(tmp_path / "checker")))
    assert local_model_dir(checker, CHECKER) == tmp_path / "checker"
    with pytest.raises(InputError, match=r"recipe.safety_model.id: .* has no preprocessor_config.json"):
        model_fingerprint(ModelConfig(id=str(tiny_model)), CHECKER)
    (tmp_path / "checker" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"recipe.safety_model.id: .* has no \*.safetensors"):
        model_fingerprint(checker, CHECKER)


@pytest.mark.parametrize(
    ("id", "says"),
    [("embedded", "has no preprocessor_config.json"), ("nowhere", "give a path or ORG/NAME"), ("a/b", "40 hex digits")],
)
def test_a_safety_model_that_is_nowhere_is_an_input_error_of_its_own_key(id: str, says: str):
    with pytest.raises(InputError, match=rf"recipe.safety_model.*{says}"):
        model_fingerprint(ModelConfig(id=id), CHECKER)


def test_a_machine_with_other_weights_is_told_from_one_with_the_same(tiny_model: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    identity = {"model": model_fingerprint(ModelConfig(id=str(tiny_model)))}
    here = RecipeConfig(model=ModelConfig(id=str(copy)))
    check_models(here, identity)
    other = shutil.copytree(copy, tmp_path / "other")
    with open(other / "unet" / "diffusion_pytorch_model.safetensors", "ab") as changed:
        changed.write(b" ")
    with pytest.raises(InputError, match=r"recipe.model.id: .* on node .* has other files"):
        check_models(RecipeConfig(model=ModelConfig(id=str(other))), identity)


def test_a_checker_is_compared_too(tiny_model: Path, tmp_path: Path):
    checkers = [ModelConfig(id=str(build_tiny_checker(tmp_path / str(n), threshold=-n))) for n in (0, 1)]
    model = ModelConfig(id=str(tiny_model))
    identity = {"model": model_fingerprint(model), "safety_model": model_fingerprint(checkers[0], CHECKER)}
    check_models(RecipeConfig(model=model, safety_model=checkers[0]), identity)
    with pytest.raises(InputError, match="recipe.safety_model.id: .* has other files"):
        check_models(RecipeConfig(model=model, safety_model=checkers[1]), identity)
