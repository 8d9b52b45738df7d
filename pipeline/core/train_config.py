"""The configuration of a training."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from pipeline.core.extra_counts import ExtraImages, as_mapping, parse_extra_images
from pipeline.core.frozen import Frozen


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError("must be two numbers above 0, the lower one first, e.g. [0.4, 1]")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
"""Lowest and highest of a uniform draw."""
ExtraField = Annotated[
    ExtraImages, PlainValidator(parse_extra_images, json_schema_input_type=Any), PlainSerializer(as_mapping)
]
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""Torch's generators take no larger one."""
BLUR_SIGMAS = 3
"""Standard deviations on each side that the kernel of `dino_multicrop`'s blur holds."""


class MultiCropConfig(Frozen):
    """DINO's crops and colours as the paper's sibling code base (naver/trex) merges them for one global crop."""

    num_local: int = Field(8, ge=0, le=32)
    """Local crops of each image, beside the one global crop of `train.input_size`."""
    local_size: int = Field(96, ge=8)
    """Pixels of a local crop."""
    global_scale: Range = (0.40, 1.0)
    """Share of the area that a global crop keeps."""
    local_scale: Range = (0.05, 0.40)
    """Share of the area that a local crop keeps."""
    jitter_probability: Share = 0.8
    """Of a change of colours."""
    brightness: Share = 0.4
    """Largest change of the factor."""
    contrast: Share = 0.4
    """Likewise."""
    saturation: Share = 0.2
    """Likewise."""
    hue: float = Field(0.1, ge=0, le=0.5)
    """Largest turn, as a share of the colour circle."""
    grayscale_probability: Share = 0.2
    """Of a crop without colours."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the Gaussian blur, pixels of the crop."""
    global_blur_probability: Share = 0.2
    """Of a blurred global crop."""
    local_blur_probability: Share = 0.5
    """Of a blurred local crop."""
    solarize_probability: Share = 0.2
    """Of a global crop whose pixels above the middle are inverted."""

    @model_validator(mode="after")
    def _inside_the_image(self) -> MultiCropConfig:
        if self.global_scale[1] > 1 or self.local_scale[1] > 1:
            raise ValueError("global_scale and local_scale are shares of the area, at most 1")
        return self


class FilterConfig(Frozen):
    """Which usable images a training leaves out; what is left out is not replaced by further images."""

    min_pixel_std: float | None = Field(None, ge=0, le=255)
    """Leave out flatter images (0..255; near 0 is blank)."""
    max_nsfw_score: float | None = None
    """Leave out images that a safety checker scored higher; it flags above 0, so e.g. -0.02 is stricter than it."""
    drop_duplicates: bool = False
    """Of the images of a class with the same perceptual hash keep the first."""
    min_clip_score: float | None = Field(None, ge=-1, le=1)
    """Leave out images whose cosine to their class's text is lower, as `clip_audit` found."""
    clip_audit: str | None = Field(None, pattern=r"^[0-9a-f]{16}$")
    """Directory name under audits/ of an audit of this set with a CLIP model."""

    @model_validator(mode="after")
    def _score_and_source(self) -> FilterConfig:
        if (self.min_clip_score is None) != (self.clip_audit is None):
            raise ValueError("min_clip_score and clip_audit (whose scores) are given together; add the other one")
        return self


