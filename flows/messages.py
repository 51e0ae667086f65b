"""Report a command's errors: one line, an exit status, and a traceback only on request."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGINT

import typer

from atlas.study.errors import UserError

DEBUG = "ATLAS_DEBUG"  # in the environment, so that stages' processes have it, too
FAILED, MISTAKEN = 1, 2  # exit statuses: something failed; the user has something to fix


class Failure(UserError):
    """Something failed that is no mistake of the user's."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report errors in one line; exit with status 2 for what the user can fix, else 1, and 130 on Ctrl-C."""
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
    """Format an unexpected error."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def debugging() -> bool:
    """Return whether tracebacks are requested."""
    return bool(os.environ.get(DEBUG))


def print_line(line: str) -> None:
    """Print a line on stderr at once, overwriting the terminal's echo of a key."""
    sys.stderr.write(f"{chr(13) if sys.stderr.isatty() else ''}{line}\n")
    sys.stderr.flush()
