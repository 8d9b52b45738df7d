import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor

from pipeline.core.config import RecipeConfig
from pipeline.core.diffusion import DiffusionEngine
from pipeline.core.errors import InputError
from pipeline.core.safety import SafetyScorer
from tests.tiny_models import build_tiny_checker, build_tiny_model, tiny_checker

IMAGES = list(np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checker with a threshold that flags some of `IMAGES` and not others."""
    loose = build_tiny_checker(tmp_path_factory.mktemp("loose") / "checker", threshold=0)
    middle = float(np.median(SafetyScorer(loose, None, "cpu").scores(IMAGES)))
    return build_tiny_checker(tmp_path_factory.mktemp("middling") / "checker", threshold=middle)


def test_a_score_above_zero_is_what_the_checker_itself_flags(middling: Path):
    scores = SafetyScorer(middling, None, "cpu").scores(IMAGES)
    processor = CLIPImageProcessor.from_pretrained(middling)
    checker = type(tiny_checker(0)).from_pretrained(middling)
    pixels = processor(images=[Image.fromarray(image) for image in IMAGES], return_tensors="pt").pixel_values
    _, flags = checker(clip_input=pixels, images=[image.copy() for image in IMAGES])
    assert [score > 0 for score in scores] == flags and 5 < sum(flags) < 35


def test_special_care_lowers_every_threshold_by_a_hundredth(tmp_path: Path):
    """As the checker does when an image is near one of three special concepts; all images are, at a threshold of -1."""
    plain = build_tiny_checker(tmp_path / "plain", threshold=0.1)
    careful = build_tiny_checker(tmp_path / "careful", threshold=0.1, special_threshold=-1)
    before, after = (np.array(SafetyScorer(path, None, "cpu").scores(IMAGES)) for path in (plain, careful))
    np.testing.assert_allclose(after - before, 0.01, atol=0.0015)  # scores are rounded to 0.001


def test_a_score_does_not_depend_on_the_images_beside_it(middling: Path):
    scorer = SafetyScorer(middling, None, "cpu")
    assert scorer.scores(IMAGES[3:4]) == scorer.scores(IMAGES)[3:4]


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_directory_that_is_not_whole_is_an_input_error(tmp_path: Path, file: str):
    directory = build_tiny_checker(tmp_path / "checker")
    (directory / file).unlink()
    with pytest.raises(InputError, match="recipe.safety_model"):
        SafetyScorer(directory, None, "cpu")


def test_weights_of_something_else_are_no_checker(tmp_path: Path, tiny_model: Path):
    directory = build_tiny_checker(tmp_path / "checker")
    weights = (tiny_model / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="is no safety checker: it lacks"):
        SafetyScorer(directory, None, "cpu")


def test_weights_under_the_names_they_were_published_with_are_found(middling: Path, tmp_path: Path):
    """transformers has taken a level out of the names since; a level that it did not find would hold random numbers."""
    older = shutil.copytree(middling, tmp_path / "older")
    weights = load_file(middling / "model.safetensors")
    named = {re.sub(r"^vision_model\.(?!vision_model)", "vision_model.vision_model.", k): v for k, v in weights.items()}
    save_file(named, older / "model.safetensors", {"format": "pt"})
    assert any(name.startswith("vision_model.vision_model.") for name in named)
    assert SafetyScorer(older, None, "cpu").scores(IMAGES) == SafetyScorer(middling, None, "cpu").scores(IMAGES)


def test_two_checkers_are_one_too_many(tmp_path: Path, middling: Path):
    model = build_tiny_model(tmp_path / "model", flag_threshold=1)
    recipe = RecipeConfig(width=16, height=16, num_inference_steps=1)
    with pytest.raises(InputError, match="recipe.safety_checker=false"):
        DiffusionEngine(model, recipe, 3, "cpu", safety=SafetyScorer(middling, None, "cpu"))
    alone = recipe.model_copy(update={"safety_checker": False})
    engine = DiffusionEngine(model, alone, 3, "cpu", safety=SafetyScorer(middling, None, "cpu"))
    assert engine.generate(["a bag"], [1])[0].nsfw_score is not None


@pytest.mark.parametrize("threshold", [1.0, -1.0])
def test_a_models_own_checker_tells_its_scores_too(tmp_path: Path, threshold: float):
    model = build_tiny_model(tmp_path / "model", flag_threshold=threshold)
    engine = DiffusionEngine(model, RecipeConfig(width=16, height=16, num_inference_steps=1), 3, "cpu")
    images = engine.generate(["a bag", "a shirt"], [1, 2])
    assert [image.is_nsfw for image in images] == [image.nsfw_score > 0 for image in images] == [threshold < 0] * 2
    assert all(abs(image.nsfw_score + threshold) <= 1.011 for image in images)  # cosine less threshold


def test_without_a_checker_there_is_no_score(tiny_model: Path):
    engine = DiffusionEngine(tiny_model, RecipeConfig(width=16, height=16, num_inference_steps=1), 3, "cpu")
    assert engine.generate(["a bag"], [1])[0].nsfw_score is None
