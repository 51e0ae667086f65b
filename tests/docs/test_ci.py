"""The run of the tests says where no browser can be had, and has none of its tests skipped where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import reported
from tests.support.study import ROOT


@pytest.mark.parametrize("browser", [True, False])
def test_it_says_whether_there_is_a_browser(tmp_path, browser):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(Path(shutil.which(name)))
    for name in ["make", *["google-chrome", "chromedriver"] * browser]:
        (tools / name).write_text('#!/usr/bin/env bash\necho "browser: ${ATLAS_BROWSER:-}"\n')
        (tools / name).chmod(0o755)
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tools)}, capture_output=True, text=True, check=True)
    assert done.stdout == f"browser: {'required' if browser else ''}\n"
    told = "no chromium with its chromedriver here: the tests that look at pages are skipped\n"
    assert done.stderr == ("" if browser else told)


def test_a_browser_that_must_be_there_is_not_skipped(monkeypatch):
    monkeypatch.delenv("ATLAS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="the page was not looked at"):
        reported.unseen()
    monkeypatch.setenv("ATLAS_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match="the page was not looked at"):
        reported.unseen()
