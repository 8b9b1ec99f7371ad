"""Recipes: the schema, the strict loader, the overrides. Imports no torch.

A recipe is one YAML file that also runs as a Python script (see `axtune.launch`): its first line
is a key that the loader drops. About thirty keys are axtune's own; the sections ``lora``,
``quantization`` and ``training`` pass by name to PEFT's ``LoraConfig``, transformers'
``BitsAndBytesConfig`` and TRL's configuration of the task. Every fault of a file is reported at
once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic_core import PydanticCustomError

from axtune.config.objective import OBJECTIVES, Objective, objective_of, unknown_task
from axtune.config.paths import expanded
from axtune.config.splits import AUTO
from axtune.errors import AxtuneError

RowFormat = Literal[
    "auto",
    "chat",
    "alpaca",
    "sharegpt",
    "prompt_completion",
    "preference",
    "unpaired_preference",
    "document",
]


def _known_task(task: str) -> str:
    if task not in OBJECTIVES:
        raise PydanticCustomError("unknown_task", "{message}", {"message": unknown_task(task)})
    return task


Task = Annotated[str, AfterValidator(_known_task)]  # the name of an `Objective`
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2", "flex_attention"]


NO_HOME = "no_home"  # of a path that cannot be looked up, as pydantic names such an error


def _at_home(path: str) -> str:
    try:
        return expanded(path)
    except AxtuneError as error:
        said = f"{error.found} {error.remedy}".removesuffix(".")
        raise PydanticCustomError(NO_HOME, "{message}", {"message": said}) from None


# Of a file, a folder or a pattern of files; names of models and Hub data sets pass as they are.
_Path = Annotated[str, AfterValidator(_at_home)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Section):
    """Where rows come from: a file, a folder, a glob, or a Hub data set (``hf:owner/name``)."""

    path: _Path = Field(description="file, folder, glob, or hf:owner/name")
    weight: float = Field(
        1.0, gt=0, le=1000, description="how often its rows are seen: 0.5 half, 2 twice"
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="of the epoch's tokens, instead of a weight: 0.2 is a fifth"
    )
    limit: int | None = Field(None, ge=1, description="at most so many of its rows, drawn by seed")
    split: str = Field("train", description="split of a Hub data set, or of a folder")


def _as_sources(value: Any) -> Any:
    """Accept ``a.jsonl``, ``[a.jsonl, {path: b.jsonl, weight: 2}]`` and ``{path: a.jsonl}``."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


def _as_eval(value: Any) -> Any:
    """As `_as_sources`; of a folder without a ``split``, it is one to evaluate on."""
    if value is None or isinstance(value, (int, float)):
        return value
    return [
        {"split": AUTO, **item} if isinstance(item, dict) else item for item in _as_sources(value)
    ]


def _fraction_or_files(value: Any) -> str:
    return "fraction" if isinstance(value, (int, float)) else "files"


# The discriminator keeps a fault to the one branch that was meant.
_FractionOrFiles = Annotated[
    Annotated[list[Source], Tag("files")] | Annotated[float, Field(gt=0, lt=1), Tag("fraction")],
    Discriminator(_fraction_or_files),
]
Sources = Annotated[list[Source], BeforeValidator(_as_sources), Field(min_length=1)]


