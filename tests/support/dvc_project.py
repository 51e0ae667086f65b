"""A small project of DVC, whose stages write how they were called, fail, are killed or take long."""

from pathlib import Path

import yaml
from dvc.repo import Repo

SAYS = """
import json, os, sys, time
from pathlib import Path
name = sys.argv[1]
if name == "bad":
    print("error: bad is no number", file=sys.stderr)
    sys.exit(3)
if name == "silent":
    sys.exit(1)
if name == "killed":
    os.kill(os.getpid(), 9)
if name == "long":
    Path("begun").write_text(str(os.getpid()))
    time.sleep(300)
Path(f"{name}.json").write_text(json.dumps([sys.argv[1:], os.getcwd(), sys.path[0], os.environ["DVC_STAGE"]]))
"""
PIPELINE = {
    "stages": {
        "say": {
            "foreach": ["one", "two", "bad", "silent", "killed", "long"],
            "do": {"cmd": "python -m stages.say ${item}", "params": ["shared"], "outs": ["${item}.json"]},
        },
        "copy": {"cmd": "cp one.json copied", "deps": ["one.json"], "outs": ["copied"]},
    }
}
PARAMS = "seen: &seen {a: 1e-5, b: '1e5'}\nshared: {first: *seen, second: *seen}\n"


def write(place: Path) -> Path:
    """Write the project into a new folder, and return it."""
    (place / "stages").mkdir(parents=True)
    (place / "stages" / "__init__.py").touch()
    (place / "stages" / "say.py").write_text(SAYS)
    (place / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (place / "params.yaml").write_text(PARAMS)
    Repo.init(str(place), no_scm=True).close()
    return place
