"""A server for scheduled runs: without one of its own, Prefect schedules nothing."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

from prefect.settings import PREFECT_API_URL, temporary_settings

from stages.study.problem import Problem

# A slow machine takes up to a minute; how often it is asked.
PATIENCE, PAUSE = 180, 0.5


@contextmanager
def scheduling() -> Iterator[str]:
    """Give the address of a server that schedules runs: the one that Prefect is set to, else one that ends with this.

    Raises:
        Problem: the server of our own ended, or did not answer within three minutes.
    """
    if known := PREFECT_API_URL.value():
        yield known
        return
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    # A session of its own: what ends us from the keyboard leaves it there until our last run has told it of its end.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    # Until Prefect has a handler of its own: what ends us ends the server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        address = f"http://127.0.0.1:{port}/api"
        _await(process, address)
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        process.terminate()
        process.wait()


def _await(process: subprocess.Popen, address: str) -> None:
    for _ in range(int(PATIENCE / PAUSE)):
        if process.poll() is not None:
            raise Problem(f"Prefect's server ended with status {process.returncode}; what it said stands above")
        try:
            with urlopen(f"{address}/health", timeout=PAUSE):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(PAUSE)
    raise Problem(f"Prefect's server at {address} did not answer within {PATIENCE} s")
