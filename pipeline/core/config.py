"""The configuration of a run: frozen models, one line under each field, an unknown key is an error.

What decides pixels is in `RecipeConfig` and nowhere else; its hash (`pipeline.core.recipe`) names the image set.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, StringConstraints, field_validator, model_validator

from pipeline.core.choices import Guidance, Template, as_plain, highest, parse_guidance, parse_template
from pipeline.core.credentials import secrets_in
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.frozen import Frozen
from pipeline.core.train_config import TrainConfig
from pipeline.core.transfer_config import AnalyzeConfig, AuditConfig, TransferConfig

TemplateField = Annotated[
    Template, PlainValidator(parse_template, json_schema_input_type=Any), PlainSerializer(as_plain)
]
GuidanceField = Annotated[
    Guidance, PlainValidator(parse_guidance, json_schema_input_type=Any), PlainSerializer(as_plain)
]


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A word that may become a file name."""


class ModelConfig(Frozen):
    """Which text-to-image model."""

    id: str = "embedded"
    """`embedded` (the tiny generator that ships), a local diffusers directory, or a hub id such as `org/name`."""
    revision: str | None = None
    """Commit of a hub id, 40 hex digits; a branch would let the pixels change. Not used for directories."""
    variant: str | None = None
    """Weight file variant of the repository, e.g. `fp16`."""

    @property
    def is_hub_id(self) -> bool:
        """Whether the weights come from a hub."""
        return self.id != "embedded" and self.revision is not None


class RecipeConfig(Frozen):
    """Everything that decides pixels, apart from the classes. Its hash names the image set."""

    template: TemplateField = "c, h_c"
    """A name from presets/prompts.yaml, a Jinja template, or a list of {template, weight} to draw from per image."""
    styles: tuple[str, ...] = ()
    """Styles or domains to draw from per image (`photo`, `sketch`, …); count only when the template uses `style`."""
    backgrounds: str = "places365"
    """Background table (its name, or a path to a .parquet); counts only when the template uses `b`."""
    model: ModelConfig = ModelConfig()
    """Text-to-image model."""
    scheduler: str = "default"
    """A diffusers scheduler class name, or `default` for the one in the model's directory."""
    num_inference_steps: int = Field(15, ge=1, le=1000)
    """Denoising steps."""
    guidance_scale: GuidanceField = 2.0
    """Classifier-free guidance, 0 to 50, 1 or less is none: a number, or a list or {low, high} drawn per image."""
    negative_prompt: str = ""
    """What the unconditional branch is told."""
    width: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Pixels."""
    height: int = Field(32, ge=8, le=4096, multiple_of=8)
    """Pixels."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights and activations."""
    safety_checker: bool = True
    """Run the model's own safety checker when its directory has one; flagged images become rows with status `nsfw`."""
    safety_model: ModelConfig | None = None
    """A safety checker for models without one; flagged images get status `nsfw` and are kept as they are."""
    image_format: Literal["png", "jpeg", "webp"] = "png"
    """Encoding of the stored bytes."""
    image_quality: int = Field(95, ge=1, le=100)
    """JPEG or WebP quality."""
    seed_namespace: str = "0"
    """Another word gives other noise and other backgrounds for the same recipe."""

    @model_validator(mode="after")
    def _negative_prompt_is_read(self) -> RecipeConfig:
        if self.negative_prompt and highest(self.guidance_scale) <= 1:
            raise ValueError(
                "negative_prompt has no effect without guidance; raise guidance_scale above 1, or leave it out"
            )
        return self


class EngineConfig(Frozen):
    """How the engine computes: no other images, but last bits may differ, so a set keeps what it was begun with."""

    channels_last: bool = False
    """Weights and activations with channels innermost: faster convolutions on tensor cores."""
    fuse_qkv: bool = False
    """One matrix product for query, key and value."""
    compile: bool = False
    """torch.compile of denoiser and decoder: minutes at every actor's start, then faster steps."""
    attention: Literal["default", "math", "flash", "efficient", "cudnn"] = "default"
    """Preferred kernel of attention, where a layer's shape allows it; `default` leaves the choice to torch."""


