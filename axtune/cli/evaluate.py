"""The command that asks a model questions: eval, with its --convert."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from axtune.errors import AxtuneError
from axtune.loading import loading

app = typer.Typer()

_OF_CONVERT = ("model", "data", "convert", "held_out", "seed", "as_json")


@app.command(
    "eval",
    short_help="Ask a model questions, and say what it gets right.",
    epilog="Example: axtune eval runs/sft_lora --against base",
)
def evaluate(
    context: typer.Context,
    model: Annotated[
        Optional[str], typer.Argument(help="run, adapter or checkpoint (Hub id, folder, name)")
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="files of conversations, BFCL or FunctionChat-Bench; default: the rows that the "
            "run held out"
        ),
    ] = None,
    against: Annotated[
        Optional[str],
        typer.Option(
            help="run, checkpoint or URL that is asked the same; base: what the run was trained on"
        ),
    ] = None,
    url: Annotated[
        Optional[str],
        typer.Option(help="ask a server that serves the model, such as http://localhost:8000"),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="ask servers for answers in parts")
    ] = False,
    limit: Annotated[
        Optional[int], typer.Option(min=1, help="ask this many questions, drawn by --seed")
    ] = None,
    tasks: Annotated[
        Optional[str],
        typer.Option(help="tasks of lm-evaluation-harness, such as kmmlu,haerae (axtune[harness])"),
    ] = None,
    task_folder: Annotated[
        Optional[list[Path]], typer.Option(help="folder with tasks of your own, as YAML files")
    ] = None,
    num_fewshot: Annotated[
        Optional[int], typer.Option(min=0, help="examples in a task's prompt")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="put the prompts of tasks through the chat template")
    ] = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="answers to each question")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer")] = 512,
    batch_size: Annotated[
        Optional[int], typer.Option(min=1, help="answers at once; default: what memory allows")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, help="show so many questions that the two answer differently")
    ] = 0,
    at_least: Annotated[
        Optional[list[str]],
        typer.Option(metavar="METRIC=VALUE", help="exit 1 below it, such as accuracy=0.8"),
    ] = None,
    at_most: Annotated[
        Optional[list[str]],
        typer.Option(metavar="METRIC=VALUE", help="exit 1 above it, such as loss=1.2"),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(help="folder for the answers; default: evaluation in the run, else here"),
    ] = None,
    convert: Annotated[
        Optional[Path],
        typer.Option(
            help="ask nothing: split the benchmark files of --data into this folder, one part as "
            "rows to train on, the other as questions to ask"
        ),
    ] = None,
    held_out: Annotated[
        Optional[str],
        typer.Option(
            metavar="SHARE|NUMBER",
            help="of --convert: what to ask, a share of each category such as 0.3 (the "
            "default) or a number of questions such as 200; drawn by --seed",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON")] = False,
) -> None:
    """Ask a model the questions of some files, and say with intervals what it gets right.

    Every assistant turn of a conversation is a question. Answers are kept: a command that was
    stopped goes on, and a second look costs nothing. Exits with 1 when a figure is below what
    --at-least says, or above what --at-most says.
    """
    from rich.console import Console

    if convert is not None:
        _refuse_others(context)
        _convert(data, convert, held_out, seed, model, as_json=as_json)
        return
    if held_out is not None:
        raise AxtuneError("--held-out needs --convert.", "Name the folder: --convert OUT.")
    if model is None:
        raise AxtuneError("There is no model to ask.", "Name it: axtune eval MODEL.")

    with loading():
        from axtune.evaluate.answers import read_answers
        from axtune.evaluate.evaluate import AT_MOST, Settings, below, bounds
        from axtune.evaluate.evaluate import evaluate as run_evaluate
        from axtune.evaluate.generate import Sampling
        from axtune.evaluate.show import show, show_examples
        from axtune.report.page import refresh
        from axtune.training.progress import Report

    if not tasks and (task_folder or chat or num_fewshot is not None):
        raise AxtuneError(
            "--task-folder, --num-fewshot and --chat are of tasks, and there are none.",
            "Name them: --tasks NAME,….",
        )
    if examples and against is None:
        raise AxtuneError(
            "--examples shows what two models answer differently, and there is one.",
            "Name the other: --against base.",
        )
    if stream and not any(map(_is_url, (url, against))):
        raise AxtuneError("--stream asks a server, and there is none.", "Give its --url.")
    if samples > 1 and temperature == 0:
        raise AxtuneError(
            "--samples takes several answers, which at temperature 0 are the same.",
            "Set --temperature, such as 0.7.",
        )
    least, most = bounds(at_least or ()), bounds(at_most or (), AT_MOST)
    settings = Settings(
        data=data or (),
        against=against,
        url=url,
        stream=stream,
        sampling=Sampling(temperature, max_new_tokens, batch_size),
        samples=samples,
        seed=seed,
        limit=limit,
        tasks=[name for name in (tasks or "").split(",") if name],
        task_folders=task_folder or (),
        num_fewshot=num_fewshot,
        chat=chat,
        out=out,
    )
    console = Console(highlight=False, soft_wrap=True, stderr=as_json)
    result, folder = run_evaluate(model, settings, Report(console))
    if as_json:
        print(result.text(), end="")
    else:
        show(console, result)
        if examples:
            show_examples(console, result, read_answers(folder), examples)
    if page := refresh(folder):
        console.print(f"report: {page}")
    for line in (failed := below(result, least, most)):
        print(f"axtune: {line}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _refuse_others(context: typer.Context) -> None:
    """Stop at options that say nothing where nothing is asked."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name not in _OF_CONVERT and source and source.name == "COMMANDLINE":
            raise AxtuneError(
                f"--convert asks nothing, and {option.opts[0]} is of questions that are asked.",
                "Convert without it, and give it when the test part is asked.",
            )


def _convert(
    data: list[str] | None,
    out: Path,
    held_out: str | None,
    seed: int,
    model: str | None,
    *,
    as_json: bool,
) -> None:
    """Write benchmark files in two parts, and say what went where."""
    from dataclasses import asdict

    from axtune.evaluate.convert import HELD_OUT, convert, held_out_of, show_split

    if not data:
        raise AxtuneError("--convert needs a benchmark's files.", "Give them: --data FILE.")
    share = HELD_OUT if held_out is None else held_out_of(held_out)
    split = convert(data, out, held_out=share, seed=seed, model=model)
    if as_json:
        print(json.dumps(asdict(split), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show_split(Console(highlight=False, soft_wrap=True), split, out)


def _is_url(given: str | None) -> bool:
    return given is not None and given.startswith(("http://", "https://"))
