"""The command that talks to a model: chat."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from axtune.loading import loading

app = typer.Typer()


@app.command(
    short_help="Talk to a trained run, with tools.",
    epilog="Example: axtune chat runs/sft_lora --tools data_templates/tools.json",
)
def chat(
    run: Annotated[str, typer.Argument(help="run folder, or a model's name or folder")],
    message: Annotated[Optional[str], typer.Option(help="ask this one thing and exit")] = None,
    system: Annotated[Optional[str], typer.Option(help="system prompt")] = None,
    tools: Annotated[Optional[Path], typer.Option(help="JSON file with OpenAI tools")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer")] = 512,
) -> None:
    """Talk to a trained run, with tools."""
    with loading():
        from axtune.chat import chat as start

    start(
        run,
        message=message,
        system=system,
        tools_file=tools,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    )
