"""The command that writes a recipe: it asks, checks the data, and plans."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from axtune.errors import AxtuneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axtune.checkpoint.locate import Checkpoint
    from axtune.checkpoint.tokenizer import AxTokenizer
    from axtune.data.statistics import DatasetStats

app = typer.Typer()

_MODEL = "skt/A.X-4.0-Light"
_NO_CARD = "none"
_SHOWN = 5  # faults


@app.command(
    short_help="Write a recipe: for your data, on your card.",
    epilog="Example: axtune init --data my_chats.jsonl --gpu 12GB --yes",
)
def init(
    out: Annotated[Path, typer.Argument(help="the recipe to write")] = Path("recipe.yaml"),
    data: Annotated[Optional[str], typer.Option(help="file, folder, glob or hf:owner/name")] = None,
    task: Annotated[
        Optional[str], typer.Option(help="such as sft or dpo; default: what the rows are made for")
    ] = None,
    model: Annotated[Optional[str], typer.Option(help=f"default: {_MODEL}")] = None,
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
    from axtune.checkpoint.atomic import write_text
    from axtune.config.new_recipe import shipped, with_values
    from axtune.config.recipe_file import read_value
    from axtune.units import typed

    if out.exists():
        raise AxtuneError(f"{out} is there already.", "Name another file, or remove it.")
    if not out.absolute().parent.is_dir():
        raise AxtuneError(f"There is no folder {out.parent}.", "Make it, or name another file.")
    if not yes and not _is_asked():
        raise AxtuneError(
            "axtune init asks questions, and there is no terminal.",
            "Add --yes, and --data FILE with it.",
        )
    if data is None:
        if yes:
            raise AxtuneError("There is no data.", "Name it: axtune init --data FILE --yes.")
        data = typer.prompt("data (file, folder, glob or hf:owner/name)")
    model = model or (_MODEL if yes else typer.prompt("model", default=_MODEL))
    checkpoint, why = _found(model)
    account, meant = _look_at(data, model, checkpoint, why)
    if task is None:
        task = meant if yes else typer.prompt("task", default=meant)
    card = gpu or _card()
    if gpu is None and not yes:
        card = typer.prompt("card that trains, such as RTX 3060 or 12GB", default=card)
    known = {"model": model, "data.train": data, "output_dir": f"runs/{out.stem}"}
    if account.rows_refused:
        known["data.on_error"] = "skip"
    words, four_bit, said = _chosen(task, checkpoint, known, card, why)
    like = shipped(task, four_bit=four_bit)
    further = {key: read_value(value) for key, _, value in (w.partition("=") for w in words)}
    text = like.read_text(encoding="utf-8").replace(f"recipes/{like.name}", typed(str(out)))
    write_text(out, with_values(text, known | further))
    print(f"{'plan':12}{said}")
    for word in words:
        print(f"{'':12}{word}")
    print(f"{'recipe':12}{out}, as recipes/{like.name} for your data")
    print(f"{'next':12}accelerate launch {typed(str(out))}")


def _is_asked() -> bool:
    """Whether there is somebody to answer."""
    return sys.stdin.isatty()


def _found(model: str) -> tuple[Checkpoint | None, str]:
    """The model's checkpoint, without weights; or why it is not on this machine."""
    from axtune.checkpoint.locate import find

    try:
        return find(model, weights=False), ""
    except AxtuneError as error:
        return None, str(error.found)


