"""Commands that examine checkpoints: verify, doctor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
import typer.core

from axtune.errors import AxtuneError
from axtune.loading import loading

if TYPE_CHECKING:
    from axtune.verify.certificate import Check

app = typer.Typer()


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
        typer.Option(help="files whose rows it asks about; default: those of the run"),
    ] = None,
    vllm: Annotated[
        Optional[str],
        typer.Option(
            metavar="[URL]", help="ask the real vLLM too: at a URL, or started for it (no value)"
        ),
    ] = None,
    max_kl: Annotated[
        Optional[float],
        typer.Option(
            min=0.0,
            help="of a folder in 4 bit: fail above this divergence from 16 bit, in nats a token; "
            "default: 0.1",
        ),
    ] = None,
    min_agreement: Annotated[
        Optional[float],
        typer.Option(
            min=0.0,
            max=1.0,
            help="of a folder in 4 bit: fail where fewer questions are answered with the same "
            "calls as in 16 bit, such as 0.9",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="the certificate instead of a table")
    ] = False,
) -> None:
    """Prove that a checkpoint computes and serves what was trained; exit 1 on a failure."""
    with loading():
        from axtune.evaluate.same_calls import same_calls
        from axtune.verify.verify import verify as run_verify

    certificate = run_verify(
        folder,
        against=against,
        adapter=adapter,
        data=data or (),
        vllm=vllm,
        most_kl=max_kl,
        least_agreement=min_agreement,
        ask=same_calls,
    )
    _show(certificate.checks, certificate.to_json() if as_json else None)
    if not certificate.passed:
        raise typer.Exit(1)


@app.command(
    short_help="Examine this machine, or an A.X checkpoint; repair a tokenizer.",
    epilog="Example: axtune doctor models/downloaded --repair models/repaired",
)
def doctor(
    checkpoint: Annotated[
        Optional[str],
        typer.Argument(help="checkpoint: Hub id, folder or name; without one, this machine"),
    ] = None,
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
    """Say what this machine has for axtune; or examine any A.X checkpoint, and repair a tokenizer.

    Exits with 1 on a failure.
    """
    from dataclasses import asdict

    from axtune.checkpoint.locate import find

    with loading():
        from axtune.verify.doctor import examine
        from axtune.verify.doctor import repair as run_repair

    if checkpoint is None:
        if base or repair:
            raise AxtuneError(
                "--base and --repair need a checkpoint.", "Name it: axtune doctor CHECKPOINT."
            )
        from axtune.verify.machine import examine_machine

        checks = examine_machine()
        _show(checks, [asdict(check) for check in checks] if as_json else None)
        if any(check.status == "fail" for check in checks):
            raise typer.Exit(1)
        return
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


def _show(checks: Sequence[Check], machine_readable: Any) -> None:
    """A table, or JSON."""
    from rich.console import Console

    from axtune.verify.certificate import show

    if machine_readable is not None:
        print(json.dumps(machine_readable, ensure_ascii=False, indent=2))
    else:
        show(Console(highlight=False), checks)
