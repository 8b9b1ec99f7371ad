"""The page: one HTML file that needs nothing else, of one run or of several beside each other.

It asks for nothing from anywhere, and its own policy forbids it to: the style and the script that
it holds are named in the policy by their hashes, and nothing else may run or load. What it shows is
escaped by the template engine. Rows and answers are in it only where the user asked for examples.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from axtune.checkpoint.atomic import reason_of, write_text
from axtune.checkpoint.leftovers import private_files
from axtune.checkpoint.run_dir import EVALUATION, REPORT
from axtune.config import loader
from axtune.config.metrics import metric_name
from axtune.config.paths import is_run
from axtune.config.recipe_file import as_override
from axtune.errors import AxtuneError
from axtune.evaluate.results import Result, clusters_in_words
from axtune.report.chart import HEIGHT, WIDTH, number
from axtune.report.curves import of_run, of_runs
from axtune.report.evaluation import common_base, compared, examples, groups, written_as
from axtune.report.facts import ABSENT, RunFacts, differences, in_words, names_of, read_run
from axtune.units import duration, gigabytes, package_version, plural, typed

_MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skip": "–"}
_TASKS = {
    "sft": "supervised fine-tuning",
    "cpt": "continued pre-training",
    "dpo": "preference training (DPO)",
    "kto": "preference training (KTO)",
    "orpo": "preference training (ORPO)",
}

Facts = list[tuple[str, str]]


def write_report(
    paths: Sequence[str | Path], out: Path | None = None, *, with_examples: bool = False
) -> Path:
    """Write the page of one run, or of several compared, for its owner's eyes only.

    Args:
        paths: Run folders.
        out: The file; None: ``report.html`` in the run, or here for several.
        with_examples: Whether answers of the evaluation are shown.

    Returns:
        The file.

    Raises:
        AxtuneError: When a folder is no run or is damaged, or the file cannot be written.
    """
    names = names_of(paths)
    runs = [
        read_run(path, name, with_answers=with_examples)
        for path, name in zip(paths, names, strict=True)
    ]
    file = out or (Path(paths[0]) / REPORT if len(runs) == 1 else Path(REPORT))
    text = render(runs)
    try:
        with private_files():
            write_text(file, text)
    except OSError as error:
        raise AxtuneError(
            f"{file} cannot be written: {reason_of(error)}.",
            "Put that in order and run axtune report, or give it another file with --out.",
        ) from None
    return file


def refresh(evaluation: Path) -> Path | None:
    """Write a run's own page anew after an evaluation.

    Args:
        evaluation: Its folder.

    Returns:
        The page; None where the folder is not a run's own.
    """
    run = evaluation.parent
    return write_report([run]) if evaluation.name == EVALUATION and is_run(run) else None


def render(runs: Sequence[RunFacts]) -> str:
    """The page's HTML; answers are shown where the runs have them.

    Args:
        runs: One, or several to compare.
    """
    env = _environment()
    style, script = (Markup(_source(name)) for name in ("style.css", "script.js"))
    views = [_view(run) for run in runs]
    several = len(runs) > 1
    base = common_base([run.result for run in runs])
    return env.get_template("page.html.jinja").render(
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        title=" · ".join(run.name for run in runs),
        runs=views,
        several=several,
        summary=_side_by_side(views) if several else [],
        differences=differences(runs) if several else [],
        charts=of_runs({r.name: r.events for r in runs}, {r.name: r.best_step for r in runs})
        if several
        else of_run(runs[0].events, runs[0].best_step),
        figures=compared([run.result for run in runs]) if several else [],
        asked=[*(run.name for run in runs), *([base] if base else [])],
        otherwise=_asked_otherwise(runs),
        width=WIDTH,
        height=HEIGHT,
        axtune=package_version("axtune"),
    )


@cache
def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("axtune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(number=number, plural=plural)
    return env


@cache
def _source(name: str) -> str:
    return Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a Content-Security-Policy names a piece of the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# --- what is shown of a run -----------------------------------------------------------------------


def _view(run: RunFacts) -> dict[str, Any]:
    """A run as the template takes it."""
    manifest = run.manifest
    shown, differing = examples(run.result, run.answers) if run.result else ([], 0)
    return {
        "name": run.name,
        "path": run.path,
        "status": str(manifest.get("status", "unknown")),
        "task": _TASKS.get(run.recipe.task, run.recipe.task),
        "model": _base(manifest).get("name") or run.recipe.model,
        "tiles": _tiles(run),
        "facts": _facts(run),
        "data": [
            _data(which, part)
            for which, part in (manifest.get("data") or {}).items()
            if isinstance(part, Mapping)
        ],
        "most": run.recipe.data.max_length,
        "memory": _memory(manifest),
        "certificates": [
            (name, bool(value.get("passed")), _checks(value))
            for name, value in run.certificates.items()
        ],
        "result": run.result,
        "figures": groups(run.result) if run.result else [],
        "reasons": _reasons(run) if run.result else [],
        "clusters": list(clusters_in_words(run.result.measured)) if run.result else [],
        "questions": _questions(run) if run.result else [],
        "examples": shown,
        "differing": differing,
        "recipe": loader.dump(run.recipe),
        "versions": _versions(run),
        "digests": [
            (name, str(value)) for name, value in (_base(manifest).get("digests") or {}).items()
        ],
        "commands": _commands(run),
    }


def _base(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    return manifest.get("base") or {}


def _tiles(run: RunFacts) -> list[tuple[str, str, str]]:
    """The run in a few figures: a name, the figure, and what stands under it."""
    metrics, counts = (run.manifest.get(key) or {} for key in ("metrics", "counts"))
    tiles = []
    overall = run.result.measured[0] if run.result and run.result.measured else None
    if overall:
        write = written_as(overall.metric)
        value = write(overall.value.value)
        under = plural(overall.n, "question")
        if overall.before:
            value = f"{write(overall.before.value)} → {value}"
            under += f"; {overall.verdict}"
        tiles.append((metric_name(overall.metric), value, under))
    if "best_eval_loss" in metrics:
        under = f"at step {metrics['best_step']:,}, which the adapter is from"
        tiles.append(("best eval loss", number(metrics["best_eval_loss"]), under))
    if "first_loss" in metrics:
        first, last = number(metrics["first_loss"]), number(metrics["last_loss"])
        tiles.append(("training loss", f"{first} → {last}", "first and last step"))
    if "samples" in counts:
        labelled = f"{counts.get('labelled_tokens', 0):,} labelled tokens an epoch"
        tiles.append(("trained on", plural(counts["samples"], "sample"), labelled))
    if "trainable_parameters" in counts:
        share = counts["trainable_parameters"] / max(counts.get("parameters", 0), 1)
        trained = f"{share:.2%} of {counts['parameters']:,} parameters"
        tiles.append(("adapter", f"{counts['trainable_parameters']:,}", trained))
    if "wall_seconds" in run.manifest:
        speed = metrics.get("tokens_per_second")
        under = f"{speed:,.0f} tokens a second" if speed else ""
        steps = plural(counts["steps"], "step") if "steps" in counts else ""
        under = "; ".join(filter(None, (steps, under)))
        tiles.append(("time", duration(run.manifest["wall_seconds"]), under))
    return tiles


def _facts(run: RunFacts) -> Facts:
    """What is compared between runs, by name; a run that lacks one leaves it out."""
    manifest = run.manifest
    metrics, counts = (manifest.get(key) or {} for key in ("metrics", "counts"))
    found: Facts = [
        ("status", str(manifest.get("status", "unknown"))),
        ("task", run.recipe.task),
        ("model", str(_base(manifest).get("name") or run.recipe.model)),
        ("precision", str(manifest.get("precision", ABSENT))),
    ]
    for name, key in (
        ("samples", "samples"),
        ("held out", "eval_samples"),
        ("tokens an epoch", "tokens"),
        ("labelled tokens", "labelled_tokens"),
        ("trained parameters", "trainable_parameters"),
        ("samples a step", "effective_batch"),
        ("steps", "steps"),
    ):
        if key in counts:
            found.append((name, f"{counts[key]:,}"))
    for name, key in (
        ("first loss", "first_loss"),
        ("last loss", "last_loss"),
        ("best eval loss", "best_eval_loss"),
        ("tokens a second", "tokens_per_second"),
    ):
        if key in metrics:
            found.append((name, number(metrics[key])))
    if run.best_step is not None:
        found.append(("best step", f"{run.best_step:,}"))
    if "wall_seconds" in manifest:
        found.append(("time", duration(manifest["wall_seconds"])))
    if peak := (manifest.get("measured") or {}).get("peak"):
        found.append(("memory at the peak", gigabytes(peak)))
    return found


def _side_by_side(views: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The facts of several runs, a row each."""
    facts = [dict(view["facts"]) for view in views]
    names = dict.fromkeys(name for one in facts for name in one)
    return [(name, [one.get(name, ABSENT) for one in facts]) for name in names]


