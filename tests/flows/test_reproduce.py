"""The flow makes what `dvc repro` makes, and says so where nothing is to be made."""

import json
import os
import subprocess
import time
from datetime import datetime
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from atlas.cache.fingerprint import packages
from atlas.cache.rows import RowStore
from flows.plan import Visit, at_work, count_missing, expected, plan, verb
from tests.support.study import GRIDS, IMAGES, build, environment, files, run, tiny, write


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A tiny study that the flow has brought up to date, and what it said."""
    place = tmp_path_factory.mktemp("flow")
    os.environ["PREFECT_HOME"] = str(place / "prefect")
    house = build(place / "house", tiny())
    said = run(house, "atlas", "reproduce", "--workers", "2").stdout
    yield house, said
    del os.environ["PREFECT_HOME"]


def test_the_flow_makes_what_dvc_makes(house, baseline):
    for folder in ("maps", "scores", "similarity", "cost", "results", "classifiers"):
        assert files(house[0] / "data" / folder) == files(baseline / "data" / folder), folder


def test_it_records_what_dvc_records(house, baseline):
    ours, theirs = (yaml.safe_load((place / "dvc.lock").read_text())["stages"] for place in (house[0], baseline))
    assert {cell: told for cell, told in ours.items() if cell != "report"} == theirs


def test_runs_are_scheduled_as_long_as_it_is_served(house):
    """By a server of its own: without one, Prefect schedules nothing and says so in a warning alone."""
    command = ["atlas", "serve", "--cron", "0 3 * * *"]
    served = subprocess.Popen(command, cwd=house[0], env=environment(house[0]), stdout=subprocess.PIPE, text=True)
    try:
        address = served.stdout.readline().removeprefix("Runs are scheduled by ").strip()
        future = b'{"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}'
        ask = Request(f"{address}/flow_runs/filter", future, {"Content-Type": "application/json"})
        for _ in range(120):
            with urlopen(ask) as answer:
                runs = json.load(answer)
            if runs:
                break
            time.sleep(1)
        assert {datetime.fromisoformat(run["expected_start_time"]).hour for run in runs} == {3}
    finally:
        served.terminate()
        served.communicate(timeout=120)
    with pytest.raises(URLError):
        urlopen(ask)


def test_it_ends_with_a_table_of_cells_and_times(house):
    said = house[1]
    assert "attribute@resnet_vanilla-noise" in said
    assert "The report: " in said
    assert (house[0] / "data/report/index.html").is_file()


def test_dvc_finds_nothing_to_do_afterwards(house):
    assert "up to date" in run(house[0], "dvc", "status").stdout
    assert "Data and pipelines are up to date." in run(house[0], "dvc", "repro").stdout


def test_a_package_installed_past_the_lock_makes_the_versions_stale(house, monkeypatch):
    assert not plan(house[0]).needs
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "9" if name == "scipy" else real(name))
    found = plan(house[0])
    assert found.reasons["versions"] == [f"scipy {real('scipy')}, installed is 9"]
    assert "score@resnet_vanilla-noise" in found.needs


def test_nothing_stale_starts_no_prefect(house):
    env = {**environment(house[0]), "PREFECT_API_URL": "http://127.0.0.1:9/none"}  # where nothing answers
    done = subprocess.run(["atlas", "reproduce"], cwd=house[0], env=env, capture_output=True, text=True, check=True)
    assert "Nothing is stale" in done.stdout


READ = """
import json
from flows.reproduce import reproduce
from prefect.client.orchestration import get_client
assert reproduce(".", 1) == []  # nothing is stale, and nothing is told
with get_client(sync_client=True) as client:
    print(json.dumps({one.key: [one.type, one.data] for one in client.read_artifacts()}))
    print(len(client.read_artifacts()), len({one.flow_run_id for one in client.read_artifacts()}))