def _look_at(
    data: str, model: str, checkpoint: Checkpoint | None, why: str
) -> tuple[DatasetStats, str]:
    """Check the rows, say what was found, and for which task they are made."""
    from axtune.config.loader import data_options
    from axtune.config.objective import listed
    from axtune.data.pipeline import check_rows
    from axtune.data.samples import PairSample, UnpairedSample
    from axtune.data.sources import files_of
    from axtune.data.statistics import StatsBuilder
    from axtune.units import plural

    tokenizer = _tokenizer(checkpoint, model)
    if checkpoint is None:
        print(f"{'model':12}{model} is not on this machine: {why}")
        print(f"{'':12}The rows are counted with the embedded model's tokenizer.")
    options = data_options([data], max_length=tokenizer.context)
    files = [path for source in options.train for path in files_of(source)]
    ledger, kinds, shown = StatsBuilder(), {"cpt": 0, "sft": 0, "dpo": 0, "kto": 0}, 0
    for checked in check_rows(files, tokenizer, options):
        ledger.add(checked)
        for fault in checked.faults if checked.refused else ():
            shown += 1
            if shown <= _SHOWN:
                print(fault)
        for sample in checked.samples[:1]:
            pair, judged = isinstance(sample, PairSample), isinstance(sample, UnpairedSample)
            kinds["dpo" if pair else "kto" if judged else "cpt" if checked.document else "sft"] += 1
    account = ledger.account()
    if shown > _SHOWN:
        print(f"… {plural(shown - _SHOWN, 'more fault')}: axtune data check {data}")
    said = f"{plural(account.rows_used, 'row')}, {account.tokens:,} tokens"
    if account.rows_refused:
        said += f"; {account.rows_refused:,} refused, which the recipe skips"
    print(f"{'data':12}{said}")
    if not account.rows_used:
        raise AxtuneError(
            f"No row of {data} can be used.", "axtune data check says why, row by row."
        )
    made = [task for task, count in kinds.items() if count]
    if len(made) > 1:
        print(f"{'':12}There are rows for {listed(made)}; a run takes those of its task.")
    return account, max(kinds, key=lambda task: kinds[task])


def _tokenizer(checkpoint: Checkpoint | None, model: str) -> AxTokenizer:
    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer

    embedded = "tiny-ax-3.1" if "3.1" in model else "tiny-ax-4.0"
    return load_tokenizer(checkpoint or find(embedded, weights=False), learning=True)


def _card() -> str:
    """This machine's card, by a name that a plan knows, or its size; none without one."""
    import torch

    from axtune.plan.gpus import GIB, find_card

    if not torch.cuda.is_available():
        return _NO_CARD
    try:
        return find_card(torch.cuda.get_device_name()).name
    except AxtuneError:  # no card that is known by name
        return f"{torch.cuda.mem_get_info()[1] / GIB:.0f}GB"


def _chosen(
    task: str, checkpoint: Checkpoint | None, known: dict[str, str], card: str, why: str
) -> tuple[list[str], bool, str]:
    """Further words for the recipe, whether it is over a base in 4 bit, and what the plan says."""
    from axtune.config.loader import load
    from axtune.config.new_recipe import shipped
    from axtune.config.recipe_file import as_override
    from axtune.plan.estimate import free_memory, from_data
    from axtune.plan.gpus import find_card
    from axtune.plan.memory import CPU, GPU
    from axtune.plan.search import Search
    from axtune.units import gigabytes

    on_card = card.lower() != _NO_CARD
    room = find_card(card).usable if on_card else free_memory()
    where = card if on_card else "this CPU"
    if checkpoint is None or room is None:
        four_bit = on_card and find_card(card).gigabytes < 24  # a 7B base alone takes 14.5 GB
        return [], four_bit, f"not planned: {why or 'the free memory is not known.'}"
    edits = None
    given = [word for key, value in known.items() for word in shlex.split(as_override(key, value))]
    for four_bit in (False, True):
        recipe = load(shipped(task, four_bit=four_bit), given)
        tokenizer = _tokenizer(checkpoint, checkpoint.name)
        search = Search(recipe, from_data(recipe, checkpoint, tokenizer), GPU if on_card else CPU)
        edits = search.fit(room)
        # A base in 4 bit costs less than leaving samples out, or the host's memory.
        if edits and not edits.left_out and not (_is_slow(edits.words) and not four_bit):
            break
    if edits is None:
        least = gigabytes(search.leanest[1].peak)
        return [], True, f"it does not fit {where}: it takes {least} at the least"
    lost = f", {edits.left_out:,} longer samples left out" if edits.left_out else ""
    of_card = f"{gigabytes(edits.plan.peak)} at the peak of {gigabytes(room)} of {where}{lost}"
    return list(edits.words), four_bit, of_card


def _is_slow(words: Sequence[str]) -> bool:
    return any(word.startswith(("offload", "quantization")) for word in words)
