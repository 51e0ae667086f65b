"""Compare the results of two revisions of a study: what changed, and which intervals do not overlap."""

import math
import sys
import tempfile
from pathlib import Path

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.table import Column, Table

from atlas.cache import zipped
from atlas.cache.recorded import check
from atlas.cache.zipped import RESULTS
from atlas.report.sorting import digits
from atlas.statistics.changes import CHANGED, MEAN_RANKS, SAME, changes, names, settings
from atlas.study.errors import UserError
from flows.dvc_patches.one_study import only
from flows.repository import causes

SHOWN = 20  # lines of a table; the number of further ones is printed
ARROWS = {"higher": " ↑", "lower": " ↓"}


def compare(study: Path, revision: str, other: str | None, csv: Path | None) -> None:
    """Print what changed between the results of two revisions, and write everything to a CSV file if one is given.

    Args:
        study: The folder of params.yaml.
        revision: A Git revision: a commit, a branch, a tag, HEAD~1.
        other: A later revision; None: the working tree, with its present results.
        csv: The file to write.

    Raises:
        UserError: the results of a side are not available, or the CSV cannot be written.
    """
    before, after = read(study, revision), read(study, other)
    table = changes(before, after)
    if csv:
        try:
            csv.write_text(table.to_csv(index=False))
        except OSError as error:
            raise UserError(
                f"{csv}: cannot be written ({error.strerror}); expected a file in a folder that is there"
            ) from None
    listed, turned = names(before, after), settings(before, after)
    # A file has no width: lines in it are not wrapped to a narrow screen.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    here = other or "the working tree"
    if listed.empty and turned.empty and (table["state"] == SAME).all():
        console.print(f"Nothing changed between {revision} and {here}: {_number(len(table), 'mean')}, all the same.")
        return
    for title, found in (("What came and went", listed), ("Settings", turned)):
        if not found.empty:
            console.print(_table(title, [str(name) for name in found.columns], found.to_numpy().tolist()))
    known = table[table["state"] == CHANGED]
    columns = ["metric", "method", "mean", "change", "rank", "count", "letters", "apart"]
    for (classifier, turned_here), rows in known.groupby(["classifier", "turned"], sort=False):
        what = f"{_number(len(rows), 'mean')} became defined or undefined" if turned_here else None
        title = f"{classifier}: {what or _number(len(rows), 'change')}"
        if len(rows) > SHOWN:
            title += f", the first {SHOWN}" if turned_here else f", the {SHOWN} largest"
            title += f" of them; {len(rows) - SHOWN} more are not shown (--csv FILE writes all)"
        console.print(_table(title, columns, [_cells(row) for row in rows.head(SHOWN).to_dict("records")]))
    levels = dict.fromkeys(f"{100 * one.attrs['bootstrap']['level']:.3g} %" for one in (before, after))
    console.print(
        f"Of {_number(int(table['state'].isin([SAME, CHANGED]).sum()), 'mean')} in both {revision} and {here}, "
        f"{len(known)} changed (the mean, its interval, count, rank or letters): {int(known['turned'].sum())} became "
        f"defined or undefined, and of {int(known['apart'].sum())} the intervals are apart: the intervals of "
        f"the two means ({' and '.join(levels)}) share no value. Images are not paired, and nothing corrects for the "
        "number of means: of many, some are apart by chance alone.",
        soft_wrap=True,
    )


def read(study: Path, revision: str | None) -> xr.Dataset:
    """Read the summary of a revision, or of the working tree, from files, DVC's cache or the remote.

    Nothing else of the study is fetched, and nothing is added to the cache or the working tree.

    Raises:
        UserError: the revision does not exist, or its summary is not available.
    """
    if revision is None and (study / RESULTS).is_file():
        return zipped.read(study / RESULTS, "summary")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, RESULTS.name)
        _fetch(study, revision, place)
        return zipped.read(place, "summary")


