"""Run the notebook of the documentation again and write its outputs: `make notebook`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
SETTINGS = Config(KernelManager={"transport": "ipc"})  # sockets of the file system: no port is opened


def main(file: Path) -> None:
    """Run a notebook, and write it with what its cells show; the first exception in a cell ends it."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=300, record_timing=False, config=SETTINGS).execute()
    del notebook.metadata["language_info"]  # the version of this Python
    nbformat.write(notebook, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else NOTEBOOK)
