import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.classifier import load_classifier
from pipeline.core.encoders import Encoder, pixel_encoder, random_encoder


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_model_without_its_head_gives_the_pooled_features(tmp_path, save_model, images):
    store = Store.open(str(tmp_path))
    directory = save_model(store, "real", 1)
    whole = load_classifier(store, directory).model
    seen = []
    whole.fc.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.inference_mode():
        whole(images)
        found = Encoder("x", "real", 1, 32, directory, "w").load(store)(images)
    assert found.shape == (3, 2048) and torch.equal(found, seen[0])


def test_random_weights_are_those_of_the_seed_and_no_training_mode(tmp_path, images):
    store = Store.open(str(tmp_path))
    with torch.inference_mode():
        first, again, other = (random_encoder(seed, 32).load(store)(images) for seed in (0, 0, 1))
        alone = random_encoder(0, 32).load(store)(images[:1])
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.allclose(first[:1], alone, rtol=1e-4, atol=1e-5)  # a batch norm in training mode would mix images


def test_pixels_are_the_image_itself(tmp_path, images):
    network = pixel_encoder(32).load(Store.open(str(tmp_path)))
    assert torch.equal(network(images), images.flatten(1))
    assert network(torch.ones(2, 3, 64, 64)).shape == (2, 3 * 32 * 32)


def test_the_fingerprint_follows_weights_and_input_size():
    one = Encoder("a", "real", 0, 32, "models/a", "w")
    assert one.fingerprint == Encoder("b", "other", 1, 32, "models/b", "w").fingerprint
    others = [Encoder("a", "real", 0, 64, "models/a", "w"), Encoder("a", "real", 0, 32, "models/a", "v")]
    assert one.fingerprint not in {other.fingerprint for other in others}
