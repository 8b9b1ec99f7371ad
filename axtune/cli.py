"""The command line: it only calls the packages. Each command imports what it needs itself."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer
import typer.core

from axtune.errors import AxtuneError, require_linux
from axtune.signals import sigterm_as_ctrl_c, was_terminated

if TYPE_CHECKING:
    from axtune.checkpoint.tokenizer import AxTokenizer
    from axtune.config.recipe import Data
    from axtune.data.statistics import RowResult
    from axtune.verify.certificate import Check

app = typer.Typer(
    name="axtune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune SK Telecom's A.X 3.1 Light and A.X 4.0 Light on exactly the tokens that will "
    "be served.",
)
data_app = typer.Typer(no_args_is_help=True, help="Check, preview and render training data.")


def _say_version(wanted: bool) -> None:
    if wanted:
        from axtune import __version__

        print(f"axtune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="say it and exit"),
    ] = False,
) -> None:
    """Fine-tune SK Telecom's A.X 3.1 Light and A.X 4.0 Light on the tokens that will be served."""


app.add_typer(data_app, name="data")

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
DEFAULT_MODEL = "skt/A.X-4.0-Light"
# What a shell says of a process that the signal killed.
_CTRL_C, _SIGTERM = 130, 143


@app.command(
    short_help="Train what a recipe describes.",
    epilog="Example: axtune train recipes/sft_lora.yaml model=tiny-ax-4.0 lora.r=8",
)
def train(
    recipe: Annotated[str, typer.Argument(help="recipe, such as recipes/sft_lora.yaml")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key.path=value, such as lora.r=32")
    ] = None,
) -> None:
    """Train what a recipe describes; the same job as `accelerate launch RECIPE`."""
    from axtune.config.loader import load, located

    loaded = load(recipe, overrides or [])
    from axtune.run import train as run_train

    with located(recipe, overrides or []):
        run_train(loaded)


