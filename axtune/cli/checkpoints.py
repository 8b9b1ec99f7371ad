"""Commands that write checkpoints: quantize, merge, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from axtune.errors import AxtuneError
from axtune.loading import loading
from axtune.units import gigabytes

app = typer.Typer()


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
    quant_type: Annotated[Literal["nf4", "fp4"], typer.Option(help="4-bit format")] = "nf4",
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
    from axtune.config.recipe_file import as_override

    with loading():
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
          f"{gigabytes(written.original_nbytes)} → {gigabytes(written.nbytes)}")  # fmt: skip
    given = as_override("model", str(written.folder))
    print(f"Train from it: {given}; merge and export find {base} by themselves.")


@app.command(
    short_help="Add adapters to their base and write a checkpoint.",
    epilog="Example: axtune merge runs/sft_lora --out models/merged",
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
    with loading():
        from axtune.weights.merge import merge as run_merge

    written = run_merge(adapters, base, out, into=into, weights=weight)
    for note in written.notes:
        print(f"note: {note}")
    print(f"{written.folder}: {written.tensors} tensors, {written.changed} changed, "
          f"{gigabytes(written.nbytes)}")  # fmt: skip


@app.command(
    short_help="Write a checkpoint for transformers, vLLM or llama.cpp.",
    epilog="Example: axtune export runs/sft_lora --to vllm --out models/served",
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
    bits: Annotated[
        Optional[Literal["4"]],
        typer.Option(help="4: linear layers in 4 bit for vLLM, rounded by GPTQ on rows of the run"),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="of --bits 4 and K-quants: round without any rows")
    ] = False,
    calibrate: Annotated[
        Optional[list[str]],
        typer.Option(
            help="of --bits 4 and K-quants: files whose rows it is rounded by; default: the run's"
        ),
    ] = None,
    rows: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            help="of --bits 4 and K-quants: how many rows; default: 64, on a CPU as many as make "
            "6,144 tokens",
        ),
    ] = None,
    group: Annotated[
        Optional[Literal["128", "64", "32"]],
        typer.Option(help="of --bits 4: inputs that share a scale; default: 128, where they can"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of --bits 4 and K-quants: draws the rows")] = 0,
    dtype: Annotated[
        Optional[Literal["bfloat16", "float16", "float32", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]],
        typer.Option(
            help="dtype of the weights; q8_0 and the K-quants (q6_k, q5_k_m, q4_k_m) for gguf "
            "only; default: the checkpoint's"
        ),
    ] = None,
    max_shard_size: Annotated[
        Optional[str], typer.Option(help="such as 5GB; default: files as the checkpoint has them")
    ] = None,
    into: Into = "16bit",
) -> None:
    """Write a checkpoint, or a run merged on the way, for transformers, vLLM or llama.cpp."""
    k_quant = dtype in ("q6_k", "q5_k_m", "q4_k_m")
    if not (bits or k_quant) and (fast or calibrate or rows or seed):
        raise AxtuneError(
            "--fast, --calibrate, --rows and --seed are of exports in 4 bit and in K-quants.",
            "Give --bits 4, or --dtype q4_k_m, as well.",
        )
    if group and not bits:
        raise AxtuneError("--group is of an export in 4 bit for vLLM.", "Give --bits 4 as well.")
    if fast and (calibrate or rows):
        raise AxtuneError("--fast rounds without any rows.", "Leave --calibrate and --rows out.")
    with loading():
        from axtune.export.calibration import RoundingOptions
        from axtune.export.export import export as run_export
        from axtune.export.four_bit import FourBitOptions
        from axtune.training.progress import Report

    report = Report()
    rounding = RoundingOptions(
        fast=fast,
        calibrate=tuple(calibrate or ()),
        rows=rows,
        seed=seed,
        counting=report.counting,
        say=report.say,
    )
    four_bit = None
    if bits:
        four_bit = FourBitOptions(**vars(rounding), group=int(group) if group else None)
    exported = run_export(
        source,
        out,
        to=to,
        base=base,
        layout=layout,
        dtype=dtype,
        max_shard_size=max_shard_size,
        into=into,
        four_bit=four_bit,
        k_quant=rounding if k_quant else None,
    )
    for note in exported.notes:
        print(f"note: {note}")
    print(f"{exported.folder}: {gigabytes(exported.nbytes)}")
    if exported.command:
        print(exported.command)
    if exported.room:
        print(f"room: {exported.room}")
    if exported.verify:
        print(f"verify: {exported.verify}")
