"""config/compose.yaml as Compose reads it: anchors merged, variables filled in."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.markdown import ROOT

COMPOSE: Final = ROOT / "config" / "compose.yaml"
NEW_ENV: Final = ROOT / "config" / "new-env.sh"
_VARIABLE: Final = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<kind>:-|:\?)(?P<rest>[^}]*)\}")


def raw_compose() -> dict[str, Any]:
    """Return the file with anchors merged and variables as they stand."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def filled_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with variables filled in.

    Raises:
        LookupError: one is missing that has no default.
    """

    def fill(match: re.Match[str]) -> str:
        if match["name"] in variables:
            return variables[match["name"]]
        if match["kind"] == ":?":
            raise LookupError(f"{match['name']}: {match['rest']}")
        return match["rest"]

    found: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(fill, COMPOSE.read_text()).replace("$$", "$"))
    return found


def required_variables() -> set[str]:
    """Return the variables without which it does not start."""
    return {match["name"] for match in _VARIABLE.finditer(COMPOSE.read_text()) if match["kind"] == ":?"}


def make_env(path: Path) -> dict[str, str]:
    """Run the script that makes the secrets, and return what it wrote."""
    subprocess.run(["sh", NEW_ENV, path], check=True, capture_output=True)
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def kafka_properties(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the broker's properties that the image makes of its environment: KAFKA_LOG_DIRS is log.dirs."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_")
    }
