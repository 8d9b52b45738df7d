import logging
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from pipeline.core import diffusion
from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine, are_finite
from pipeline.core.errors import InputError
from pipeline.core.model_source import EMBEDDED
from tests.tiny_models import build_tiny_model, build_tiny_xl_model, spoil_decoder

PROMPTS = ["a bag", "a shirt", "a bag", "a shirt inside a barn", "a boot", "a bag inside a barn", "coat", "a dress"]
SEEDS = [7, 1, 2**62 + 5, 3, 3, 12, 2**63 - 1, 0]


def recipe(directory: Path, **values: object) -> RecipeConfig:
    settings = {"model": ModelConfig(id=str(directory)), "width": 16, "height": 16, "num_inference_steps": 4, **values}
    return RecipeConfig(**settings)


def reference(directory: Path, settings: RecipeConfig, count: int, **load: object) -> list[np.ndarray]:
    """The images of diffusers' own pipeline, called as its documentation says."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(directory, torch_dtype=torch.float32, **load)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        PROMPTS[:count],
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS[:count]],
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        negative_prompt=[settings.negative_prompt] * count if settings.negative_prompt else None,
        width=settings.width,
        height=settings.height,
    )
    return [np.asarray(image) for image in output.images]


def pixels(engine: DiffusionEngine, count: int) -> list[np.ndarray]:
    return [image.pixels for image in engine.generate(PROMPTS[:count], SEEDS[:count])]


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("values", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "a boot", "guidance_scale": 7.5}])
def test_the_engine_gives_the_bits_of_the_pipeline_itself(tiny_model: Path, count: int, values: dict[str, object]):
    settings = recipe(tiny_model, **values)
    engine = DiffusionEngine(tiny_model, settings, count, "cpu")
    for ours, theirs in zip(pixels(engine, count), reference(tiny_model, settings, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_a_model_with_two_text_encoders_gives_the_images_of_the_pipeline_itself(
    tmp_path: Path, count: int, guidance_scale: float
):
    """But for rounding: the pooled embedding of a text alone (ours) and in a batch differ by an ulp on some CPUs."""
    directory = build_tiny_xl_model(tmp_path / "xl")
    settings = recipe(directory, guidance_scale=guidance_scale)
    engine = DiffusionEngine(directory, settings, count, "cpu")
    images = np.stack(pixels(engine, count)).astype(int)
    apart = np.abs(images - np.stack(reference(directory, settings, count)))
    assert apart.max() <= 1 and np.mean(apart > 0) < 0.002
    others = np.stack([image.pixels for image in engine.generate(PROMPTS[::-1][:count], SEEDS[:count])])
    assert np.mean(images != others) > 0.05  # other texts are seen by this measure


def test_a_pipeline_of_an_unknown_class_is_given_the_prompts_as_text(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    settings = recipe(tiny_model, negative_prompt="a boot")
    expected = pixels(DiffusionEngine(tiny_model, settings, 3, "cpu"), 3)
    monkeypatch.setattr(diffusion, "_EMBEDDING_NAMES", {})
    for ours, theirs in zip(pixels(DiffusionEngine(tiny_model, settings, 3, "cpu"), 3), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_shipped_generator_gives_the_bits_of_the_pipeline_itself(count: int):
    settings = RecipeConfig()
    engine = DiffusionEngine(EMBEDDED, settings, count, "cpu")
    for ours, theirs in zip(pixels(engine, count), reference(EMBEDDED, settings, count), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def check_padding(directory: Path, device: str, count: int, dtype: str = "float32") -> None:
    """The first rows of a batch are the same bits whatever the others are; tests/gpu asks this of a GPU."""
    engine = DiffusionEngine(directory, recipe(directory, dtype=dtype), 8, device)
    full, part = pixels(engine, 8), pixels(engine, count)
    assert len(part) == count
    for ours, theirs in zip(part, full[:count], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("count", [1, 5])
def test_a_padded_batch_gives_the_images_of_a_full_one(tiny_model: Path, count: int):
    check_padding(tiny_model, "cpu", count)


def test_the_environment_names_all_that_bits_depend_on(tiny_model: Path):
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), 1, "cpu")
    names = {"device", "torch_threads", "torch", "diffusers", "transformers", "tokenizers", "numpy", "encoder"}
    assert engine.environment.keys() == {*names, "scheduler"}
    assert engine.environment["scheduler"] == "PNDMScheduler" and "Pillow" in engine.environment["encoder"]


def test_a_seed_and_a_prompt_each_change_the_image(tiny_model: Path):
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), 1, "cpu")
    image = engine.generate(["a bag"], [1])[0].pixels
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    assert (image != engine.generate(["a bag"], [2])[0].pixels).any()
    assert (image != engine.generate(["a boot"], [1])[0].pixels).any()


def test_a_distinct_prompt_is_encoded_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), 4, "cpu")
    encoded = []
    encode = engine.pipeline.encode_prompt

    def spy(*arguments: object, **named: object) -> object:
        encoded.append(named.get("prompt"))  # the pipeline itself calls this too, to pass our embeddings through
        return encode(*arguments, **named)

    monkeypatch.setattr(engine.pipeline, "encode_prompt", spy)
    engine.generate(["a bag", "a boot", "a bag"], [1, 2, 3])
    engine.generate(["a boot"], [4])
    assert [prompt for prompt in encoded if prompt is not None] == ["a bag", "a boot", ""]


@pytest.mark.parametrize("build", [build_tiny_model, build_tiny_xl_model])
def test_a_negative_prompt_is_encoded_once(tmp_path: Path, build: Callable[[Path], Path]):
    directory = build(tmp_path / "model")
    engine = DiffusionEngine(directory, recipe(directory, negative_prompt="a boot"), 4, "cpu")
    calls: list[object] = []
    engine.pipeline.text_encoder.register_forward_hook(lambda *call: calls.append(call))
    engine.generate(PROMPTS[:2], SEEDS[:2])
    engine.generate(PROMPTS[3:6], SEEDS[3:6])
    assert len(calls) == 5 + 1


@pytest.mark.parametrize("force_zeros", [True, False])
@pytest.mark.parametrize("values", [{}, {"guidance_scale": 1.0}, {"negative_prompt": "a boot"}])
@pytest.mark.parametrize("build", [build_tiny_model, build_tiny_xl_model])
def test_the_embeddings_are_the_bits_of_encode_prompt(
    tmp_path: Path, build: Callable[[Path], Path], values: dict[str, object], force_zeros: bool
):
    directory = build(tmp_path / "model")
    settings = recipe(directory, **values)
    engine = DiffusionEngine(directory, settings, 2, "cpu")
    engine.pipeline.register_to_config(force_zeros_for_empty_prompt=force_zeros)
    rows = [
        engine.pipeline.encode_prompt(
            prompt=text,
            negative_prompt=settings.negative_prompt or None,
            device=torch.device("cpu"),
            num_images_per_prompt=1,
            do_classifier_free_guidance=settings.guidance_scale > 1,
        )
        for text in PROMPTS[:2]
    ]
    expected = [torch.cat(column) for column in zip(*rows, strict=True) if column[0] is not None]
    found = engine._conditioning(PROMPTS[:2])
    names = [name for name in diffusion._EMBEDDING_NAMES[type(engine.pipeline).__name__] if name in found]
    assert len(names) == len(found) == len(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in zip(names, expected, strict=True))


def test_prompts_that_are_cut_are_no_lines_of_the_log(tiny_model: Path, caplog: pytest.LogCaptureFixture):
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), 1, "cpu")
    logger = logging.getLogger(type(engine.pipeline).__module__)  # those of diffusers do not tell the root's
    logger.addHandler(caplog.handler)
    try:
        engine.generate(["a bag inside a barn " * 100], [1])
    finally:
        logger.removeHandler(caplog.handler)
    assert [record for record in caplog.records if record.name == logger.name] == []


def test_no_watermark_is_drawn_where_its_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl"
    directory = build_tiny_xl_model(tmp_path / "xl")
    monkeypatch.setattr(f"{module}.is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(f"{module}.StableDiffusionXLWatermarker", object, raising=False)
    assert DiffusionEngine(directory, recipe(directory), 1, "cpu").pipeline.watermark is None


def test_the_kept_embeddings_are_bounded_in_bytes(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), 8, "cpu")
    expected = pixels(engine, 8)
    size = sum(tensor.nbytes for tensor in engine._embed("a bag"))
    monkeypatch.setattr(diffusion, "MAX_CACHED_BYTES", 2 * size)
    small = DiffusionEngine(tiny_model, recipe(tiny_model), 8, "cpu")
    for ours, theirs in zip(pixels(small, 8), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert list(small._embeddings) == ["coat", "a dress"]


@pytest.mark.parametrize("build", [build_tiny_model, build_tiny_xl_model])
def test_an_image_of_no_numbers_is_told_from_a_black_one(tmp_path: Path, build: Callable[[Path], Path]):
    for prepare, finite in ((build, True), (spoil_decoder, False)):
        directory = prepare(tmp_path / "model")
        made = DiffusionEngine(directory, recipe(directory), 2, "cpu").generate(["a bag"], [1])
        assert [image.is_finite for image in made] == [finite]


def test_one_image_of_no_numbers_spoils_no_other():
    images = torch.zeros(3, 3, 4, 4, dtype=torch.float16)
    images[1, 2, 0, 3] = float("nan")
    assert are_finite(images) == [True, False, True]


def test_what_a_safety_checker_blackens_is_finite(tmp_path: Path):
    directory = spoil_decoder(build_tiny_model(tmp_path / "model", flag_threshold=-1))
    (image,) = DiffusionEngine(directory, recipe(directory), 1, "cpu").generate(["a bag"], [1])
    assert (image.is_nsfw, image.is_finite) == (True, True)


@pytest.mark.parametrize(("threshold", "flagged"), [(-1.0, True), (1.0, False)])
def test_the_safety_checker_of_a_model_is_heard(tmp_path: Path, threshold: float, flagged: bool):
    directory = build_tiny_model(tmp_path / "model", flag_threshold=threshold)
    image = DiffusionEngine(directory, recipe(directory), 1, "cpu").generate(["a bag"], [1])[0]
    assert image.is_nsfw is flagged
    assert bool(image.pixels.max() == 0) is flagged


def test_the_safety_checker_can_be_turned_off(tmp_path: Path):
    directory = build_tiny_model(tmp_path / "model", flag_threshold=-1)
    engine = DiffusionEngine(directory, recipe(directory, safety_checker=False), 1, "cpu")
    image = engine.generate(["a bag"], [1])[0]
    assert not image.is_nsfw and image.pixels.max() > 0


def test_another_scheduler_gives_other_images(tiny_model: Path):
    images = [
        DiffusionEngine(tiny_model, recipe(tiny_model, scheduler=name), 1, "cpu").generate(["a bag"], [1])[0].pixels
        for name in ("default", "DDIMScheduler")
    ]
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheduler": "NoSuchScheduler"}, "no scheduler of diffusers"),
        ({"scheduler": "DiffusionPipeline"}, "no scheduler of diffusers"),
        ({"model": ModelConfig(variant="fp16")}, "cannot be loaded"),
    ],
)
def test_a_wrong_setting_is_an_input_error(tiny_model: Path, values: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        DiffusionEngine(tiny_model, recipe(tiny_model, **values), 1, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error_and_no_fallback(tiny_model: Path):
    with pytest.raises(InputError, match="sees no GPU"):
        DiffusionEngine(tiny_model, recipe(tiny_model), 1, "cuda")


def test_an_xl_model_in_half_precision_goes_on_after_a_decoder_that_ran_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build_tiny_xl_model(tmp_path / "xl")
    engine = DiffusionEngine(directory, recipe(directory, guidance_scale=2, dtype="float16"), 2, "cpu")

    def fails(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.pipeline.vae, "decode", fails)
        with pytest.raises(torch.OutOfMemoryError):
            engine.generate(["a bag"], [1])
    assert engine.pipeline.vae.dtype == torch.float16
    assert engine.generate(["a bag"], [1])[0].is_finite
