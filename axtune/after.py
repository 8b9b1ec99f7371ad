"""What a recipe asks for after training: merge, export, verify, evaluate, in the run's folder."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import torch

from axtune.checkpoint.run_dir import MERGED, SERVED, Run
from axtune.errors import AxtuneError
from axtune.export.export import export
from axtune.training.progress import Report
from axtune.units import typed
from axtune.verify.certificate import FILE, show
from axtune.verify.verify import verify
from axtune.weights.merge import merge


def finish(run: Run, report: Report) -> None:
    """Carry out a recipe's ``after``.

    Args:
        run: Finished.
        report: What the user sees.

    Raises:
        AxtuneError: When a step cannot be done, with the command that does it by hand; the run
            itself is whole.
    """
    after = run.recipe.after
    if not after:
        return
    made = []
    try:
        if "merge" in after:
            made.append(merge_run(run, report))
        if "export" in after:
            made.append(export_run(run, report))
        for folder in made if "verify" in after else ():
            verify_run(run, folder, report)
        if "evaluate" in after:
            _evaluate(run, report)
    except AxtuneError as error:
        place = typed(run.path)
        raise AxtuneError(
            f"The run in {run.path} is complete, but what should follow it failed: {error.found}",
            f"{error.remedy} To do it by hand: axtune export {place} --to vllm --out DIR; "
            f"axtune verify DIR --adapter {place}; "
            f"axtune eval {place} --against base".strip(),
        ) from error


def merge_run(run: Run, report: Report) -> Path:
    """Merge a run into its base, in the run's folder.

    Raises:
        AxtuneError: As `axtune.weights.merge.merge`.
    """
    folder = _fresh(run.path / MERGED)
    merge([str(run.path)], None, folder)
    report.table([("merged", str(folder))])
    return folder


def export_run(run: Run, report: Report) -> Path:
    """Export a run for vLLM, in the run's folder.

    Raises:
        AxtuneError: As `axtune.export.export.export`.
    """
    folder = _fresh(run.path / SERVED)
    exported = export(str(run.path), folder, to="vllm")
    report.table([("exported", str(folder)), ("serve", str(exported.command))])
    return folder


def verify_run(run: Run, folder: Path, report: Report) -> None:
    """Certify what was made of a run.

    Raises:
        AxtuneError: When it does not pass, or as `axtune.verify.verify.verify`.
    """
    certificate = verify(folder, adapter=run.path)
    if report.enabled:
        show(report.console, certificate.checks)
    report.table([("certificate", str(folder / FILE))])
    if not certificate.passed:
        raise AxtuneError(f"{folder} did not pass its checks.", f"{folder / FILE} says why.")


def _evaluate(run: Run, report: Report) -> None:
    """Ask the run and its base what the recipe asks, and show what training has changed."""
    from axtune.evaluate.evaluate import BASE, evaluate  # scoring, for those who ask
    from axtune.evaluate.in_training import settings_of
    from axtune.evaluate.show import show as show_figures

    result, folder = evaluate(str(run.path), settings_of(run.recipe, against=BASE), report)
    if report.enabled:
        show_figures(report.console, result)
    report.table([("evaluated", str(folder))])


def _fresh(folder: Path) -> Path:
    """The place of a product; one that an earlier end of this run left is of an older adapter."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if folder.exists():
        shutil.rmtree(folder)
    return folder