def _data(which: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """What was read: counts, lengths as bars, refusals and warnings by code."""
    tokens, lengths = part.get("tokens", 0), part.get("lengths") or {}
    counts = part.get("histogram") or []
    rows = [
        ("rows read", part.get("rows_read", 0)),
        ("rows used", part.get("rows_used", 0)),
        ("rows refused", part.get("rows_refused", 0)),
        ("rows left out", part.get("rows_left_out", 0)),
        ("samples", part.get("samples", 0)),
        ("tokens", tokens),
        ("labelled tokens", part.get("labelled_tokens", 0)),
    ]
    dropped = part.get("dropped") or {}
    rows += [(f"rows dropped, {code}", count) for code, count in dropped.items()]
    for kind, answers in (part.get("answers") or {}).items():
        rows.append((f"{kind} answers", answers.get("answers", 0)))
    most = max(counts, default=0)
    return {
        "name": {"train": "Training rows", "eval": "Held-out rows"}.get(which, which),
        "rows": [(name, f"{count:,}") for name, count in rows],
        "share": f"{part.get('labelled_tokens', 0) / tokens:.1%}" if tokens else "",
        "mixture": _mixture(part.get("mixture") or []),
        "lengths": [(name, f"{count:,}") for name, count in lengths.items()],
        "longest": lengths.get("max", 0),
        "bars": [
            (
                100 * place / len(counts),
                100 / len(counts),
                100 * count / most,
                f"{plural(count, 'sample')} of up to "
                f"{lengths.get('max', 0) * (place + 1) / len(counts):,.0f} tokens",
            )
            for place, count in enumerate(counts)
            if most
        ],
        "refused": list((part.get("refused") or {}).items()),
        "warnings": list((part.get("warnings") or {}).items()),
        "personal": sorted((part.get("personal_data") or {}).items()),
        "overlaps": [
            (f"{code} in {name}", count)
            for name, counts in sorted((part.get("overlaps") or {}).items())
            for code, count in sorted(counts.items())
        ],
        "files": list(part.get("digests") or {}),
    }


def _mixture(parts: Sequence[Mapping[str, Any]]) -> Facts:
    """What each source has of an epoch; nothing where there is one."""
    return [
        (
            part["source"] + (" (replay)" if part["replay"] else ""),
            f"{part['share']:.1%}: {part['tokens']:,}, {plural(part['rows'], 'row')} "
            f"× {part['seen']:.2f}",
        )
        for part in (parts if len(parts) > 1 else [])
    ]


def _memory(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the plan said and what was measured: a name, the plan's figure, the measured one."""
    plan, measured = (manifest.get(key) or {} for key in ("plan", "measured"))
    rows = []
    for name, key, write in (
        ("memory at the peak", "peak", gigabytes),
        ("steps", "steps", "{:,}".format),
        ("time", "seconds", duration),
    ):
        planned, seen = plan.get(key), measured.get(key)
        if planned is not None or seen is not None:
            said, found = (ABSENT if v is None else write(v) for v in (planned, seen))
            rows.append((name, said, found))
    return rows


def _checks(certificate: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "mark": _MARKS.get(str(check.get("status")), ""),
            "status": str(check.get("status")),
            "part": str(check.get("part", "")),
            "name": str(check.get("name", "")),
            "found": str(check.get("found", "")),
        }
        for check in certificate.get("checks") or []
    ]


def _reasons(run: RunFacts) -> list[tuple[str, int, int]]:
    """Why answers are not right: the code, how many before, how many after."""
    assert run.result is not None
    before, after = run.result.reasons_before, run.result.reasons
    return [
        (code, before.get(code, 0), after.get(code, 0)) for code in dict.fromkeys([*after, *before])
    ]


def _counted(file: Mapping[str, Any]) -> list[str]:
    """How many questions and documents there are of a file."""
    counts = [plural(file.get("documents", 0), "document")] * bool(file.get("documents"))
    return [f"{file['questions']:,}"] * bool(file.get("questions")) + counts


def _questions(run: RunFacts) -> Facts:
    """What was asked, and how."""
    result = run.result
    assert result is not None
    found = [("questions", f"{result.questions:,}")] * bool(result.questions)
    found += [(f"of {one.get('file', '')}", ", ".join(_counted(one)) or "0") for one in result.data]
    found += [(f"left out: {code}", f"{count:,}") for code, count in result.left_out.items()]
    found += [(f"masked: {kind}", f"{count:,}") for kind, count in result.personal_data.items()]
    settings = {name: value for name, value in result.settings.items() if value is not None}
    found += [(name.replace("_", " "), in_words(value)) for name, value in settings.items()]
    found += [(f"ties: {name}", number(value)) for name, value in (result.ties or {}).items()]
    found.append(("asked", result.created.replace("T", " ").replace("+00:00", " UTC")))
    return found


def _versions(run: RunFacts) -> Facts:
    versions = {"axtune": run.manifest.get("axtune")} | (run.manifest.get("versions") or {})
    return [(name, str(version)) for name, version in versions.items() if version]


# Settings of an evaluation as options of its command, with what they are where nobody sets them.
_OPTIONS: dict[str, Any] = {
    "max_new_tokens": 512,
    "samples": 1,
    "temperature": 0.0,
    "seed": 0,
    "limit": None,
}


def _options(result: Result) -> str:
    """How an evaluation was asked for, behind the name of the model."""
    settings = result.settings
    words = [word for file in settings.get("data", ()) for word in ("--data", file)]
    words += ["--tasks", ",".join(settings["tasks"])] if settings.get("tasks") else []
    words += ["--against", result.against] if result.against else []
    for name, usual in _OPTIONS.items():
        if settings.get(name, usual) != usual:
            words += [f"--{name.replace('_', '-')}", str(settings[name])]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _asked_otherwise(runs: Sequence[RunFacts]) -> list[str]:
    """What evaluations differ in that stand beside each other: their names, or nothing."""
    results = [run.result for run in runs if run.result]
    kinds: dict[str, list[Any]] = {
        "questions": [result.questions for result in results],
        "files": [result.data for result in results],
        **{
            name.replace("_", " "): [result.settings.get(name, usual) for result in results]
            for name, usual in _OPTIONS.items()
        },
    }
    return [name for name, values in kinds.items() if any(one != values[0] for one in values[1:])]


def _commands(run: RunFacts) -> str:
    """How to do it again."""
    folder = Path(run.path)
    recipe, again = folder / "recipe.yaml", f"{folder}-again"
    lines = [f"axtune train {typed(recipe)} {as_override('output_dir', again)} resume=false"]
    if run.result:
        lines.append(f"axtune eval {typed(again)}{_options(run.result)}")
    lines.append(f"axtune report {typed(folder)} {typed(again)}")
    return "\n".join(lines)
