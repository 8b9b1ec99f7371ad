"""Commands of training data: check, preview, render, scrub, import, ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from axtune.errors import AxtuneError

if TYPE_CHECKING:
    from rich.console import Console

    from axtune.checkpoint.tokenizer import AxTokenizer
    from axtune.config.recipe import Data, Recipe
    from axtune.data.statistics import RowResult

app = typer.Typer(no_args_is_help=True, help="Check, preview and render training data.")

Files = Annotated[list[str], typer.Argument(help="files, folders, globs or hf:owner/name")]
Model = Annotated[
    str, typer.Option(help="model whose tokenizer and template are used: Hub id, folder or name")
]
MaxLength = Annotated[Optional[int], typer.Option(help="longest sample in tokens")]
Keep = Annotated[Literal["refuse", "keep"], typer.Option(help="control tokens written inside text")]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="cut samples that are too long instead of refusing them")
]
Nfc = Annotated[bool, typer.Option("--nfc", help="convert decomposed Hangul to NFC")]
Format = Annotated[str, typer.Option(help="row shape; auto recognises it by its keys")]
Privacy = Annotated[
    Literal["off", "mask", "refuse"], typer.Option(help="personal data: mask it, or refuse the row")
]
PrivacyKinds = Annotated[
    Optional[str], typer.Option(help="YAML file of your own kinds of personal data")
]
NearDuplicates = Annotated[
    Literal["off", "warn", "drop"],
    typer.Option(help="rows that nearly repeat an earlier one: name them, or drop them"),
]
NotIn = Annotated[
    Optional[list[str]],
    typer.Option(help="file whose items no row may repeat; may be given several times"),
]
Leaked = Annotated[
    Literal["refuse", "drop"], typer.Option(help="rows that repeat such an item: refuse, or drop")
]
DEFAULT_MODEL = "skt/A.X-4.0-Light"
# What faults name by their key in a recipe, as the data commands take it.
_OPTIONS = (
    ("data.control_tokens: keep", "--control-tokens keep"),
    ("data.truncate: true", "--truncate"),
    ("data.nfc: true", "--nfc"),
    ("data.privacy: mask", "--privacy mask"),
    ("data.near_duplicates: drop", "--near-duplicates drop"),
    ("data.leaked: drop", "--leaked drop"),
    ("data.max_length", "--max-length"),
    ("data.format", "--format"),
)


@app.command(
    short_help="Check every row of some files.",
    epilog="Example: axtune data check data_templates/chat.jsonl --model tiny-ax-4.0",
)
def check(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(help="files, folders, globs or hf:owner/name; or a recipe, with overrides"),
    ],
    model: Model = DEFAULT_MODEL,
    max_length: MaxLength = None,
    control_tokens: Keep = "refuse",
    truncate: Truncate = False,
    nfc: Nfc = False,
    format: Format = "auto",
    privacy: Privacy = "off",
    privacy_kinds: PrivacyKinds = None,
    near_duplicates: NearDuplicates = "off",
    not_in: NotIn = None,
    leaked: Leaked = "refuse",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Check every row; print file:line: code: message for each fault; exit 1 on errors.

    With a recipe, check the rows that its run would read, and show each source's part of an epoch:
    axtune data check RECIPE [key.path=value]...
    """
    from axtune.config.stages import is_recipe
    from axtune.data.pipeline import check_rows
    from axtune.data.statistics import StatsBuilder

    if is_recipe(files[0]):
        _require_no_options(context)
        if not _check_recipes(files[0], files[1:], as_json=as_json):
            raise typer.Exit(1)
        return

    tokenizer, data, paths = _open(
        files,
        model,
        max_length=max_length,
        control_tokens=control_tokens,
        truncate=truncate,
        nfc=nfc,
        format=format,
        privacy=privacy,
        privacy_kinds=privacy_kinds,
        near_duplicates=near_duplicates,
        not_in=not_in or None,
        leaked=leaked,
    )
    ledger = StatsBuilder()
    for checked in check_rows(paths, tokenizer, data):
        ledger.add(checked)
        _print_faults(_with_options(checked), as_json=as_json)
    account = ledger.account()
    if as_json:
        print(json.dumps({"account": account.to_json()}, ensure_ascii=False))
    else:
        from rich.console import Console

        from axtune.data.preview import show_account

        show_account(Console(highlight=False), account)
    _require_rows(account.rows_read, files)
    if account.rows_refused:
        raise typer.Exit(1)


