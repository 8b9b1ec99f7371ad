"""README.md of adapters and checkpoints: what they are, how they came about, how to load them.

Written through huggingface_hub's own classes, so that what the Hub reads of a card (``model-index``
with its evaluation results, the base, the tags) is in the form that it takes. A card says how many
rows a model learned, and never what is in them or where they lay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from axtune.checkpoint import locate
from axtune.checkpoint.run_dir import EVALUATION, Run
from axtune.config.recipe import Recipe
from axtune.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_BEGIN, _END = "<!-- axtune: evaluation -->", "<!-- axtune: end of evaluation -->"
_ALL = "all"
_RECIPE_KEYS = ("learning_rate", "lr_scheduler_type", "num_train_epochs", "max_steps", "beta")


def model_card(run: Run) -> str:
    """The card of a run's adapter, whose example runs as it stands, where the training was started.

    Args:
        run: Its adapter's path as the user gave it; its manifest with the run's end.
    """
    base = run.manifest["base"]
    name = base["name"]
    embedded = name in {folder.name for folder in locate.embedded()}
    imported, given = ("import axtune\n", f'axtune.model_folder("{name}")') if embedded else (
        "", f'"{name}"')  # fmt: skip
    text = f"""# LoRA adapter for {name}

Trained with axtune {run.manifest["axtune"]}.

```python
{imported}from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({given})
model = PeftModel.from_pretrained(base, "{run.adapter}")
```

Use the tokenizer files of this folder unchanged: transformers 5 loads A.X 4.0 tokenizers with
another pre-tokenizer. `axtune chat RUN` loads the right one.

{facts([run])}"""
    return written(
        text,
        [run],
        # The Hub knows its own models; a folder's path, or a name of axtune's, is a dead link.
        base_model=name if base.get("commit") else None,
        library_name="peft",
        tags=["axtune", "lora", run.recipe.task],
    )


def written(text: str, runs: Sequence[Run] = (), **metadata: Any) -> str:
    """A card with its metadata.

    Args:
        text: Markdown.
        runs: What the model was trained by; the evaluation of a single one is the card's.
        metadata: Of huggingface_hub's ``ModelCardData``; None leaves a key out.
    """
    from huggingface_hub import ModelCard, ModelCardData

    evaluation = _evaluation(runs)
    data = ModelCardData(
        **metadata,
        pipeline_tag="text-generation",
        model_name=runs[0].path.name if evaluation else None,
        eval_results=list(_eval_results(evaluation)) if evaluation else None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def facts(runs: Sequence[Run], *, rounded: bool = False) -> str:
    """How a model came about, in Markdown: data, recipe, losses, evaluation.

    Args:
        runs: What it was trained by.
        rounded: Whether its weights were rounded since; the figures are of those before.
    """
    parts = [_training(run) for run in runs]
    evaluation = _evaluation(runs)
    figures = ""
    if evaluation:
        bits = "4 bit, as it was trained" if runs[0].recipe.quantization else "16 bit"
        figures = _figures(evaluation, bits if rounded else None)
    return "\n".join([*parts, _marked(figures)])


def add_evaluation(run: Run) -> None:
    """Bring the evaluation of a run into its adapter's card, and leave the rest of it as it is."""
    from huggingface_hub import ModelCard

    file, evaluation = run.adapter / "README.md", _evaluation([run])
    if evaluation is None or not file.is_file():
        return
    card = ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    card.data["model_name"] = run.path.name
    card.data["eval_results"] = list(_eval_results(evaluation))
    place = re.compile(f"{_BEGIN}.*?{_END}\n", re.DOTALL)
    card.text = place.sub(lambda _: _marked(_figures(evaluation)), card.text)
    card.save(file)


# --- training -------------------------------------------------------------------------------------


def _training(run: Run) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in _training_rows(run))
    return f"## Training\n\n| | |\n|---|---|\n{rows}"


def _training_rows(run: Run) -> Iterator[tuple[str, str]]:
    manifest, recipe = run.manifest, run.recipe
    counts, metrics = (manifest.get(key) or {} for key in ("counts", "metrics"))
    account = (manifest.get("data") or {}).get("train") or {}
    yield "task", recipe.task
    data = [f"{counts.get('samples', 0):,} samples"]
    for key, noun in (("tokens", "tokens"), ("labelled_tokens", "labelled tokens")):
        data += [f"{counts[key]:,} {noun}"] if key in counts else []
    data += [f"{counts['eval_samples']:,} held out"] if counts.get("eval_samples") else []
    refused = account.get("rows_refused")
    yield "data", "; ".join(data + ([f"{refused:,} rows refused"] if refused else []))
    yield "adapter", _adapter(recipe, counts)
    said = [f"{key} {recipe.training[key]}" for key in _RECIPE_KEYS if key in recipe.training]
    batch = counts.get("effective_batch")
    yield (
        "recipe",
        "; ".join([f"seed {recipe.seed}", f"max_length {recipe.data.max_length}", *said]),
    )
    if "steps" in counts:
        yield "steps", f"{counts['steps']:,}" + (f" of {batch:,} samples" if batch else "")
    bits = "; base in 4 bit" if recipe.quantization else ""
    yield "precision", f"{manifest.get('precision', recipe.precision)}{bits}"
    if "last_loss" in metrics:
        yield (
            "loss",
            " → ".join(
                f"{metrics[key]:.4f}" for key in ("first_loss", "last_loss") if key in metrics
            ),
        )
    if "best_eval_loss" in metrics:
        yield "eval loss", f"{metrics['best_eval_loss']:.4f} at step {metrics['best_step']:,}"