class TrainConfig(Frozen):
    """ResNet50 by SGD, values of facts on the paper's sibling code base unless a preset says otherwise."""

    data: Literal["synthetic", "real", "mixed"] = "synthetic"
    """`real` trains the twin: as many real training images per class as `images_per_class`; `mixed` trains on both."""
    extra_images: ExtraField = ()
    """WNID: number of images of a class beyond `images_per_class`, made by `jobs.generate --per-class`."""
    real_data: str | None = None
    """Folder of real training images, a sub-folder per WNID; default: Fashion-MNIST's, for its classes."""
    min_real_per_class: int | None = Field(None, ge=1)
    """So few real images of a class in `real_data` will do when it has not `images_per_class`; default: an error."""
    max_real_per_class: int | None = Field(None, ge=1)
    """So many real images of a class in `real_data` are taken where it has them; default: `images_per_class`."""
    real_share: float = Field(0.5, gt=0, lt=1)
    """`mixed`: real images of every batch, of every forward; a fraction with a denominator up to 64."""
    separate_batch_norm: bool = False
    """`mixed`: batch norms of their own for synthetic images, which are thrown away; the model has the real ones'."""
    seed: Seed = 0
    """Of the initial weights, shuffling and augmentation."""
    input_size: int = Field(224, ge=16)
    """Pixels of the square input."""
    stored_size: int | None = Field(None, ge=16)
    """Pixels of the shorter side that larger images are shrunk to before the crops; default: 8/7 of the input."""
    epochs: int = Field(100, ge=1)
    """Passes over the images."""
    batch_size: int = Field(256, ge=2)
    """Global batch, over all workers."""
    learning_rate: float = Field(0.1, gt=0)
    """Peak, for a batch of 256; scaled linearly with `batch_size`."""
    final_learning_rate: float = Field(1e-6, ge=0)
    """End of the cosine, not scaled."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD, without Nesterov."""
    weight_decay: float = Field(1e-4, ge=0)
    """On weights only: none on biases and norms."""
    warmup_epochs: float = Field(10, ge=0)
    """Linear warm-up from 0."""
    head: Literal["cosine", "linear"] = "cosine"
    """Bias-free cosine softmax, or a plain linear layer."""
    temperature: float = Field(0.1, gt=0)
    """tau of the cosine head."""
    logit_adjustment: float = Field(0, ge=0, le=10)
    """Strength of the classes' shares in the loss, so that frequent classes are not predicted more often; 1 undoes
    them (balanced softmax), 0 is the plain cross-entropy."""
    augmentation: Literal["pytorch", "dino_multicrop"] = "pytorch"
    """RandomResizedCrop and horizontal flip, or DINO's colours on one global and several local crops."""
    min_crop_scale: float = Field(0.08, gt=0, le=1)
    """`pytorch`: smallest share of the area that a random crop keeps."""
    multi_crop: MultiCropConfig = MultiCropConfig()
    """`dino_multicrop`: its crops and colours."""
    filters: FilterConfig = FilterConfig()
    """Images of the set that are left out."""
    mixed_precision: Literal["none", "bfloat16", "float16"] = "none"
    """Autocast dtype of forward and backward; float16, on cuda only, with a loss scale."""
    sync_batch_norm: bool = False
    """Batch statistics of a forward over all workers instead of each one's own; cuda only."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """The model is the running mean of weights and batch-norm statistics with this decay per step, e.g. 0.9999."""
    num_workers: int = Field(2, ge=1)
    """DDP processes."""
    min_workers: int | None = Field(None, ge=1)
    """Elastic: go on with so few when nodes are lost, and grow back to `num_workers`; default: always all."""
    max_batch_per_worker: int | None = Field(None, ge=2)
    """Most images of one forward of a worker; its part of a batch goes through in several, and counts as one step."""
    num_cpus_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for a worker."""
    torch_threads: int = Field(1, ge=1)
    """Intra-op threads of a worker."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model trains; there is no fallback from one to the other."""
    ingest: Literal["memory", "stream"] = "memory"
    """`memory` decodes a worker's share once; `stream` decodes every epoch through Ray Data with bounded memory."""
    max_memory_gib: float = Field(4, gt=0)
    """`memory` refuses images that take more, generated and real ones together."""
    checkpoint_every_epochs: int = Field(5, ge=1)
    """Epochs between checkpoints; the last epoch always has one."""
    max_failures: int = Field(3, ge=0)
    """Restarts after a lost worker."""

    @property
    def num_extra(self) -> int:
        """Images of `extra_images`, all classes together."""
        return sum(count for _, count in self.extra_images)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.stored_size is not None and self.stored_size < self.input_size:
            raise ValueError(f"stored_size {self.stored_size} is below input_size {self.input_size}; raise it")
        if self.device == "cpu" and self.mixed_precision == "float16":
            raise ValueError("mixed_precision float16 needs device cuda; use bfloat16")
        if self.device == "cpu" and self.sync_batch_norm:
            raise ValueError("sync_batch_norm needs device cuda: torch has it for GPUs only")
        if self.extra_images and self.data == "real":
            raise ValueError("extra_images are generated ones, and data real reads none; leave them out")
        if self.extra_images and self.filters.min_clip_score is not None:
            raise ValueError("filters.min_clip_score needs an audit, which extra_images are in none of; leave one out")
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers {self.min_workers} is above num_workers {self.num_workers}; lower it")
        return self

    @model_validator(mode="after")
    def _blur_fits_its_crops(self) -> TrainConfig:
        crops, sizes = self.multi_crop, {}
        if self.augmentation == "dino_multicrop" and crops.global_blur_probability:
            sizes["input_size"] = self.input_size
        if self.augmentation == "dino_multicrop" and crops.num_local and crops.local_blur_probability:
            sizes["multi_crop.local_size"] = crops.local_size
        for name, size in sizes.items():
            widest = (size - 1) / BLUR_SIGMAS  # a kernel mirrors at the edges fewer pixels than there are
            if crops.blur_sigma[1] > widest:
                raise ValueError(
                    f"multi_crop.blur_sigma {list(crops.blur_sigma)} blurs beyond a crop of {name} {size}; end it at "
                    f"{math.floor(widest * 100) / 100:g} or raise {name}"
                )
        return self