def _print_faults(checked: RowResult, *, as_json: bool) -> None:
    from dataclasses import asdict

    for fault in checked.faults:
        print(json.dumps(asdict(fault), ensure_ascii=False) if as_json else fault)


def _require_no_options(context: typer.Context) -> None:
    """Of a recipe's rows the recipe says what an option would."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name not in ("files", "as_json") and given and given.name == "COMMANDLINE":
            key = parameter.name if parameter.name == "model" else f"data.{parameter.name}"
            raise AxtuneError(
                f"{parameter.opts[0]} is for files of rows; a recipe says it itself.",
                f"Give it as an override: {key}=…",
            )


def _check_recipes(recipe: str, overrides: Sequence[str], *, as_json: bool) -> bool:
    """Check the rows of a recipe, or of each of its stages; whether all of them can be used."""
    from rich.console import Console

    from axtune.config.stages import jobs_of

    console, sound = Console(highlight=False), True
    for stage, job in jobs_of(recipe, overrides).items():
        if stage and not as_json:
            console.rule(stage, align="left")
        sound = _check_recipe(console, job, stage, as_json=as_json) and sound
    return sound


def _check_recipe(console: Console, recipe: Recipe, stage: str, *, as_json: bool) -> bool:
    from functools import partial

    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.data.preview import show_account, show_mixture
    from axtune.data.recipe_check import check_recipe
    from axtune.data.sources import unread_files

    held_out = recipe.data.eval if isinstance(recipe.data.eval, list) else []
    for source in (*recipe.data.sources, *held_out):
        for fault in unread_files(source):
            print(fault, file=sys.stderr)
    checkpoint = find(recipe.model, revision=recipe.revision, weights=False)
    tokenizer = load_tokenizer(checkpoint, learning=True)
    account, held = check_recipe(recipe, tokenizer, partial(_print_faults, as_json=as_json))
    if as_json:
        accounts = {"account": account.to_json(), "eval": held.to_json() if held else None}
        print(json.dumps(({"stage": stage} if stage else {}) | accounts, ensure_ascii=False))
    else:
        show_account(console, account)
        if len(account.mixture) > 1 or any(part["asked"] for part in account.mixture):
            console.print()
            show_mixture(console, account.mixture)
        if held:
            console.print("\nheld out", style="bold")
            show_account(console, held)
    return bool(account.mixture) and not (account.rows_refused or (held and held.rows_refused))


@app.command(
    short_help="Show rows as the model sees them.",
    epilog="Example: axtune data preview data_templates/chat.jsonl --model tiny-ax-4.0",
)
def preview(
    files: Files,
    model: Model = DEFAULT_MODEL,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="how many rows")] = 3,
    max_length: MaxLength = None,
    control_tokens: Keep = "refuse",
    truncate: Truncate = False,
    nfc: Nfc = False,
    format: Format = "auto",
    privacy: Privacy = "off",
    privacy_kinds: PrivacyKinds = None,
) -> None:
    """Show rows as the model sees them: labelled text in ⟦…⟧, a rejected answer after a minus."""
    from itertools import islice

    from rich.console import Console

    from axtune.data.pipeline import check_rows
    from axtune.data.preview import show_row

    tokenizer, data, paths = _open(
        files,
        model,
        max_length=max_length,
        control_tokens=control_tokens,
        truncate=truncate,
        nfc=nfc,
        format=format,
        privacy=privacy,
        privacy_kinds=privacy_kinds,
    )
    console = Console(highlight=False)
    shown = 0
    for checked in islice(check_rows(paths, tokenizer, data), rows):
        show_row(console, tokenizer, _with_options(checked))
        shown += 1
    _require_rows(shown, files)


@app.command(
    short_help="Write the token ids and labels of every row.",
    epilog="Example: axtune data render data_templates/chat.jsonl --out ids.jsonl",
)
def render(
    files: Files,
    out: Annotated[Path, typer.Option(help="JSONL to write, a line for each row")],
    model: Model = DEFAULT_MODEL,
    max_length: MaxLength = None,
    control_tokens: Keep = "refuse",
    truncate: Truncate = False,
    nfc: Nfc = False,
    format: Format = "auto",
    privacy: Privacy = "off",
    privacy_kinds: PrivacyKinds = None,
) -> None:
    """Write the token ids and labels of every row and answer, or why the row is refused."""
    from axtune.data.pipeline import check_rows, write_rendered

    tokenizer, data, paths = _open(
        files,
        model,
        max_length=max_length,
        control_tokens=control_tokens,
        truncate=truncate,
        nfc=nfc,
        format=format,
        privacy=privacy,
        privacy_kinds=privacy_kinds,
    )
    if out.resolve() in {path.resolve() for path in paths}:
        raise AxtuneError(f"{out} is one of the files to read.", "Give --out another name.")
    refused = write_rendered(map(_with_options, check_rows(paths, tokenizer, data)), out)
    if refused:
        print(f"{out}: rows refused: {refused}; their lines say why.", file=sys.stderr)


@app.command(
    short_help="Write a file again with personal data masked.",
    epilog="Example: axtune data scrub data_templates/chat.jsonl --out scrubbed.jsonl",
)
def scrub(
    source: Annotated[
        str, typer.Argument(metavar="in", help="JSONL, JSON, CSV, TSV or text; - is standard input")
    ],
    out: Annotated[Path, typer.Option(help="file to write")],
    kinds: PrivacyKinds = None,
    as_json: Annotated[bool, typer.Option("--json", help="the counts as JSON")] = False,
) -> None:
    """Write a file again with personal data masked; print how much of each kind, never a value.

    In JSON a string stays a string, a number becomes a quoted mask, and keys stay. What is not
    masked stays byte for byte.
    """
    from axtune.data.scrub_file import scrub_file
    from axtune.privacy.own_kinds import read_own_kinds

    counts = scrub_file(source, out, read_own_kinds(kinds) if kinds else ())
    if as_json:
        print(json.dumps({"out": str(out), "personal_data": dict(sorted(counts.items()))}))
        return
    for kind, count in sorted(counts.items()):
        print(f"{kind:20} {count:,}")
    print(f"{out}: {counts.total():,} masked." if counts else f"{out}: no personal data found.")


def _open(
    files: list[str], model: str, *, max_length: int | None, **options: Any
) -> tuple[AxTokenizer, Data, list[Path]]:
    """Tokenizer, options and files of a data command."""
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.loader import data_options
    from axtune.data.sources import files_of, unread_files
    from axtune.errors import CheckpointError

    # The files first: a wrong path is named whatever becomes of the model.
    sources = data_options(files).train
    paths = [path for source in sources for path in files_of(source)]
    for fault in [fault for source in sources for fault in unread_files(source)]:
        print(fault, file=sys.stderr)
    try:
        tokenizer = load_tokenizer(model, learning=True)
    except CheckpointError as error:
        raise CheckpointError(error.found, error.remedy.replace("model=", "--model ")) from None
    longest = tokenizer.context if max_length is None else max_length
    data = data_options(files, max_length=longest, **options)
    return tokenizer, data, paths


def _with_options(checked: RowResult) -> RowResult:
    """A row's faults with the options of a data command where they name the keys of a recipe."""
    from dataclasses import replace

    for index, fault in enumerate(checked.faults):
        message = fault.message
        for key, option in _OPTIONS:
            message = message.replace(key, option)
        checked.faults[index] = replace(fault, message=message)
    return checked


