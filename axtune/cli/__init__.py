"""The command line: it only calls the packages. Each command imports what it needs itself.

A module for each group of commands; to add a command, write it in the module that it belongs to.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from axtune.cli import chat, checkpoints, data, evaluate, kit, new_recipe, runs, train, verify
from axtune.config.paths import require_current_folder, require_text
from axtune.errors import AxtuneError, require_linux
from axtune.signals import notes_of, signal_of, sigterm_as_ctrl_c

app = typer.Typer(
    name="axtune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune SK Telecom's A.X 3.1 Light and A.X 4.0 Light on exactly the tokens that will "
    "be served.",
)
# In the order in which the help lists their commands.
for group in (new_recipe, train, chat, checkpoints, verify, evaluate, runs, kit):
    app.add_typer(group.app)
app.add_typer(data.app, name="data")

_KILLED = 128  # what a shell adds to the signal that killed a process


def _say_version(wanted: bool) -> None:
    if wanted:
        from axtune import __version__

        print(f"axtune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_say_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None:
    """Fine-tune SK Telecom's A.X 3.1 Light and A.X 4.0 Light on the tokens that will be served."""


def _is_first_to_say(message: str) -> bool:
    """Whether no other process of a run that several train has said the same."""
    if "WORLD_SIZE" not in os.environ:
        return True
    from axtune.training import peers  # torch, for runs in several processes

    return peers.is_first_to_say(message)


def _write_no_more() -> None:
    """Keep Python from writing at its end what could not be written before."""
    with suppress(OSError, ValueError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake becomes a message and exit 1, a signal 128 and its number.

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
            require_current_folder()
            given = list(sys.argv[1:] if arguments is None else arguments)
            for argument in given:
                require_text(argument)
            app(args=given, prog_name="axtune", standalone_mode=True)
        except AxtuneError as error:
            with suppress(KeyboardInterrupt):  # its launcher ends it while it asks the others
                if _is_first_to_say(str(error)):
                    print(f"axtune: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        except SystemExit as end:
            if end.code != _KILLED + signal.SIGINT:
                raise
            number = signal_of(end)
            name = "Ctrl-C" if number == signal.SIGINT else number.name
            print(*notes_of(end), f"axtune: stopped by {name}.", sep="\n", file=sys.stderr)
            raise SystemExit(_KILLED + number) from None
        except BrokenPipeError:  # the reader has gone, as in `axtune data check … | head`
            _write_no_more()
            raise SystemExit(141) from None
        except MemoryError:
            print(
                "axtune: There is not enough memory for that.\nGive smaller files (a line is read "
                "whole), or free some memory.",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _write_no_more()
            place = error.filename or "What this command prints"
            print(
                f"axtune: {place} cannot be written: {error.strerror}.\nMake room for it, and run "
                "the same command again.",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