@app.command(
    short_help="Say whether a recipe fits a GPU, and how long it takes.",
    epilog="Example: axtune plan recipes/sft_qlora.yaml --gpu 12GB",
)
def plan(
    recipe: Annotated[str, typer.Argument(help="recipe, such as recipes/sft_qlora.yaml")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(help="key.path=value, such as lora.r=32")
    ] = None,
    gpu: Annotated[
        Optional[list[str]],
        typer.Option(help='a GPU or its memory, such as "RTX 3060" or 12GB; may be repeated'),
    ] = None,
    tokens: Annotated[
        Optional[int],
        typer.Option(
            min=16, help="plan for samples of this many tokens each instead of for the data"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the plan as JSON")] = False,
) -> None:
    """Say whether a recipe fits a GPU, what makes it fit, and how long it takes.

    Exits with 1 when it fits none of the GPUs that --gpu names.
    """
    from axtune.checkpoint.locate import find
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.loader import load
    from axtune.plan.estimate import as_quantized, from_data, from_length
    from axtune.plan.gpus import SIZES, find_card
    from axtune.plan.memory import GPU
    from axtune.plan.report import judge, show, to_json
    from axtune.plan.search import Search

    named = [find_card(name) for name in gpu or ()]
    loaded = load(recipe, overrides or [], check_paths=tokens is None)
    checkpoint = find(loaded.model, revision=loaded.revision, weights=False)
    loaded = as_quantized(loaded, checkpoint)
    if tokens is None:
        known = from_data(loaded, checkpoint, load_tokenizer(checkpoint, learning=True))
    else:
        known = from_length(loaded, checkpoint, tokens)
    search = Search(loaded, known, GPU)
    sizes = [card for size in SIZES if (card := find_card(f"{size}GB")) not in named]
    verdicts = judge(search, [*named, *sizes])
    if as_json:
        print(json.dumps(to_json(search.plan, verdicts), ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        show(Console(highlight=False), search.plan, verdicts)
    if named and not any(verdict.fits for verdict in verdicts[: len(named)]):
        raise typer.Exit(1)


@app.command(
    short_help="Talk to a trained run, with tools.",
    epilog="Example: axtune chat runs/sft-lora --tools data_templates/tools.json",
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
    from axtune.chat import chat as start

    start(
        run,
        message=message,
        system=system,
        tools_file=tools,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    )


Out = Annotated[Path, typer.Option(help="folder to write; it must not exist yet")]
Base = Annotated[
    Optional[str], typer.Option(help="the base: Hub id, folder or name; default: the adapter's own")
]
Into = Annotated[
    Literal["16bit", "nf4"],
    typer.Option(
        help="what a QLoRA adapter is added to: the original weights, as vLLM does with a "
        "hot-loaded adapter; or the 4-bit weights that training and its eval loss saw, in 16 bit"
    ),
]


@app.command(
    short_help="Write a base in 4 bit once, for QLoRA runs to load.",
    epilog="Example: axtune quantize tiny-ax-4.0 --out models/tiny-nf4",
)
def quantize(
    base: Annotated[str, typer.Argument(help="16-bit checkpoint: Hub id, folder or name")],
    out: Out,
    quant_type: Annotated[Literal["nf4", "fp4"], typer.Option(help="4-bit numbers")] = "nf4",
    double_quant: Annotated[
        bool, typer.Option("--double-quant/--no-double-quant", help="quantise the scales as well")
    ] = True,
    precision: Annotated[
        Literal["bf16", "fp16"],
        typer.Option(help="precision of the runs that will load it; fp16 for GPUs without bf16"),
    ] = "bf16",
    max_shard_size: Annotated[str, typer.Option(help="largest file, such as 5GB")] = "5GB",
) -> None:
    """Write a base in 4 bit once; QLoRA runs that take the folder as model= start sooner."""
    from axtune.weights.quantized_base import quantize as run_quantize

    written = run_quantize(
        base,
        out,
        quant_type=quant_type,
        double_quant=double_quant,
        precision=precision,
        max_shard_size=max_shard_size,
    )
    print(f"{written.folder}: {written.layers} linear layers in 4 bit, "
          f"{written.original_nbytes / 1e9:.2f} → {written.nbytes / 1e9:.2f} GB")  # fmt: skip
    print(f"Train from it: model={written.folder}; merge and export find {base} by themselves.")


@app.command(
    short_help="Add adapters to their base and write a checkpoint.",
    epilog="Example: axtune merge runs/sft-lora --out models/merged",
)
def merge(
    adapters: Annotated[list[str], typer.Argument(help="run folders, or adapters that PEFT saved")],
    out: Out,
    base: Base = None,
    into: Into = "16bit",
    weight: Annotated[
        Optional[list[float]],
        typer.Option(help="weight of each adapter, given once for each, in their order"),
    ] = None,
) -> None:
    """Merge adapters into their base: a checkpoint in float32 sums, rounded once."""
    from axtune.weights.merge import merge as run_merge

    written = run_merge(adapters, base, out, into=into, weights=weight)
    for note in written.notes:
        print(f"note: {note}")
    print(f"{written.folder}: {written.tensors} tensors, {written.changed} changed, "
          f"{written.nbytes / 1e9:.2f} GB")  # fmt: skip


@app.command(
    short_help="Write a checkpoint for transformers, vLLM or llama.cpp.",
    epilog="Example: axtune export runs/sft-lora --to vllm --out models/served",
)
def export(
    source: Annotated[
        str, typer.Argument(help="checkpoint (Hub id, folder, name), run or adapter")
    ],
    out: Out,
    to: Annotated[
        Literal["hf", "vllm", "gguf", "adapter"],
        typer.Option(
            help="hf: for transformers, in its own layout. vllm: a folder that a plain `vllm "
            "serve` serves with the right tokens. gguf: one file for llama.cpp, with a Modelfile "
            "for Ollama. adapter: for vLLM's --enable-lora"
        ),
    ] = "hf",
    base: Base = None,
    layout: Annotated[
        Optional[Literal["own", "llama"]],
        typer.Option(help="architecture; default: own for hf, llama for vllm"),
    ] = None,
    dtype: Annotated[
        Optional[Literal["bfloat16", "float16", "float32", "q8_0"]],
        typer.Option(help="dtype of the weights; q8_0 for gguf only; default: the checkpoint's"),
    ] = None,
    max_shard_size: Annotated[
        Optional[str], typer.Option(help="such as 5GB; default: files as the checkpoint has them")
    ] = None,
    into: Into = "16bit",
) -> None:
    """Write a checkpoint, or a run merged on the way, for transformers, vLLM or llama.cpp."""
    from axtune.export.export import export as run_export

    exported = run_export(
        source,
        out,
        to=to,
        base=base,
        layout=layout,
        dtype=dtype,
        max_shard_size=max_shard_size,
        into=into,
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(f"{exported.folder}: {exported.nbytes / 1e9:.2f} GB")
    if exported.command:
        print(exported.command)


class _OptionalUrl(typer.core.TyperCommand):
    """``--vllm`` is given alone or with a URL, which typer's options cannot express."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        for place, argument in enumerate(args):
            following = args[place + 1] if place + 1 < len(args) else ""
            if argument == "--vllm" and not following.startswith(("http://", "https://")):
                given[place] = "--vllm=start"
        return super().parse_args(ctx, given)


@app.command(
    cls=_OptionalUrl,
    short_help="Prove that a checkpoint serves what was trained.",
    epilog="Example: axtune verify models/served --vllm",
)
def verify(
    folder: Annotated[str, typer.Argument(help="a checkpoint's folder, merged or exported")],
    against: Annotated[
        Optional[str], typer.Option(help="its base: Hub id, folder or name; default: the adapter's")
    ] = None,
    adapter: Annotated[
        Optional[str], typer.Option(help="run folder or adapter that was merged into it")
    ] = None,
    data: Annotated[
        Optional[list[str]],
        typer.Option(help="files whose rows are asked for; default: those of the run"),
    ] = None,
    vllm: Annotated[
        Optional[str],
        typer.Option(
            metavar="[URL]", help="ask the real vLLM too: at a URL, or started for it (no value)"
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="the certificate instead of a table")
    ] = False,
) -> None:
    """Prove that a checkpoint computes and serves what was trained; exit 1 on a failure."""
    from axtune.verify.verify import verify as run_verify

    certificate = run_verify(folder, against=against, adapter=adapter, data=data or (), vllm=vllm)
    _show(certificate.checks, certificate.to_json() if as_json else None)
    if not certificate.passed:
        raise typer.Exit(1)


@app.command(
    short_help="Examine any A.X checkpoint; repair its tokenizer.",
    epilog="Example: axtune doctor models/downloaded --repair models/repaired",
)
def doctor(
    checkpoint: Annotated[str, typer.Argument(help="checkpoint: Hub id, folder or name")],
    base: Annotated[
        Optional[str], typer.Option(help="what it comes from: Hub id, folder or name")
    ] = None,
    repair: Annotated[
        Optional[Path],
        typer.Option(
            metavar="OUT",
            help="write a repaired copy here, with the base's tokenizer files, and check it",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="checks as JSON")] = False,
) -> None:
    """Examine any A.X checkpoint, and repair a damaged tokenizer; exit 1 on a failure."""
    from dataclasses import asdict

    from axtune.checkpoint.locate import find
    from axtune.verify.doctor import examine
    from axtune.verify.doctor import repair as run_repair

    found = find(checkpoint)
    if repair is not None:
        checks = run_repair(found, repair, base)
    else:
        checks = examine(found, find(base, weights=False) if base else None)
    _show(checks, [asdict(check) for check in checks] if as_json else None)
    if repair is not None and not as_json:
        print(f"{repair}: the same weights, with the base's own tokenizer")
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


@app.command(
    "eval",
    short_help="Ask a model questions, and say what it gets right.",
    epilog="Example: axtune eval runs/sft-lora --against base",
)
def evaluate(
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
    out: Annotated[
        Optional[Path],
        typer.Option(help="folder of the answers; default: evaluation in the run, or in ."),
    ] = None,
    convert: Annotated[
        Optional[Path],
        typer.Option(
            help="ask nothing: write the benchmark files of --data to this folder, one part as "
            "rows to train on, the other to be asked"
        ),
    ] = None,
    held_out: Annotated[
        Optional[float],
        typer.Option(help="of --convert: how many questions are to be asked; default: 0.3"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as JSON")] = False,
) -> None:
    """Ask a model the questions of some files, and say with intervals what it gets right.

    Every assistant turn of a conversation is a question. Answers are kept: a command that was
    stopped goes on, and a second look costs nothing. Exits with 1 when a figure is below what
    --at-least says.
    """
    from rich.console import Console

    if convert is not None:
        _convert(data, convert, held_out, seed, model, as_json=as_json)
        return
    if held_out is not None:
        raise AxtuneError("--held-out needs --convert.", "Name the folder: --convert OUT.")
    if model is None:
        raise AxtuneError("There is no model to ask.", "Name it: axtune eval MODEL.")

    from axtune.evaluate.answers import read_answers
    from axtune.evaluate.evaluate import Settings, below, bounds
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
    if stream and not any(map(_is_url, (url, against))):
        raise AxtuneError("--stream asks a server, and there is none.", "Give its --url.")
    if samples > 1 and temperature == 0:
        raise AxtuneError(
            "--samples takes several answers, which at temperature 0 are the same.",
            "Set --temperature, such as 0.7.",
        )
    least = bounds(at_least or ())
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
        print((folder / "result.json").read_text(encoding="utf-8"), end="")
    else:
        show(console, result)
        if examples:
            show_examples(console, result, read_answers(folder), examples)
    if page := refresh(folder):
        console.print(f"report: {page}")
    for line in (failed := below(result, least)):
        print(f"axtune: {line}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _convert(
    data: list[str] | None,
    out: Path,
    held_out: float | None,
    seed: int,
    model: str | None,
    *,
    as_json: bool,
) -> None:
    """Write benchmark files in two parts, and say what went where."""
    from dataclasses import asdict

    from axtune.evaluate.convert import HELD_OUT, convert, show_split

    if not data:
        raise AxtuneError("--convert needs a benchmark's files.", "Give them: --data FILE.")
    share = HELD_OUT if held_out is None else held_out
    split = convert(data, out, held_out=share, seed=seed, model=model)
    if as_json:
        print(json.dumps(asdict(split), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show_split(Console(highlight=False, soft_wrap=True), split, out)


def _is_url(given: str | None) -> bool:
    return given is not None and given.startswith(("http://", "https://"))


@app.command(
    short_help="Remove what killed runs left on the disk.",
    epilog="Example: axtune clean runs/sft-lora --checkpoints",
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
    from axtune.checkpoint.leftovers import clean_run, clear_scratch

    if checkpoints and run is None:
        raise AxtuneError("--checkpoints needs a run.", "Name it: axtune clean RUN --checkpoints.")
    removed = clean_run(run, checkpoints=checkpoints) if run else []
    removed += clear_scratch()
    for gone in removed:
        print(f"{gone.path}: removed, {gone.size:,} bytes")
    if not removed:
        print("Nothing was left behind.")


@app.command(
    short_help="Show a run, or compare several, as one page.",
    epilog="Example: axtune report runs/sft-lora",
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


def _show(checks: Sequence[Check], machine_readable: Any) -> None:
    """A table, or JSON."""
    from rich.console import Console

    from axtune.verify.certificate import show

    if machine_readable is not None:
        print(json.dumps(machine_readable, ensure_ascii=False, indent=2))
    else:
        show(Console(highlight=False), checks)


# What faults name by their key in a recipe, as the data commands take it.
_OPTIONS = (
    ("data.control_tokens: keep", "--control-tokens keep"),
    ("data.truncate: true", "--truncate"),
    ("data.nfc: true", "--nfc"),
    ("data.max_length", "--max-length"),
    ("data.format", "--format"),
)


@data_app.command(
    short_help="Check every row of some files.",
    epilog="Example: axtune data check data_templates/chat.jsonl --model tiny-ax-4.0",
)
def check(
    files: Files,
    model: Model = DEFAULT_MODEL,
    max_length: MaxLength = None,
    control_tokens: Keep = "refuse",
    truncate: Truncate = False,
    nfc: Nfc = False,
    format: Format = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
) -> None:
    """Check every row; print file:line: code: message for each fault; exit 1 on errors."""
    from axtune.data.pipeline import check_rows
    from axtune.data.statistics import StatsBuilder

    tokenizer, data, paths = _open(files, model, max_length, control_tokens, truncate, nfc, format)
    ledger = StatsBuilder()
    for checked in check_rows(paths, tokenizer, data):
        ledger.add(checked)
        for fault in _with_options(checked).faults:
            if as_json:
                from dataclasses import asdict

                print(json.dumps(asdict(fault), ensure_ascii=False))
            else:
                print(fault)
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


@data_app.command(
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
) -> None:
    """Show rows as the model sees them: labelled text in ⟦…⟧, a rejected answer after a minus."""
    from itertools import islice

    from rich.console import Console

    from axtune.data.pipeline import check_rows
    from axtune.data.preview import show_row

    tokenizer, data, paths = _open(files, model, max_length, control_tokens, truncate, nfc, format)
    console = Console(highlight=False)
    shown = 0
    for checked in islice(check_rows(paths, tokenizer, data), rows):
        show_row(console, tokenizer, _with_options(checked))
        shown += 1
    _require_rows(shown, files)


@data_app.command(
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
) -> None:
    """Write the token ids and labels of every row and answer, or why the row is refused."""
    from axtune.data.pipeline import check_rows, write_rendered

    tokenizer, data, paths = _open(files, model, max_length, control_tokens, truncate, nfc, format)
    if out.resolve() in {path.resolve() for path in paths}:
        raise AxtuneError(f"{out} is one of the files to read.", "Give --out another name.")
    refused = write_rendered(map(_with_options, check_rows(paths, tokenizer, data)), out)
    if refused:
        print(f"{out}: rows refused: {refused}; their lines say why.", file=sys.stderr)


def _open(
    files: list[str],
    model: str,
    max_length: int | None,
    control_tokens: Literal["refuse", "keep"],
    truncate: bool,
    nfc: bool,
    row_format: str,
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
    data = data_options(
        files,
        max_length=tokenizer.context if max_length is None else max_length,
        control_tokens=control_tokens,
        truncate=truncate,
        nfc=nfc,
        format=row_format,
    )
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake becomes a message and exit 1, Ctrl-C exit 130, SIGTERM 143.

    Args:
        arguments: What follows ``axtune``; None takes it from the command line.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a letter shows its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with sigterm_as_ctrl_c():
        try:
            require_linux()
            app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=True)
        except AxtuneError as error:
            print(f"axtune: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except SystemExit as end:
            if end.code != _CTRL_C:
                raise
            code, name = (_SIGTERM, "SIGTERM") if was_terminated(end) else (_CTRL_C, "Ctrl-C")
            print(f"axtune: stopped by {name}.", file=sys.stderr)
            raise SystemExit(code) from None
        except BrokenPipeError:  # the reader has gone, as in `axtune data check … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
