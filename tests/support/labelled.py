"""Whether a table of results says of everything in it what it is."""

import re

import xarray as xr


def check(table: xr.Dataset) -> None:
    """Every variable and coordinate has its attributes, and the coordinates that attributes name are there."""
    for name, variable in table.data_vars.items():
        told = [variable.attrs[what] for what in ("long_name", "units", "better", "reference")]
        assert all(told), name
        named = [found for one in told[1:] for found in re.findall(r"\((\w+)\)$", one)]
        assert set(named) <= set(table.coords), (name, named)
        assert all(table[found].dtype.kind in "UOT" for found in named), (name, named)
    for name, coordinate in table.coords.items():
        assert coordinate.attrs["long_name"], name
