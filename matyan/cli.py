"""Arguments -> one role or one maintenance command; no logic.

argparse, since it is there: a library would bring its import time (30 to 100 ms) to every call of `matyan`, for a
dozen options. Every command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from matyan import upkeep

if TYPE_CHECKING:
    from matyan.settings import Settings

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2

TRY_IT: Final = """\
Try it (in .venv/bin/python after `make up`, elsewhere pip install matyan-client):

from matyan_client import Run
run = Run(repo="{url}", experiment="hello")
run["hparams"] = {{"learning_rate": 0.001, "batch_size": 32}}
for step in range(100):
    run.track(1 / (step + 1), name="loss", step=step, context={{"subset": "train"}})
run.close()
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failure, 2 for what the user can put right."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    from matyan.errors import ConfigurationError, MatyanError  # noqa: PLC0415 - `--help` needs nothing

    try:
        return command(options)
    except ConfigurationError as error:
        return _complain(error.message, EXIT_CONFIGURATION)
    except MatyanError as error:
        return _complain(error.message, EXIT_FAILED)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `matyan config show | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `docs/reference/cli.md` is made from it."""
    parser = argparse.ArgumentParser(
        prog="matyan", description="A self-hosted tracker for machine-learning experiments."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(commands)
    demo = _command(commands, "demo", _demo, "log a small realistic training to a running server")
    demo.add_argument("--url", default="http://127.0.0.1:53800", help="the server (default: %(default)s)")
    _command(commands, "roles", _roles, "print which parts each role runs")
    config = commands.add_parser("config", help="print settings")
    config_commands = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = _command(config_commands, "show", _config_show, "print what differs from the defaults")
    show.add_argument("--all", action="store_true", help="print every setting, as a settings file")
    _add_common(show)
    compact = _command(commands, "compact", _compact, "give disk space of deleted data back (the server is stopped)")
    _add_common(compact)
    upkeep.add_commands(commands, _add_upkeep)
    key_commands = commands.add_parser("keys", help="secrets of the data directory").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    rotate = _command(
        key_commands, "rotate", _keys_rotate, "put new secrets in front; what older ones signed stays good"
    )
    _add_common(rotate)
    _add_import(commands)
    _add_health(commands)
    _command(commands, "version", _version, "print the version")
    _add_roles(commands)
    return parser


def _add_up(commands: Any) -> None:
    up = _command(commands, "up", _up, "run everything in one process: UI, API, ingestion, storage")
    up.add_argument("--port", type=int, help="port of UI and API (default: 53800; the next one serves the same)")
    _add_serving(up)
    _add_listening(up)


def _add_roles(commands: Any) -> None:
    serve = _command(commands, "serve", _role, "run the role that answers UI and API, on engines shared with others")
    serve.add_argument("--port", type=int, help="port of UI and API (default: 53800)")
    _add_serving(serve)
    frontier = _command(commands, "frontier", _role, "run the role that takes in runs: WebSocket and uploads")
    frontier.add_argument("--port", type=int, help="port of WebSocket and uploads (default: 53801)")
    ingest = _command(commands, "ingest", _role, "run the role that writes what was taken in into the store")
    ingest.add_argument("--port", type=int, help="port of health and metrics (default: 9101)")
    control = _command(commands, "control", _role, "run the role that frees what was deleted, and tidies up")
    control.add_argument("--port", type=int, help="port of health and metrics (default: 9102)")
    for role in (serve, frontier, ingest, control):
        _add_listening(role)


def _add_serving(parser: argparse.ArgumentParser) -> None:
    ui = parser.add_mutually_exclusive_group()
    ui.add_argument("--ui", choices=("aim", "matyan", "none"), help="the web UI to serve (default: aim)")
    ui.add_argument("--no-ui", action="store_const", const="none", dest="ui", help="serve no web UI")
    parser.add_argument(
        "--ui-path", help="directory of an unpacked wheel of the web UI (default: the installed package)"
    )
    parser.add_argument("--read-only", action="store_true", help="refuse edits and deletions of runs and experiments")


def _add_listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--base-path", help="path prefix of everything, such as /tracker")
    parser.add_argument(
        "--insecure-allow-remote", action="store_true", help="listen on another address though there is no login yet"
    )
    _add_common(parser)


def _add_import(commands: Any) -> None:
    sources = commands.add_parser("import", help="bring runs from another tracker here").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    aim = _command(sources, "aim", _import_aim, "bring the runs of an Aim repository here, and compare them")
    aim.add_argument("path", type=Path, help="the directory that holds .aim; nothing is written to it")
    aim.add_argument(
        "--experiment", action="append", default=[], help="only runs of this experiment (may be given several times)"
    )
    aim.add_argument("--since", type=_date, help="only runs created then or later: 2025-01-31, or with a time; UTC")
    _add_common(aim)


def _add_health(commands: Any) -> None:
    health = _command(commands, "health", _health, "ask a server here whether it is ready; exit 1 when it is not")
    health.add_argument(
        "role",
        nargs="?",
        default="up",
        choices=("up", "serve", "frontier", "ingest", "control"),
        help="whose settings say where it listens (default: up)",
    )
    health.add_argument("--url", help="ask this one instead")
    _add_common(health)


def _date(text: str) -> float:
    """Return seconds since 1970 of an ISO 8601 date or moment, in UTC unless it has a zone."""
    from datetime import UTC, datetime  # noqa: PLC0415 - see the module's docstring

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date; write it as 2025-01-31 or 2025-01-31T18:00") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", help="directory of the data (default: .matyan, or MATYAN_HOME)")
    parser.add_argument("--config", type=Path, help="settings file in TOML (or MATYAN_CONFIG)")


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run, name=name)
    return parser


def _add_upkeep(commands: Any, name: str, run: upkeep.Command, text: str) -> argparse.ArgumentParser:
    parser = _command(commands, name, lambda options: run(_settings(options), options), text)
    _add_common(parser)
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    from matyan.configuration import load  # noqa: PLC0415 - see the module's docstring

    flags: dict[str, Any] = {
        "data.home": getattr(options, "home", None),
        "http.host": getattr(options, "host", None),
        "http.port": getattr(options, "port", None),
        "http.base_path": getattr(options, "base_path", None),
        "http.ui": getattr(options, "ui", None),
        "http.ui_path": getattr(options, "ui_path", None),
        "http.read_only": getattr(options, "read_only", False) or None,
        "http.allow_remote": getattr(options, "insecure_allow_remote", False) or None,
    }
    if flags["http.port"] is not None and options.name == "up":
        # The second port follows the first: else two servers could not stand side by side.
        flags["http.extra_ports"] = [flags["http.port"] + 1] if flags["http.port"] else []
    file = options.config or (Path(os.environ["MATYAN_CONFIG"]) if "MATYAN_CONFIG" in os.environ else None)
    known = {path: value for path, value in flags.items() if value is not None}
    return load(file=file, flags=known, role=getattr(options, "role", options.name))


def _up(options: argparse.Namespace) -> int:
    with _no_collections():
        from matyan.roles.local import run_local  # noqa: PLC0415 - see the module's docstring

        settings = _settings(options)
        run_local(settings, announce=lambda url: _announce(url, settings, sys.stdout))
    return 0


def _role(options: argparse.Namespace) -> int:
    from matyan.roles.process import run_apart  # noqa: PLC0415 - see the module's docstring

    run_apart(
        options.name,
        _settings(options),
        announce=lambda url: print(f"matyan {options.name} is up: {url}", flush=True),  # noqa: T201
    )
    return 0


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Let nobody look for garbage among what is loaded: most of it stays, and looking is a tenth of the start.

    `matyan.roles.runner` turns collections on again as soon as everything stands.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _announce(url: str, settings: Settings, out: TextIO) -> None:
    where = f"matyan is up: {url} (data in {settings.home})"
    print(f"{where}\n\n{TRY_IT.format(url=url.rstrip('/'))}\nStop with Ctrl-C.", file=out, flush=True)


def _demo(options: argparse.Namespace) -> int:
    from matyan.demo import log_demo  # noqa: PLC0415 - see the module's docstring

    new = log_demo(options.url)
    _say(f"logged {new} runs, look at {options.url}")
    return 0


def _roles(_: argparse.Namespace) -> int:
    from matyan.roles.table import ROLES, start_order  # noqa: PLC0415 - see the module's docstring

    for role in ROLES:
        _say(f"{role:10} {' '.join(start_order(role))}")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from matyan.configuration import as_toml, differences  # noqa: PLC0415 - see the module's docstring

    settings = _settings(options)
    if options.all:
        _say(as_toml(settings), end="")
        return 0
    for path, value in differences(settings).items():
        _say(f"{path} = {value!r}")
    return 0


def _compact(options: argparse.Namespace) -> int:
    from matyan.roles.local import compact_store  # noqa: PLC0415 - see the module's docstring

    before, after = compact_store(_settings(options))
    _say(f"the store took {before:,} bytes, now it takes {after:,}")
    return 0


def _import_aim(options: argparse.Namespace) -> int:
    from matyan.roles.local import import_aim  # noqa: PLC0415 - see the module's docstring
    from matyan.transfer.aim_import import Selection  # noqa: PLC0415 - see the module's docstring

    selection = Selection(tuple(options.experiment), options.since)
    report = import_aim(_settings(options), options.path, selection, sys.stderr)
    _say("\n".join(report.lines()))
    return EXIT_FAILED if report.problems else 0


def _keys_rotate(options: argparse.Namespace) -> int:
    from matyan.roles.home import rotate_keys  # noqa: PLC0415 - see the module's docstring

    names = rotate_keys(_settings(options).home)
    _say(f"new secrets: {', '.join(names)}; a server uses them from its next start")
    return 0


def _health(options: argparse.Namespace) -> int:
    from matyan.roles.probe import check_ready, url_of  # noqa: PLC0415 - see the module's docstring

    checks = check_ready(options.url or url_of(_settings(options)))
    _say("ready: " + ", ".join(f"{name} {text}" for name, text in checks.items()))
    return 0


def _version(_: argparse.Namespace) -> int:
    from importlib.metadata import version  # noqa: PLC0415 - see the module's docstring

    _say(f"matyan {version('matyan-tracker')}")
    return 0


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end)  # noqa: T201 - the command's output


def _complain(text: str, code: int) -> int:
    print("\n".join(f"matyan: {line}" for line in text.splitlines()), file=sys.stderr)  # noqa: T201 - the command's output
    return code
