"""Run a stage from the command line."""

import os
import select
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from signal import SIGINT
from threading import Thread

from atlas.study import unedited
from atlas.study.errors import UserError

# In the environment of a command whose stderr is a pipe to the process that records it.
RECORDED = "ATLAS_RECORDED"


def command(main: Callable, *names: str) -> None:
    """Run a stage's main from the command line.

    Args:
        main: Takes the study's folder, and the names of the cell.
        names: What each name stands for, in order: dataset, classifier, family.

    An error is one line on stderr, with exit status 2 if the user can fix it, otherwise 1. The environment variable
    ATLAS_DEBUG adds the traceback.
    """
    parser = ArgumentParser(
        prog=f"python -m stages.{Path(sys.argv[0]).stem}", description=sys.modules["__main__"].__doc__
    )
    parser.add_argument("--study", type=Path, default=Path(), help="the folder of params.yaml (default: here)")
    for name in names:
        parser.add_argument(name)
    given = vars(parser.parse_args())
    folder = given.pop("study")
    if os.environ.get(RECORDED):
        Thread(target=_end_with_reader, daemon=True).start()
    try:
        unedited.read_sources()
        main(folder, *given.values())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + SIGINT)
    except Exception as error:
        if os.environ.get("ATLAS_DEBUG"):
            traceback.print_exc()
        message = " ".join(str(error).split())
        if not isinstance(error, UserError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            message = (
                f"{type(error).__name__}: {message} ({place.filename}, line {place.lineno}); ATLAS_DEBUG=1 shows more"
            )
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)


def _end_with_reader() -> None:
    """End this process as soon as nothing reads its stderr: whoever records it was killed, and may begin again."""
    waiting = select.poll()
    waiting.register(2, 0)  # an error is reported in any case
    waiting.poll()
    os._exit(1)
