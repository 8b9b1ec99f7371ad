"""The command that packs everything for a machine without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from axtune.loading import loading
from axtune.units import gigabytes, typed

app = typer.Typer()


@app.command(
    short_help="Pack what a machine without a network needs.",
    epilog="Example: axtune kit --out kit --model skt/A.X-4.0-Light --vllm",
)
def kit(
    out: Annotated[Path, typer.Option(help="folder to write; it must not exist yet")],
    model: Annotated[
        Optional[list[str]],
        typer.Option(help="a model to carry: Hub id, folder or name; may be repeated"),
    ] = None,
    vllm: Annotated[bool, typer.Option("--vllm", help="bring vLLM's environment too")] = False,
    python: Annotated[str, typer.Option(help="the other machine's: 3.11, 3.12 or 3.13")] = "3.12",
    cuda: Annotated[
        Literal["13", "none"],
        typer.Option(help="for cards under a driver of CUDA 13; none: for CPUs alone"),
    ] = "13",
    without: Annotated[
        Optional[list[str]],
        typer.Option(help="a locked package to leave out, such as llama-cpp-python"),
    ] = None,
) -> None:
    """Pack wheels, models, recipes and an installer that works without a network."""
    with loading():
        from axtune.kit.make import Wanted, make

    made = make(
        out,
        Wanted(python, cuda != "none", vllm, tuple(model or ()), tuple(sorted(without or ()))),
    )
    print(f"{made.folder}: {made.files} files, {gigabytes(made.nbytes)}; SHA-256 of "
          f"MANIFEST.sha256: {made.digest}")  # fmt: skip
    print(f"Carry the folder over, then run there: bash {typed(made.folder.name)}/install.sh")