"""


def test_a_run_leaves_the_leaderboard_and_a_link_to_the_report(house):
    said = run(house[0], "python", "-c", READ).stdout.splitlines()
    assert said[-1] == "2 1"
    told = json.loads(said[-2])
    kind, text = told["leaderboard"]
    assert kind == "markdown"
    lines = text.splitlines()
    assert lines[0] == f"The best 5 of 5 methods of {house[0].resolve()} by their mean rank, 1 is best."
    assert lines[2:] == (house[0] / "data/report/leaderboard.md").read_text().splitlines()
    kind, text = told["report"]
    assert kind == "markdown"
    assert f"({(house[0].resolve() / 'data/report/index.html').as_uri()})" in text


def test_the_artifact_shows_ten_methods_at_most(tmp_path, monkeypatch):
    from flows import reproduce

    made = {}
    for kind in ("markdown", "link"):
        name = f"create_{kind}_artifact"
        monkeypatch.setattr(reproduce, name, lambda text, *rest, key, description: made.update({key: text}))
    (tmp_path / "data/report").mkdir(parents=True)
    rows = [f"| {place} | `method` | 1.0 (0.9 to 1.1) |" for place in range(1, 28)]
    (tmp_path / "data/report/leaderboard.md").write_text("\n".join(["| head |", "| --- |", *rows]) + "\n")
    reproduce.publish(tmp_path)
    lines = made["leaderboard"].splitlines()
    assert lines[0].startswith("The best 10 of 27 methods of ")
    assert lines[2:] == ["| head |", "| --- |", *rows[:10]]
    assert made["report"].startswith("file:///")


def test_status_says_what_is_stale_and_why(house):
    params = tiny()
    params["methods"]["noise"]["smoothgrad"]["samples"] = 3
    try:
        write(house[0], params)
        found = plan(house[0])
        assert "attribute@resnet_vanilla-noise" in found.reasons
        assert "methods.noise modified" in found.reasons["attribute@resnet_vanilla-noise"][0]
        assert "attribute@resnet_vanilla-gradient" not in found.reasons
        needed = [f"{name}@resnet_vanilla-noise" for name in ("attribute", "certify")]
        assert sorted(found.needs["score@resnet_vanilla-noise"]) == needed
        assert found.reasons["score@resnet_vanilla-noise"]
        assert count_missing(house[0], "attribute@resnet_vanilla-noise") == (IMAGES + 4 * GRIDS,) * 2
        assert count_missing(house[0], "attribute@resnet_vanilla-control")[1] == 0
        assert count_missing(house[0], "predict@resnet_vanilla") == (120, 0)
        assert count_missing(house[0], "cost@resnet_vanilla") == (5 + 4, 0)
        said = run(house[0], "atlas", "status").stdout
        assert "attribute@resnet_vanilla-noise" in said
        assert f"{IMAGES + 4 * GRIDS} of {IMAGES + 4 * GRIDS}" in said
    finally:
        write(house[0], tiny())


def test_a_bad_entry_is_one_line_and_loses_nothing(house):
    before = files(house[0] / "data")
    params = tiny()
    params["methods"]["noise"]["smoothgrad"]["smaples"] = 3
    try:
        write(house[0], params)
        done = subprocess.run(
            ["atlas", "reproduce"], cwd=house[0], env=environment(house[0]), capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: params.yaml: methods.noise.smoothgrad: unknown setting 'smaples' = 3.")
        assert len(done.stderr.strip().splitlines()) == 1
    finally:
        write(house[0], tiny())
    assert files(house[0] / "data") == before


def test_a_metric_that_fails_leaves_a_draft_and_the_outputs(house):
    kept = files(house[0] / "data/report")
    params = tiny()
    params["metrics"]["localization"]["top_k_intersection"] = {"k": 5000}
    command = ["atlas", "reproduce", "--keep-going", "--workers", "2"]
    try:
        write(house[0], params)
        done = subprocess.run(command, cwd=house[0], env=environment(house[0]), capture_output=True, text=True)
    finally:
        write(house[0], tiny())
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    told = lines[lines.index("error: 3 cells failed and 3 were not run; all else was made") + 1 :]
    assert len(told) == 6
    assert told[0].startswith("  score@resnet_vanilla-gradient failed: these metrics failed")
    assert "  report was not run: it needs aggregate, which was not made" in told
    assert "A draft from the existing results: .atlas/draft/data/report/index.html" in done.stdout.replace("\n", "")
    page = (house[0] / ".atlas/draft/data/report/index.html").read_text()
    assert "A draft." in page
    assert "top_k_intersection (gradient): ValueError" in page
    assert "A draft." not in (house[0] / "data/report/index.html").read_text()
    assert files(house[0] / "data/report") == kept


def test_a_server_that_does_not_answer_is_told_in_a_line(house):
    params = tiny()
    params["report"]["images"] = 1
    env = {**environment(house[0]), "PREFECT_API_URL": "http://127.0.0.1:9/none"}
    try:
        write(house[0], params)
        done = subprocess.run(["atlas", "reproduce"], cwd=house[0], env=env, capture_output=True, text=True)
    finally:
        write(house[0], tiny())
    assert done.returncode == 2
    assert done.stderr.startswith("error: PREFECT_API_URL: http://127.0.0.1:9/none does not answer (")
    assert len(done.stderr.splitlines()) == 1


def test_a_second_run_waits_and_says_so(house):
    with at_work(house[0]):
        command = ["atlas", "reproduce"]
        second = subprocess.Popen(
            command, cwd=house[0], env=environment(house[0]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        said = second.stderr.readline()
        assert said == f"another run is at work on . (process {os.getpid()}): this one waits until it ends\n"
        assert second.poll() is None
    assert second.communicate(timeout=120)[0] == "Nothing is stale: every result is up to date.\n"
    assert second.returncode == 0


def test_status_answers_where_dvc_is_at_work(house):
    busy = {"write": {str(house[0].resolve() / "data/images"): {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}
    lock = house[0] / ".dvc/tmp/rwlock"
    try:
        lock.write_text(json.dumps(busy))
        done = subprocess.run(
            ["atlas", "status"], cwd=house[0], env=environment(house[0]), capture_output=True, text=True
        )
    finally:
        lock.write_text("{")  # as one that is killed leaves it, which is mended
    assert done.returncode == 1
    assert "another process of DVC is at work on it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Nothing is stale" in run(house[0], "atlas", "status").stdout


def test_cost_is_expected_by_row_where_rows_are_known():
    assert expected((40, 10), Visit(wanted=40, computed=20, seconds=8.0)) == ("10 of 40", "4")
    assert expected(None, Visit(wanted=40, computed=20, seconds=8.0)) == ("?", "8")
    assert expected((40, 10), Visit(wanted=40, computed=0, seconds=2.0)) == ("10 of 40", "2")
    assert expected(None, None) == ("", "?")


def test_a_cell_at_work_is_not_waited_for(house):
    with RowStore(house[0], "attribute@resnet_vanilla-control", house[0] / "data/maps/resnet_vanilla/control.zarr", 5):
        assert count_missing(house[0], "attribute@resnet_vanilla-control") is None


def test_a_cells_name_comes_apart():
    assert verb("attribute@resnet_vanilla-cam") == ("attribute", ["resnet_vanilla", "cam"])
    assert verb("aggregate") == ("aggregate", [])
