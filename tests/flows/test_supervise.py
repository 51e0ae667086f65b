"""A run ends whole, whoever ends it; what is killed in it is replaced."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from atlas.study.cores import cores
from flows import workers
from flows.workers import Killed, Made, Workers
from tests.support.study import ROOT

WORK = """
import os, subprocess, sys, time
from flows import workers
from flows.supervise import supervised
from flows.workers import Workers

workers.PRELOAD.clear()  # nothing is computed

def work():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with Workers(2) as workers:
        workers.run(os.write, 1, b"begun\\n")
        workers.run(time.sleep, 300)

def ends():
    print("done")

def waits():
    print("begun", flush=True)
    sys.stdin.readline()
    print("done")

supervised({"work": work, "ends": ends, "waits": waits}[sys.argv[1]])
"""


def heard() -> None:
    """Take Ctrl-C as it is by default: whoever runs the tests behind a shell has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(work: str, before=heard) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, work],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("who", "how", "status", "said"),
    [
        ("parent", signal.SIGINT, 130, "interrupted; what was made is kept, and the next run goes on from there"),
        ("parent", signal.SIGTERM, 143, "terminated; what was made is kept, and the next run goes on from there"),
        ("parent", signal.SIGKILL, -signal.SIGKILL, None),
        ("leader", signal.SIGKILL, 1, "error: the run was killed by SIGKILL (out of memory?); what was made is kept"),
        ("both", signal.SIGKILL, -signal.SIGKILL, None),
    ],
)
def test_nothing_is_left_of_a_run_that_is_ended(who, how, status, said):
    process = start("work")
    assert process.stdout.readline() == "begun\n"
    whole = psutil.Process(process.pid)
    started = [whole, *whole.children(recursive=True)]
    assert len(started) >= 5  # the leader, a process that it started, those of the workers
    began = time.monotonic()
    leader = whole.children()[0]
    if who in ("parent", "both"):
        os.killpg(process.pid, how)  # as the terminal does it: all of its group
    if who in ("leader", "both"):
        leader.send_signal(how)
    told = process.communicate(timeout=10)[1].splitlines()
    assert time.monotonic() - began < 5
    assert process.returncode == status
    assert len(told) == (said is not None)
    assert all(line.startswith(said) for line in told)
    while left := living(started):
        assert time.monotonic() - began < 10, left
        time.sleep(0.05)


def test_a_run_that_ends_by_itself_ends_well():
    process = start("ends")
    assert process.communicate(timeout=60) == ("done\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_ends_nothing(ignored):
    """As `nohup` has it of a terminal that goes, and a shell without jobs of Ctrl-C and what it runs behind itself."""
    process = start("waits", lambda: signal.signal(ignored, signal.SIG_IGN))
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, ignored)
    time.sleep(0.5)  # it would end by now
    assert process.communicate("\n", timeout=60) == ("done\n", "")
    assert process.returncode == 0


def test_a_worker_that_is_killed_takes_its_own_work_alone(monkeypatch):
    monkeypatch.setattr(workers, "PRELOAD", [])  # nothing is computed
    with Workers(2) as both:
        with pytest.raises(Killed, match=r"its process was killed \(out of memory\?\)"):
            both.run(os._exit, 9)
        assert {both.run(abs, -number) for number in range(5)} == set(range(5))


def test_after_a_kill_a_cell_is_made_again_before_it_is_recorded(tmp_path):
    """DVC may have left a part of its output."""
    from flows import reproduce

    acts = []

    class Once:
        def run(self, function, *given):
            acts.append("made")
            return Made(0.0, "", {}, tmp_path, {})

        def record(self, cell, made):
            acts.append("recorded")
            if len(acts) == 2:
                raise Killed("it was killed")
            return 0.0

    both = Once()
    assert reproduce.visit.fn(tmp_path, "score@net-cam", both, both)[0] == "score@net-cam"
    assert acts == ["made", "recorded", "made", "recorded"]


def test_a_cell_whose_process_is_killed_is_tried_again_a_set_number_of_times(capsys):
    from atlas.study.errors import UserError
    from flows import reproduce

    deaths = [2]

    def act() -> float:
        if deaths[0]:
            deaths[0] -= 1
            raise Killed("its process was killed")
        return 1.5

    assert reproduce._patiently("prepare@a", act) == 1.5
    assert capsys.readouterr().out.splitlines() == [
        "prepare@a: its process was killed; again, 1 of 2 times",
        "prepare@a: its process was killed; again, 2 of 2 times",
    ]
    deaths[0] = 9
    with pytest.raises(UserError, match="its process was killed, 3 times"):
        reproduce._patiently("prepare@a", act)


@pytest.mark.parametrize(
    ("told", "due"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        # of a group within one that has less
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3,
        ),
        # version 1; a container does not see the group's own folder
        (
            {
                "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/0123\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            8,
        ),
    ],
)
def test_processors_are_those_that_a_quota_leaves(tmp_path, monkeypatch, told, due):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cores(tmp_path) == due


def test_processors_are_counted_where_linux_is_not(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert cores(tmp_path) == 10


def test_commands_start_where_linux_is_not():
    code = "import os; del os.sched_getaffinity; import flows.cli"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
