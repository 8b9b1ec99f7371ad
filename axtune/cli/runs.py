"""Commands that take the folders of runs: runs, clean, report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from axtune.errors import AxtuneError

app = typer.Typer()


@app.command(
    short_help="List the runs in a folder.",
    epilog="Example: axtune runs runs",
)
def runs(
    folder: Annotated[Path, typer.Argument(help="folder that holds runs")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="the list as JSON")] = False,
) -> None:
    """List runs: how far each came, what it learned and how much of the disk it takes."""
    from rich.console import Console

    from axtune.report.listing import list_runs, show_runs

    found = list_runs(folder)
    if as_json:
        print(json.dumps([dataclasses.asdict(run) for run in found], ensure_ascii=False, indent=1))
        return
    show_runs(Console(), found, str(folder))


@app.command(
    short_help="Remove what killed runs left on the disk.",
    epilog="Example: axtune clean runs/sft_lora --checkpoints",
)
def clean(
    run: Annotated[Optional[Path], typer.Argument(help="run folder")] = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also the checkpoints of a run that has finished")
    ] = False,
) -> None:
    """Remove prepared rows of runs that were killed, and what one run began and never finished.

    Nothing that a living process uses is touched.
    """
    from axtune.checkpoint.leftovers import clean_run, clear_scratch, spare_bytes
    from axtune.units import gigabytes

    if checkpoints and run is None:
        raise AxtuneError("--checkpoints needs a run.", "Name it: axtune clean RUN --checkpoints.")
    removed = clean_run(run, checkpoints=checkpoints) if run else []
    removed += clear_scratch()
    for gone in removed:
        print(f"{gone.path}: removed, {gone.size:,} bytes")
    if not removed:
        print("Nothing was left behind.")
    if run and (spare := spare_bytes(run)):
        print(f"Its checkpoints take {gigabytes(spare)}; --checkpoints removes them.")


@app.command(
    short_help="Show a run, or compare several, as one page.",
    epilog="Example: axtune report runs/sft_lora",
)
def report(
    runs: Annotated[list[str], typer.Argument(help="run folders; several are compared")],
    out: Annotated[
        Optional[Path],
        typer.Option(help="file; default: report.html in the run, or here for several"),
    ] = None,
    with_examples: Annotated[
        bool,
        typer.Option("--with-examples", help="also answers of the evaluation, which are data"),
    ] = False,
) -> None:
    """Write one HTML page that needs nothing else: data, curves, evaluation, recipe."""
    from axtune.report.page import write_report

    print(write_report(runs, out, with_examples=with_examples))
