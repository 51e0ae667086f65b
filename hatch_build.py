"""Put the default study's params.yaml into a wheel, in the package `atlas`: in a checkout it lies beside it."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    """Add a file that is outside of the packages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add it, but where the wheel only points to a checkout."""
        if version == "standard":
            build_data["force_include"]["params.yaml"] = "atlas/params.yaml"