class GenerateConfig(Frozen):
    """How images are made: nothing here changes which images a set holds."""

    shard_size: int = Field(100, ge=1, le=65536)
    """Images of one shard: unit of work, retry and resume. Fixed for a set at its creation."""
    batch_size: int = Field(50, ge=1, le=4096)
    """Images of one engine call; the last one of a shard is padded. Fixed for a set at its creation."""
    engine: EngineConfig = EngineConfig()
    """How the engine computes. Fixed for a set at its creation."""
    num_actors: int = Field(2, ge=1)
    """Actors of the pool at the start (and its lower bound): a cluster's other GPUs stay idle."""
    max_actors: int | None = Field(None, ge=1)
    """Upper bound of the pool on an autoscaling cluster; default: `num_actors`."""
    shards_in_flight: int = Field(1, ge=1, le=8)
    """Shards that an actor works on: with 2, one is encoded and written while the GPU makes the next."""
    num_cpus_per_actor: float = Field(1, ge=0)
    """CPUs that Ray reserves for an actor."""
    num_gpus_per_actor: float = Field(0, ge=0)
    """GPUs that Ray reserves for an actor."""
    torch_threads: int = Field(1, ge=1)
    """Intra-op threads of an actor on the CPU; a different number may change last bits of pixels."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model runs; there is no fallback from one to the other."""
    max_failed_fraction: float = Field(0.01, ge=0, le=1)
    """The job fails when more of its rows than this failed (nsfw and blank rows are not failures)."""
    max_failed_rows: int | None = Field(None, ge=0)
    """The job also fails when more of its rows than this failed; default: no such limit."""
    preflight: Literal["auto", "always", "never"] = "auto"
    """`always`: one worker makes one image before the pool is started, which loads the model once more; `auto`: the
    pool's actors try the storage before they load the model, and the first error ends the job."""
    log_interval_s: float = Field(10, gt=0)
    """Seconds between progress lines."""
    stall_timeout_s: float = Field(1800, ge=5)
    """The job ends when no actor shows a sign of life for so long; a GPU node takes minutes to start."""

    @model_validator(mode="after")
    def _consistent(self) -> GenerateConfig:
        if self.max_actors is not None and self.max_actors < self.num_actors:
            raise ValueError(f"max_actors {self.max_actors} is below num_actors {self.num_actors}; raise it")
        if self.device == "cuda" and self.num_gpus_per_actor == 0:
            raise ValueError("device is cuda but num_gpus_per_actor is 0; give e.g. num_gpus_per_actor: 1")
        return self

    @property
    def pool_bound(self) -> Literal["num_actors", "max_actors"]:
        """The field that says how many actors the pool may have: raised, it makes the pool larger."""
        return "num_actors" if self.max_actors is None else "max_actors"

    def largest_pool(self, shards: int) -> int:
        """Actors of the pool at its upper bound: no more than there are shards to make."""
        return min(self.max_actors or self.num_actors, shards)


class TrackingConfig(Frozen):
    """Where MLflow runs go."""

    experiment: str = Field("synthclones", min_length=1)
    """MLflow experiment."""
    experiment_per_study: bool = True
    """A sweep or study has its runs in an experiment of its own, `EXPERIMENT/sweeps/NAME`; False: all in one."""
    uri: str | None = None
    """Tracking URI; default: MLFLOW_TRACKING_URI, else SQLite at `<root>/mlflow.db` (`runs/` for a remote root)."""
    enabled: bool = True
    """False writes nothing to MLflow."""

    @field_validator("uri")
    @classmethod
    def _holds_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and secrets_in(uri):
            raise ValueError(
                "holds a password or token, and configs are written to files; give the URI as MLFLOW_TRACKING_URI, "
                "or the password as MLFLOW_TRACKING_PASSWORD (a server) or PGPASSWORD (PostgreSQL)"
            )
        return uri


class RunConfig(Frozen):
    """One complete run, as a preset holds it."""

    classes: str = "fashion_mnist"
    """Class table: `fashion_mnist`, `imagenet100`, `imagenet1k`, or a path to a .parquet of jobs.build_classes."""
    images_per_class: int = Field(200, ge=1)
    """How many images of each class are made and trained on; readers take the exact prefix."""
    data_dir: str | None = None
    """Folder of the real data set; default: env SYNTHCLONES_DATA, then the known places."""
    recipe: RecipeConfig = RecipeConfig()
    """What decides pixels."""
    generate: GenerateConfig = GenerateConfig()
    """How they are made."""
    train: TrainConfig = TrainConfig()
    """The classifier."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The verdict."""
    transfer: TransferConfig = TransferConfig()
    """Linear probes on other data sets."""
    analyze: AnalyzeConfig = AnalyzeConfig()
    """Numbers and a picture of the features."""
    audit: AuditConfig = AuditConfig()
    """What is wrong with an image set, without labels."""
    tracking: TrackingConfig = TrackingConfig()
    """MLflow."""
