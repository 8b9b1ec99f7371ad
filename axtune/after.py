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
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    made = []
    try:
        if "merge" in after:
            folder = _fresh(run.path / MERGED)
            merge([str(run.path)], None, folder)
            report.table([("merged", str(folder))])
            made.append(folder)
        if "export" in after:
            folder = _fresh(run.path / SERVED)
            exported = export(str(run.path), folder, to="vllm")
            report.table([("exported", str(folder)), ("serve", str(exported.command))])
            made.append(folder)
        for folder in made if "verify" in after else ():
            certificate = verify(folder, adapter=run.path)
            if report.enabled:
                show(report.console, certificate.checks)
            report.table([("certificate", str(folder / FILE))])
            if not certificate.passed:
                raise AxtuneError(
                    f"{folder} did not pass its checks.", f"{folder / FILE} says why."
                )
        if "evaluate" in after:
            _evaluate(run, report)
    except AxtuneError as error:
        raise AxtuneError(
            f"The run in {run.path} is complete, but what should follow it failed: {error.found}",
            f"{error.remedy} To do it by hand: axtune export {run.path} --to vllm --out DIR; "
            f"axtune verify DIR --adapter {run.path}; "
            f"axtune eval {run.path} --against base".strip(),
        ) from error


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
    if folder.exists():
        shutil.rmtree(folder)
    return folder
