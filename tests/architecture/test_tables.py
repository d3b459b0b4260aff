"""The tables of the code are what the reference says.

`python -m tests.architecture.test_tables` writes the generated pages anew.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matyan import errors
from matyan.cli import make_parser
from matyan.http.dialect import AIM, MATYAN
from matyan.http.errors import ERRORS
from matyan.observe.metrics import METRICS
from matyan.settings import SECTIONS, Secret, Settings, describe, items

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
GENERATED = "<!-- Generated: python -m tests.architecture.test_tables -->\n"


def settings_page() -> str:
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for path, value in items(Settings()):
        section, _, field = path.partition(".")
        variable = f"MATYAN_{section}_{field}".upper()
        shown = "true" if value is True else "false" if value is False else value
        default = "(empty)" if value in ("", [], Secret()) else f"`{shown}`"
        rows.append(f"| `{path}` | `{variable}` | {default} | {describe(SECTIONS[section], field)} |")
    head = (
        "# Settings\n\n"
        "A TOML file (`--config`, `MATYAN_CONFIG`) overrides the defaults, the environment that, flags everything.\n"
        "Lists in the environment are separated by commas.\n"
        "All faults of a configuration are reported at once.\n"
        "`matyan config show` prints what differs from the defaults, `--all` a complete settings file.\n"
        "Variables with the prefix `MATYAN_` whose second word is no section below belong to the clients and are left "
        "alone.\n\n"
    )
    return f"{GENERATED}{head}" + "\n".join(rows) + "\n"


def metrics_page() -> str:
    rows = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |")
    head = (
        "# Metrics\n\n"
        "`GET /metrics/` answers in Prometheus text format 0.0.4.\n"
        "Without the final slash the path is a page of the web UI for browsers, and the same for scrapers, which ask "
        "for `text/plain` or OpenMetrics.\n"
        "Names of the existing system are kept; memory, processor time and garbage collection of the process come with "
        "the names that Prometheus clients give them.\n\n"
    )
    return f"{GENERATED}{head}" + "\n".join(rows) + "\n"


def errors_page() -> str:
    rows = ["| code | `/api` | `/api/v1/rest` | `error.code` there |", "|---|---|---|---|"]
    for code, row in ERRORS.items():
        both = [dialect.conflict_status if code == "conflict" else row.status for dialect in (AIM, MATYAN)]
        rows.append(f"| `{code}` | {both[0]} | {both[1]} | `{row.name}` |")
    head = (
        "# Errors over HTTP\n\n"
        "What the codes mean stands in [errors](errors.md).\n"
        "Every error has a JSON body.\n"
        'Under `/api` it is `{"message": TEXT, "detail": "STATUS: TEXT"}`, under `/api/v1/rest` '
        '`{"message": TEXT, "detail": TEXT, "error": {"code": CODE, "message": TEXT}}`.\n'
        "The message of a query that does not parse is `SyntaxError`; its `detail` holds `statement`, `line`, `offset` "
        "and `end_offset`.\n"
        "An unknown route is 404 and a wrong method 405 with `Allow`; a parameter or body of the wrong shape is 422 "
        "with a list of faults, each with `type`, `loc`, `msg` and `input`.\n"
        "A WebSocket handshake is refused with 503 while the server starts, stops or is overloaded: clients come "
        "again.\n\n"
    )
    return f"{GENERATED}{head}" + "\n".join(rows) + "\n"


def cli_page() -> str:
    lines = [
        "# Command line",
        "",
        "Exit codes: 0, 1 for a failure, 2 for arguments, settings and surroundings that the user can put right.",
    ]
    for path, parser in _commands("matyan", make_parser()):
        lines += ["", f"## `{path}`", "", parser.description or "", ""]
        options = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
        lines += [_option(action) for action in options if "--help" not in action.option_strings]
    return GENERATED + "\n".join(lines).rstrip() + "\n"


def _option(action: argparse.Action) -> str:
    text = (action.help or "").replace("%(default)s", str(action.default))
    value = action.dest.upper() if action.nargs != 0 else ""
    return f"- `{' '.join([*action.option_strings[:1], value]).rstrip()}`: {text}"


def _commands(path: str, parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    found: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                deeper = _commands(f"{path} {name}", below)
                found += deeper or [(f"{path} {name}", below)]
    return found


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "http-errors.md": errors_page,
    "cli.md": cli_page,
}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_says_what_the_table_says(page: str) -> None:
    if os.environ.get("MATYAN_WRITE_DOCS"):  # `make docs`
        (REFERENCE / page).write_text(PAGES[page](), "utf-8")
    assert (REFERENCE / page).read_text("utf-8") == PAGES[page]()


def test_every_error_class_has_a_row() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    codes: set[Any] = {kind.code for kind in classes if issubclass(kind, errors.MatyanError)}

    assert len(classes) > 5
    assert codes <= set(ERRORS)


if __name__ == "__main__":
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make(), "utf-8")
