"""The library that the stages call: it needs neither DVC nor Prefect."""

from atlas import importing as importing  # first: it has Python load all other modules by their source's digest
