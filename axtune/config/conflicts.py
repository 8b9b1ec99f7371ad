"""Keys of a recipe that contradict each other, or need one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axtune.config.limits import FOLLOW_EVALUATIONS
from axtune.config.objective import OBJECTIVES, listed, tasks
from axtune.config.paths import KeyPath


def cross_checks(
    values: dict[str, Any], training: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[KeyPath, str, str]]:
    """What only two keys together show.

    Args:
        values: Of the recipe, not yet validated.
        training: Its section of that name.
        data: Its section of that name.

    Yields:
        Key path, code and message of each fault.
    """
    if data.get("eval") is not None:
        if training.get("eval_strategy") == "no":
            yield (
                ("training", "eval_strategy"),
                "conflict",
                "data.eval is set; remove one of the two.",
            )
    elif values.get("early_stopping_patience") is not None and not _best(values):
        message = "needs data.eval, such as 0.05, or evaluate.best."
        yield ("early_stopping_patience",), "conflict", message
    objective = OBJECTIVES.get(str(values.get("task")))
    if data.get("truncate") is True and objective and objective.judges:
        message = "answers are judged as a whole and never cut; set it to false."
        yield ("data", "truncate"), "conflict", message
    if data.get("privacy_kinds") and data.get("privacy", "off") in ("off", False):
        message = "says what is personal data; set data.privacy: mask or refuse, or remove it."
        yield ("data", "privacy_kinds"), "conflict", message
    sought = data.get("not_in") or data.get("near_duplicates", "off") not in ("off", False)
    if data.get("leaked") == "drop" and not sought:
        message = "says what becomes of rows that data.not_in finds; set that, or remove it."
        yield ("data", "leaked"), "conflict", message
    yield from _share_checks(data)
    packed = objective and objective.packs and data.get("packing", True) is True
    if packed and training.get("neftune_noise_alpha"):
        message = "scales its noise by a sequence's length, so it needs data.packing=false."
        yield ("training", "neftune_noise_alpha"), "conflict", message
    yield from _offload_checks(values)
    yield from _evaluate_checks(values, training, data)
    after = values.get("after")
    made = isinstance(after, list) and ("merge" in after or "export" in after)
    if isinstance(after, list) and "verify" in after and not made:
        yield ("after",), "conflict", "verify needs merge or export in the list."
    if values.get("start_merged") and not values.get("start_from"):
        yield ("start_merged",), "conflict", "needs start_from."
    preference = values.get("preference")
    if preference is not None and objective and not objective.judges:
        judging = listed(tasks(lambda one: one.judges))
        yield ("preference",), "conflict", f"is only for {judging}; remove it."
    elif (
        isinstance(preference, dict)
        and values.get("attention") not in (None, "auto", "sdpa")
        and preference.get("shared_prefix", True)
    ):
        message = (
            "shared_prefix needs sdpa; set attention: auto, or preference.shared_prefix: false."
        )
        yield ("preference", "shared_prefix"), "conflict", message
    quantization = values.get("quantization")
    if isinstance(quantization, dict) and quantization.get("load_in_4bit") is not True:
        yield ("quantization",), "bad-value", "needs load_in_4bit: true; or set quantization: null."


def _best(values: dict[str, Any]) -> Any:
    """What a recipe's ``evaluate`` chooses the best checkpoint by."""
    section = values.get("evaluate")
    return section.get("best") if isinstance(section, dict) else None


def _evaluate_checks(
    values: dict[str, Any], training: dict[str, Any], data: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Questions need rows that hold them, steps at which they are asked, and a best to choose."""
    section, after = values.get("evaluate"), values.get("after")
    given = section if isinstance(section, dict) else {}
    if data.get("eval") is None and given.get("data") is None:
        message = "needs questions: evaluate.data, or held-out rows (data.eval, such as 0.05)."
        if isinstance(section, dict):
            yield ("evaluate",), "conflict", message
        elif isinstance(after, list) and "evaluate" in after:
            yield ("after",), "conflict", f"evaluate {message}"
    every, steps = given.get("every"), training.get("max_steps")
    if isinstance(every, int) and isinstance(steps, int) and 0 < steps < every:
        message = f"training.max_steps is {steps}; set at most that, or end."
        yield ("evaluate", "every"), "conflict", message
    if given.get("best") is None:
        return
    if every == "end":
        message = "there is nothing to choose from when questions are asked at the end alone; "
        yield ("evaluate", "best"), "conflict", message + "set evaluate.every: epoch, or remove it."
    if (schedule := training.get("lr_scheduler_type")) in FOLLOW_EVALUATIONS:
        message = f"{schedule} follows the eval loss; remove one of the two."
        yield ("evaluate", "best"), "conflict", message


def _offload_checks(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What can be kept in host memory depends on the rest of the recipe."""
    offload, lora = values.get("offload"), values.get("lora")
    objective = OBJECTIVES.get(str(values.get("task")))
    kept = offload if isinstance(offload, list) else []
    if "activations" in kept and objective and not objective.offloads_activations:
        message = f"TRL's {objective.name.upper()} cannot offload activations; remove it."
        yield ("offload",), "conflict", message
    trained = lora.get("modules_to_save") if isinstance(lora, dict) else None
    if "embeddings" in kept and {"embed_tokens", "lm_head"} & set(trained or ()):
        message = "embeddings that are trained (lora.modules_to_save) stay on the GPU; remove it."
        yield ("offload",), "conflict", message


def _share_checks(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    """Shares of the tokens that cannot be had, or not together."""
    train, replay = _listed(data.get("train")), data.get("replay")
    shares = [source.get("share") for source in train]
    for place, source in enumerate(train):
        if source.get("share") is not None and source.get("weight", 1) != 1:
            message = "a source has a weight or a share of the tokens; remove one of the two."
            yield ("data", "train", place, "share"), "conflict", message
    for place, source in enumerate(_listed(data.get("eval"))):
        if source.get("share") is not None:
            message = "held-out rows are all seen once; remove it."
            yield ("data", "eval", place, "share"), "conflict", message
    if isinstance(replay, dict):
        shares.append(replay.get("share", 0.1))
        for place, source in enumerate(_listed(replay.get("train"))):
            if source.get("share") is not None:
                message = "replay as a whole has one, data.replay.share; give a weight instead."
                yield ("data", "replay", "train", place, "share"), "conflict", message
    known = [one for one in shares if isinstance(one, (int, float))]
    if len(known) == len(shares) and abs(sum(known) - 1) > 1e-6:
        message = f"every source has a share, and together they are {sum(known):g} instead of 1."
        yield ("data", "train"), "conflict", message
    elif len(known) < len(shares) and sum(known) >= 1:
        message = f"shares of {sum(known):g} leave nothing for the other sources."
        yield ("data", "train"), "conflict", message


def _listed(sources: Any) -> list[dict[str, Any]]:
    """Sources as a recipe may write them, each as a mapping; one that is only a path is empty."""
    items = sources if isinstance(sources, list) else [sources]
    return [item if isinstance(item, dict) else {} for item in items]