def _as_files(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Files = Annotated[list[_Path], BeforeValidator(_as_files), Field(min_length=1)]


class Replay(_Section):
    """What keeps a model from forgetting: rows of what it could before, mixed among the others."""

    train: Sources = Field(description="rows as data.train takes them")
    share: float = Field(0.1, gt=0, lt=1, description="of the epoch's tokens")


class Data(_Section):
    """The rows, and what is done with those that cannot be trained on."""

    train: Sources = Field(description="training rows: one path, or a list of paths with weights")
    replay: Replay | None = Field(
        None, description="rows mixed in against forgetting, as a share of the tokens"
    )
    eval: Annotated[_FractionOrFiles | None, BeforeValidator(_as_eval)] = Field(
        None, description="held-out rows: a fraction of train such as 0.05, or files"
    )
    format: RowFormat = Field("auto", description="row shape; auto recognises it by its keys")
    max_length: int = Field(4096, ge=16, description="longest sample, in tokens")
    truncate: bool = Field(
        False, description="cut longer samples at max_length instead of refusing them"
    )
    control_tokens: Literal["refuse", "keep"] = Field(
        "refuse", description="control tokens written inside text: refuse, or keep as vLLM does"
    )
    nfc: bool = Field(False, description="convert NFD Hangul to NFC (serve with NFC as well)")
    privacy: Literal["off", "mask", "refuse"] = Field(
        "off", description="personal data in rows: mask it with the models' tokens, or refuse them"
    )
    privacy_kinds: _Path | None = Field(
        None, description="YAML file of your own kinds of personal data: pattern, labels, mask"
    )
    near_duplicates: Literal["off", "warn", "drop"] = Field(
        "off", description="rows that nearly repeat an earlier one: name them, or drop them"
    )
    not_in: Files | None = Field(
        None, description="benchmarks and other files whose items no training row may repeat"
    )
    leaked: Literal["refuse", "drop"] = Field(
        "refuse", description="rows that repeat a held-out item or one of not_in: refuse, or drop"
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="rows with errors: stop before training, or train without them"
    )
    max_line_mb: float = Field(16.0, gt=0, description="longest line of a file, in MB")
    packing: bool = Field(
        True, description="several samples in a sequence, each apart from the others (sft, cpt)"
    )

    @property
    def sources(self) -> list[Source]:
        """Where training rows come from: those of ``train``, then those of ``replay``."""
        return [*self.train, *(self.replay.train if self.replay else ())]


class PreferenceConfig(_Section):
    """What the tasks dpo, kto and orpo need besides TRL's own settings."""

    shared_prefix: bool = Field(
        True, description="compute a pair's prompt once (dpo, orpo); false: TRL's plain path"
    )
    reference: Literal["cached", "each_step"] = Field(
        "cached", description="reference log-probabilities: once, kept on disk; or in every step"
    )


# What answers are worth, as a run records it (``eval_tool_accuracy``); more is better of each.
Figure = Literal[
    "tool_accuracy",
    "decision_accuracy",
    "tool_name_accuracy",
    "argument_accuracy",
    "valid_json",
    "schema_valid",
    "published",
    "exact",
    "chrf",
    "json",
]
FIGURES: tuple[Figure, ...] = get_args(Figure)


def _known_cadence(value: Any) -> Any:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not number and value not in ("epoch", "end"):
        message = "expected epoch, end, or a number of steps such as 50"
        raise PydanticCustomError("unknown_cadence", message)
    return value


class EvaluateConfig(_Section):
    """The questions that the model answers while it trains, and what they decide."""

    data: Files | None = Field(
        None, description="files of questions, as axtune eval takes them; null: the held-out rows"
    )
    every: Annotated[Literal["epoch", "end"] | int, BeforeValidator(_known_cadence)] = Field(
        "epoch", description="when to ask: at epoch ends, at the end, or every so many steps"
    )
    limit: int | None = Field(
        100, ge=1, description="how many questions, drawn by seed; null: all of them"
    )
    max_new_tokens: int = Field(512, ge=1, description="longest answer, in tokens")
    best: Figure | None = Field(
        None, description="what chooses the best checkpoint; null: the lowest eval loss"
    )


# What the ``lora`` section says where it is silent.
LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


class Recipe(_Section):
    """One training job."""

    task: Task = Field(description="what to train: sft, cpt, dpo, kto or orpo")
    model: _Path = Field(description="Hub id, local folder, or embedded name (tiny-ax-4.0)")
    revision: str | None = Field(None, description="commit or branch of a Hub model")
    output_dir: _Path = Field(description="the run folder")
    resume: bool | Literal["fork"] = Field(
        False,
        description="true: continue the run in output_dir from its last sound checkpoint; fork: "
        "begin a new one from its weights, in output_dir-fork",
    )
    start_from: _Path | None = Field(
        None, description="run folder or adapter folder to begin from; null: a fresh adapter"
    )
    start_merged: bool = Field(
        False, description="false: train that adapter further; true: merge it, train a new one"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="seed of everything random")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the card has it, else fp16; fp32 on a CPU"
    )
    attention: Attention = Field("auto", description="attention kernels; auto is sdpa")
    data: Data
    lora: dict[str, Any] = Field(
        default_factory=dict, description="PEFT LoraConfig, by its own names"
    )
    quantization: dict[str, Any] | None = Field(
        None, description="transformers BitsAndBytesConfig, by its own names; absent: 16 bit"
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="TRL's config of the task, by its own names"
    )
    preference: PreferenceConfig | None = Field(
        None, description="for dpo, kto and orpo; absent: its defaults"
    )
    offload: list[Literal["activations", "embeddings"]] = Field(
        default_factory=list,
        description="kept in host memory instead of the card's: activations, embeddings",
    )
    evaluate: EvaluateConfig | None = Field(
        None, description="questions that the model answers while it trains; absent: none"
    )
    after: list[Literal["merge", "export", "verify", "evaluate"]] = Field(
        default_factory=list,
        description="what follows training: merge (RUN/merged), export for vLLM (RUN/vllm), "
        "verify, evaluate against the base (RUN/evaluation)",
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many evaluations without a better eval loss, or a better "
        "evaluate.best",
    )
    plan: Literal["refuse", "warn"] = Field(
        "refuse",
        description="a run that does not fit into memory: refuse it before it begins, or warn",
    )

    @property
    def objective(self) -> Objective:
        """The record of the task."""
        return objective_of(self.task)


def best_figure(recipe: Recipe) -> Figure | None:
    """The figure by which a recipe chooses the best checkpoint; None where the eval loss does."""
    return recipe.evaluate.best if recipe.evaluate else None


def evaluate_of(recipe: Recipe) -> EvaluateConfig:
    """A recipe's evaluate section, or its defaults where the recipe has none."""
    return recipe.evaluate or EvaluateConfig.model_validate({})


def preference_of(recipe: Recipe) -> PreferenceConfig:
    """A recipe's preference section, or its defaults where the recipe has none."""
    return recipe.preference or PreferenceConfig.model_validate({})