def _fetch(study: Path, revision: str | None, place: Path) -> None:
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.repo.brancher import switch
    from dvc.scm import RevError, SCMError
    from dvc_data.index import DataIndexError
    from scmrepo.exceptions import SCMError as GitError

    from flows.dvc_patches.guard import guard

    guard()
    told = revision or "the working tree"
    try:
        with Repo(str(study)) as repo:
            config = {name: dict(repo.config[name]) for name in ("core", "remote")}
        # The present list of remotes: a revision's own may be outdated.
        with Repo(str(study), config=config) as repo:
            source = study.resolve().relative_to(repo.root_dir) / RESULTS
            with only(study, repo), switch(repo, revision or "workspace"):
                files = repo.dvcfs
                outs = [Path(repo.fs.relpath(out.fs_path, repo.root_dir)) for out in repo.index.outs]
                if source.parent not in outs:
                    raise UserError(
                        f"{told} has no {source.parent} in its dvc.yaml; it is no revision of {study.resolve()}"
                    )
                # Checked here, too: DVC's index of listings may be older than our check of listings.
                folder = f"/{source.parent.as_posix()}"
                listed = [name.removeprefix(f"{folder}/") for name in files.find(folder)]
                check(listed)
                if source.name not in listed:
                    raise UserError(
                        f"the results of {told}, made by earlier code, have no {source.name} and cannot be read"
                    )
                files.get_file(f"/{source.as_posix()}", str(place))
    except RevError:
        raise UserError(f"{study.resolve()} has no revision '{revision}'; `git log` lists those there are") from None
    except GitError as error:  # not caught by DVC: there are no commits, or they are damaged
        raise UserError(
            f"{study.resolve()} has no revision '{revision}' ({str(error).strip()}); `git log` lists those there are"
        ) from None
    except (SCMError, NotDvcRepoError):
        raise UserError(
            f"{study.resolve()} is not a repository of Git and DVC: it has no revisions to compare"
        ) from None
    except (OSError, DvcException, DataIndexError) as error:
        if known := next((one for one in causes(error) if isinstance(one, UserError)), None):
            raise known from None
        raise UserError(
            f"the results of {told} are neither in DVC's cache nor in a remote ({type(error).__name__}); "
            "`dvc push` them from where they were made, or make them with `dvc repro`"
        ) from None


def _cells(row: dict) -> list[str]:
    """Format a changed row; a value that did not change is printed once."""
    before, after = row["mean_before"], row["mean_after"]
    counts, ranks, letters = (
        [row[f"{name}_{side}"] for side in ("before", "after")] for name in ("count", "rank", "letters")
    )
    apart = "n/a" if pd.isna(row["apart"]) else "yes" if row["apart"] else "no"
    change = "n/a" if pd.isna(row["change"]) else ("+" if row["change"] > 0 else "") + digits(row["change"], 3)
    # The ranks of mean ranks are not stored.
    place = "" if row["metric"] in MEAN_RANKS else _turned(*("n/a" if pd.isna(one) else f"{one:g}" for one in ranks))
    return [
        row["metric"] + ARROWS[row["better"]],
        row["method"],
        _turned(*("n/a" if pd.isna(one) else digits(one, _enough(one, row["change"])) for one in (before, after))),
        change,
        place,
        _turned(*map(str, counts)),
        _turned(*("n/a" if pd.isna(one) else one or "none" for one in letters)) if place else "",
        apart,
    ]


def _enough(mean: float, change: float) -> int:
    """Return how many significant digits of a mean show two digits of its change."""
    if pd.isna(change) or not change or not mean:
        return 4
    return min(9, max(4, 2 + math.floor(math.log10(abs(mean))) - math.floor(math.log10(abs(change)))))


def _turned(before: str, after: str) -> str:
    return after if before == after else f"{before} → {after}"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    table = Table(*(Column(name, overflow="fold") for name in columns), title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