def _require_rows(read: int, files: Sequence[str]) -> None:
    if not read:
        raise AxtuneError(
            f"{', '.join(files)}: there are no rows.", "Give files that hold one row or more."
        )


@app.command(
    "import",
    short_help="Turn documents into text to train on.",
    epilog="Example: axtune data import 규정집/ 회의록.zip --out corpus.jsonl",
)
def import_(
    paths: Annotated[list[Path], typer.Argument(help="files, folders, archives (zip, tar)")],
    out: Annotated[Path, typer.Option(help="JSONL to write, a line for each document")],
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="processes that read; default: one per core")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1.0, help="seconds that one document may take")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="the report as one JSON object")] = False,
) -> None:
    """Write the text of PDF, DOCX, HTML, HWPX, HWP, XLSX, PPTX, TXT and MD documents as JSONL.

    The report names what gave no text, and why. Interrupted, the same command goes on; documents
    that OUT holds already are not read again. Exit 1 when there is no text at all.
    """
    import os

    from axtune.documents.importing import import_documents
    from axtune.documents.show import ImportProgress, show_report

    with ImportProgress() as progress:
        report = import_documents(
            paths, out, workers or len(os.sched_getaffinity(0)), time_limit, progress
        )
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        show_report(report, out)
    if not report.documents + report.present:
        raise typer.Exit(1)


