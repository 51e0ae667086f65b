"""What a command tells where it cannot go on: one line, an exit status, and a traceback only where it is asked for."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT

import typer

from atlas.study.errors import UserError

DEBUG = "ATLAS_DEBUG"  # in the environment, so that stages' processes know it too
FAILED, MISTAKEN = 1, 2  # exit statuses: something failed; the user is to mend something


class Failure(UserError):
    """What was asked for could not be done, through no mistake in what the user has written."""


@contextmanager
def told() -> Iterator[None]:
    """Yield what goes wrong in one line; exit with status 2 for what the user is to mend, else 1, 130 on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(128 + SIGINT) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        known = isinstance(error, UserError)
        hint = "" if known or os.environ.get(DEBUG) else "; `atlas --debug` shows where"
        typer.echo(f"error: {error if known else one_line(error)}{hint}", err=True)
        raise typer.Exit(MISTAKEN if known and not isinstance(error, Failure) else FAILED) from None


def one_line(error: BaseException) -> str:
    """Spell an unforeseen error."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def debugging() -> bool:
    """Return whether tracebacks are asked for."""
    return bool(os.environ.get(DEBUG))


def tell(line: str) -> None:
    """Print a line on stderr at once, in place of what the terminal has echoed of a key."""
    sys.stderr.write(f"{chr(13) if sys.stderr.isatty() else ''}{line}\n")
    sys.stderr.flush()