def _adapter(recipe: Recipe, counts: Mapping[str, Any]) -> str:
    lora = recipe.lora
    said = [f"{key} {lora[key]}" for key in ("r", "lora_alpha") if key in lora]
    trained = counts.get("trainable_parameters")
    return ", ".join(["LoRA", *said] + ([f"{trained:,} trained parameters"] if trained else []))


# --- evaluation -----------------------------------------------------------------------------------


class _Estimate(BaseModel):
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f" ({self.low:.4g} to {self.high:.4g})" if self.low < self.high else ""
        return f"{self.value:.4g}{interval}"


class _Measured(BaseModel):
    metric: str
    category: str
    n: int
    value: _Estimate
    before: _Estimate | None
    difference: _Estimate | None
    verdict: str | None
    clusters: int | None = None


class _File(BaseModel):
    file: str
    documents: int = 0


class _Evaluation(BaseModel):
    """What a card needs of ``result.json`` (`axtune.evaluate.results.Result`)."""

    against: str | None
    data: list[_File]
    questions: int
    measured: list[_Measured]

    @property
    def asked(self) -> str:
        """The names of the files that were asked."""
        return ", ".join(one.file for one in self.data)


def _evaluation(runs: Sequence[Run]) -> _Evaluation | None:
    """The evaluation of a finished run; of several adapters together there is none."""
    if len(runs) != 1 or runs[0].adapter.name != "adapter":
        return None
    file = runs[0].path / EVALUATION / "result.json"
    if not file.is_file():
        return None
    try:
        return _Evaluation.model_validate(locate.read_json(file))
    except ValidationError:
        raise CheckpointError(
            f"{file} is no result of this version of axtune.",
            "Evaluate again: answers that are there already cost nothing.",
        ) from None


def _marked(text: str) -> str:
    return f"{_BEGIN}\n{text}{_END}\n"


def _figures(found: _Evaluation, before_in: str | None = None) -> str:
    """Every figure with its n and interval, and what it was before.

    Args:
        found: The evaluation.
        before_in: In what the base was when it was measured, of weights that were rounded since.
    """
    names = ["category", "metric", "n", "figure"]
    if found.against:
        names += ["before", "difference", "verdict"]
    rows = [
        [one.category, one.metric, _n(one), str(one.value)]
        + [str(cell or "") for cell in (one.before, one.difference, one.verdict)]
        * bool(found.against)
        for one in found.measured
    ]
    table = [names, ["---"] * len(names), *rows]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    documents = sum(one.documents for one in found.data)
    said = [f"{found.questions:,} questions"] * bool(found.questions)
    said += [f"the loss of {documents:,} documents"] * bool(documents)
    heading, by = "## Evaluation", "by the adapter on its base"
    if before_in:
        heading += " before rounding"
        by += f" in {before_in}, not by the weights of this folder, which were rounded later"
    clustered = any(one.clusters for one in found.measured)
    of = "; n of how many conversations, which they go by" * clustered
    return (
        f"{heading}\n\n{' and '.join(said)} of {found.asked}, {by}. In brackets: 95% "
        f"intervals{of}.\n\n{lines}"
    )


def _n(one: _Measured) -> str:
    """How many questions there are, and of how many conversations where some have several."""
    return f"{one.n:,}" + (f" of {one.clusters:,}" if one.clusters else "")


def _eval_results(found: _Evaluation) -> Iterator[EvalResult]:
    """The figures of all questions, in the Hub's form; of a metric without those, by category."""
    from huggingface_hub import EvalResult

    whole = {one.metric for one in found.measured if one.category == _ALL}
    for one in found.measured:
        if one.category != _ALL and one.metric in whole:
            continue
        more = {"before": round(one.before.value, 6)} if one.before else {}
        more |= {"clusters": one.clusters} if one.clusters else {}
        yield EvalResult(
            task_type="text-generation",
            dataset_type=re.sub(r"[^\w.-]+", "-", found.asked),
            dataset_name=found.asked,
            dataset_config=one.category,
            metric_type=one.metric,
            metric_name=one.metric.replace("_", " "),
            metric_value=round(one.value.value, 6),
            metric_args={"n": one.n, "interval_95": [one.value.low, one.value.high], **more},
        )