@app.command(
    short_help="Draft questions and answers from documents.",
    epilog="Example: axtune data ask corpus.jsonl --url http://localhost:8000 --out drafts.jsonl",
)
def ask(
    corpus: Annotated[list[str], typer.Argument(help="files of axtune data import")],
    url: Annotated[str, typer.Option(help="server with OpenAI's interface, such as vLLM's")],
    out: Annotated[Path, typer.Option(help="JSONL to write, a line for each pair")],
    model: Annotated[
        Optional[str], typer.Option(help="as the server names it; default: the only one it has")
    ] = None,
    questions: Annotated[
        int, typer.Option(min=1, max=20, help="pairs from a passage, at most")
    ] = 2,
    passage_length: Annotated[
        int, typer.Option(min=200, max=100_000, help="characters of a passage")
    ] = 1500,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="requests at the same time")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="sent with each request")] = 42,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="send documents outside of private networks")
    ] = False,
    privacy_kinds: PrivacyKinds = None,
    as_json: Annotated[bool, typer.Option("--json", help="the account as one JSON object")] = False,
) -> None:
    """Draft questions and answers from documents, to be read before they are trained on.

    A second call answers each question from the passage alone; where it says something else, the
    pair is refused. Personal data is masked before anything is sent. Interrupted, the same command
    goes on. Exit 1 when no pair is kept.
    """
    from axtune.config.loader import data_options
    from axtune.data.sources import files_of
    from axtune.drafting.draft import Options, draft
    from axtune.drafting.server import find_server
    from axtune.drafting.show import DraftProgress, show_report
    from axtune.privacy.own_kinds import read_own_kinds
    from axtune.privacy.scrub import Scrubber

    scrubber = Scrubber(read_own_kinds(privacy_kinds) if privacy_kinds else ())
    files = [path for source in data_options(corpus).train for path in files_of(source)]
    served = find_server(url, model, allow_remote=allow_remote)
    options = Options(questions, passage_length, at_once, seed)
    try:
        with DraftProgress() as progress:
            report = draft(files, served, out, options, scrubber, progress)
    except KeyboardInterrupt:
        print(f"{out}: what was drafted is kept; the same command goes on.", file=sys.stderr)
        raise
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        show_report(report, out)
    if not report.kept:
        raise typer.Exit(1)
