"""The command that writes a recipe: it asks, checks the data, and plans."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from axtune.errors import AxtuneError

if TYPE_CHECKING:
    from axtune.checkpoint.locate import Checkpoint
    from axtune.checkpoint.tokenizer import AxTokenizer
    from axtune.plan.starting_point import RowsFound, Start

app = typer.Typer()

_MODEL = "skt/A.X-4.0-Light"
_NO_CARD = "none"
_SHOWN = 5  # faults


def _task_names(incomplete: str) -> list[str]:
    """What a shell completes a task to."""
    from axtune.config.objective import OBJECTIVES

    return [name for name in OBJECTIVES if name.startswith(incomplete)]


def _model_names(incomplete: str) -> list[str]:
    """What a shell completes a model to, beside folders."""
    from axtune.checkpoint.families import known_names

    return [name for name in known_names() if name.startswith(incomplete)]


@app.command(
    short_help="Write a recipe: for your data, on your card.",
    epilog="Example: axtune init --data my_chats.jsonl --gpu 12GB --yes",
)
def init(
    out: Annotated[Path, typer.Argument(help="the recipe to write")] = Path("recipe.yaml"),
    data: Annotated[Optional[str], typer.Option(help="file, folder, glob or hf:owner/name")] = None,
    task: Annotated[
        Optional[str],
        typer.Option(
            help="such as sft or dpo; default: what the rows are made for",
            autocompletion=_task_names,
        ),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            help=f"default: {_MODEL}",
            autocompletion=_model_names,
        ),
    ] = None,
    gpu: Annotated[
        Optional[str],
        typer.Option(
            help='the card that trains, such as "RTX 3060" or 12GB; none: a CPU; '
            "default: this machine's"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing: take the defaults")] = False,
) -> None:
    """Ask for data, task, model, card; check the rows, plan, and write a recipe with comments."""
    from axtune.config.objective import listed
    from axtune.plan.gpus import find_card
    from axtune.plan.starting_point import files_at, look_at, this_card
    from axtune.units import plural

    _require_free(out)
    if not yes and not _is_asked():
        raise AxtuneError(
            "axtune init asks questions, and there is no terminal.",
            "Add --yes, and --data FILE with it.",
        )
    if data is None and yes:
        raise AxtuneError("There is no data.", "Name it: axtune init --data FILE --yes.")
    settled = partial(_settled, asks=not yes)
    data = settled(data, "data (file, folder, glob or hf:owner/name)", None, files_at)
    model = settled(model, "model", _MODEL, _found)
    checkpoint, why = _found(model)
    tokenizer = _tokenizer(checkpoint, model)
    if checkpoint is None:
        print(f"{'model':12}{model} is not on this machine: {why}")
        print(f"{'':12}The rows are counted with the embedded model's tokenizer.")
    found = look_at(data, tokenizer)
    _say(found, data)
    task = settled(
        task, f"task ({listed(found.fitting, 'or')})", found.tasks[0], partial(_require_task, found)
    )
    card = settled(
        gpu,
        f"card that trains, such as RTX 3060 or 12GB; {_NO_CARD}: this CPU",
        this_card() or _NO_CARD,
        lambda answer: answer.lower() == _NO_CARD or find_card(answer),
    )
    known = {"model": model, "data.train": data, "output_dir": f"runs/{out.stem}"}
    if not_for := found.not_for(task):
        print(f"{'':12}{plural(not_for, 'row')} of other tasks, which the recipe skips")
    if found.account.rows_refused or not_for:
        known["data.on_error"] = "skip"
    begins = _begins(task, known, card, checkpoint, tokenizer, why)
    _write(out, task, known, begins)


def _require_free(out: Path) -> None:
    if out.exists():
        raise AxtuneError(f"{out} is there already.", "Name another file, or remove it.")
    if not out.absolute().parent.is_dir():
        raise AxtuneError(f"There is no folder {out.parent}.", "Make it, or name another file.")
    try:  # at once, and not after all questions
        with TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise AxtuneError(
            f"{out} cannot be written: {error.strerror}.", "Name another file."
        ) from None


def _settled(
    given: str | None,
    question: str,
    default: str | None,
    check: Callable[[str], object],
    *,
    asks: bool,
) -> str:
    """An option, else the answer to its question; one that cannot be used is asked for again."""
    if given is not None or not asks:
        answer = str(default if given is None else given)
        check(answer)
        return answer
    while True:
        try:
            answer = str(typer.prompt(question, default=default)).strip()
            check(answer)
        except AxtuneError as error:
            print(error)
        except typer.Abort:  # Ctrl-C or Ctrl-D, behind the question
            print()
            raise KeyboardInterrupt from None
        else:
            return answer


def _require_task(found: RowsFound, task: str) -> None:
    """Refuse a task that has no recipe, or for which there is no row."""
    from axtune.config.new_recipe import shipped
    from axtune.config.objective import listed

    shipped(task, four_bit=False)
    if task not in found.fitting:
        raise AxtuneError(
            f"There is no row for {task}.", f"The rows are for {listed(found.fitting, 'or')}."
        )


def _begins(
    task: str,
    known: Mapping[str, str],
    card: str,
    checkpoint: Checkpoint | None,
    tokenizer: AxTokenizer,
    why: str,
) -> Start:
    """How the run begins: as planned, where the model is here to plan for."""
    from axtune.plan.starting_point import start, without_plan

    trains = None if card.lower() == _NO_CARD else card
    if checkpoint is None:
        return without_plan(trains, why)
    return start(task, known, checkpoint, tokenizer, trains)


def _write(out: Path, task: str, known: Mapping[str, str], begins: Start) -> None:
    """Write the shipped recipe of the task with other values, and say so."""
    from axtune.checkpoint.atomic import write_text
    from axtune.config.new_recipe import shipped, with_values
    from axtune.config.recipe_file import read_value
    from axtune.units import typed

    like = shipped(task, four_bit=begins.four_bit)
    parted = (word.partition("=") for word in begins.overrides)
    further = {key: read_value(value) for key, _, value in parted}
    text = like.read_text(encoding="utf-8").replace(f"recipes/{like.name}", typed(str(out)))
    write_text(out, with_values(text, {**known, **further}))
    print(f"{'plan':12}{begins.said}")
    for word in begins.overrides:
        print(f"{'':12}{word}")
    print(f"{'recipe':12}{out}, as recipes/{like.name} for your data")
    print(f"{'next':12}accelerate launch {typed(str(out))}")


def _is_asked() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty()


def _found(model: str) -> tuple[Checkpoint | None, str]:
    """The model's checkpoint, without weights; or why it is not on this machine.

    Raises:
        AxtuneError: When it cannot come from the Hub either, or its folder is damaged.
    """
    from axtune.checkpoint.locate import find

    try:
        return find(model, weights=False), ""
    except AxtuneError as error:
        if model.count("/") != 1 or Path(model).exists():
            raise
        return None, str(error.found)


def _tokenizer(checkpoint: Checkpoint | None, model: str) -> AxTokenizer:
    """The model's tokenizer, or that of the embedded model of its family."""
    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer

    embedded = "tiny-ax-3.1" if "3.1" in model else "tiny-ax-4.0"
    return load_tokenizer(checkpoint or find(embedded, weights=False), learning=True)


def _say(found: RowsFound, data: str) -> None:
    """Print what was found in the rows."""
    from axtune.config.objective import listed
    from axtune.units import plural

    for fault in found.faults[:_SHOWN]:
        print(fault)
    if (more := len(found.faults) - _SHOWN) > 0:
        print(f"… {plural(more, 'more fault')}: axtune data check {data}")
    account = found.account
    said = f"{plural(account.rows_used, 'row')}, {account.tokens:,} tokens"
    if account.rows_refused:
        said += f"; {account.rows_refused:,} refused, which the recipe skips"
    print(f"{'data':12}{said}")
    if not found.tasks:
        raise AxtuneError(
            f"No row of {data} can be used.", "axtune data check says why, row by row."
        )
    if len(found.tasks) > 1:
        print(f"{'':12}There are rows for {listed(found.tasks)}; a run takes those of its task.")
