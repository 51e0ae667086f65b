"""A server for scheduled runs: without one, Prefect schedules nothing."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, temporary_settings

from atlas.study.errors import UserError
from flows.messages import Failure, one_line

# Seconds to wait for the server (a slow machine takes up to a minute), and between tries.
PATIENCE, PAUSE = 180, 0.5
HEALTH = 10  # seconds within which a running server answers


def scheduled(cron: str) -> None:
    """Check that Prefect can read a cron expression.

    Raises:
        UserError: it cannot.
    """
    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise UserError(
            f"--cron: {cron!r} is no cron expression; expected five fields, minute, hour, day, month and weekday: "
            "'0 3 * * *' is nightly at three"
        ) from None


@contextmanager
def scheduling() -> Iterator[str]:
    """Yield the address of a scheduling server: the one that Prefect is set to, or one for the `with` block.

    Raises:
        UserError: the server that Prefect is set to does not answer.
        Failure: our own server ended, or did not answer within three minutes.
    """
    if known := answering():
        yield known
        return
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/api"
        _await(process, address)
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        process.terminate()
        process.wait()


def answering() -> str | None:
    """Return the address of the server that Prefect is set to; None if there is none.

    Raises:
        UserError: it does not answer.
    """
    known = PREFECT_API_URL.value()
    if known:
        with get_client(sync_client=True, httpx_settings={"timeout": HEALTH}) as client:
            error = client.api_healthcheck()
        if error is not None:
            raise UserError(
                f"PREFECT_API_URL: {known} does not answer ({one_line(error)}); expected a server of Prefect there: "
                "start it, or unset PREFECT_API_URL for one that lasts as long as the run"
            )
    return known


def _await(process: subprocess.Popen, address: str) -> None:
    for _ in range(int(PATIENCE / PAUSE)):
        if process.poll() is not None:
            raise Failure(f"Prefect's server ended with status {process.returncode}; its output is above")
        try:
            with urlopen(f"{address}/health", timeout=PAUSE):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(PAUSE)
    raise Failure(f"Prefect's server at {address} did not answer within {PATIENCE} s")
