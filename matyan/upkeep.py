"""Commands that look after stored data. Arguments in, lines out; the work is done in `maintenance`.

Apart from `cli.py` because there are many. Imports are late, as they are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matyan.engines.kv.protocol import KvEngine
    from matyan.maintenance.letters import Content
    from matyan.maintenance.space import Space
    from matyan.query.service import Found, SearchService
    from matyan.settings import Settings, SweepSettings
    from matyan.store.deadletters import DeadLetter

Command = Callable[["Settings", argparse.Namespace], int]
Add = Callable[[Any, str, Command, str], argparse.ArgumentParser]
"""Adds a command to a group; handed in by `cli.py`."""

EXIT_FAILED: Final = 1
RETRY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.2
_HEX_BYTES_SHOWN: Final = 4096
_HOUR_SECONDS: Final = 3600.0


def add_commands(commands: Any, add: Add) -> None:
    """Add the commands of this module."""
    letters = commands.add_parser("deadletters", help="what could not be stored").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    add(letters, "list", _list, "list what was acknowledged but could not be stored")
    show = add(letters, "show", _show, "print one dead letter: why, where from, and what it holds")
    show.add_argument("id", metavar="ID", help="as `list` names it")
    retry = add(
        letters, "retry", _retry, "have dead letters tried again by the running server, and say what came of it"
    )
    _add_chosen(retry)
    retry.add_argument(
        "--wait", type=float, default=RETRY_SECONDS, help="seconds to wait for the outcome (default: %(default)g)"
    )
    drop = add(letters, "drop", _drop, "delete dead letters for good, after showing which")
    _add_chosen(drop)
    drop.add_argument("--yes", action="store_true", help="do not ask")

    space = add(commands, "space", _space, "print the bytes that runs, deleted ones too, or everything take")
    space.add_argument("runs", nargs="*", metavar="RUN_ID", help="runs; without one: everything")
    reindex = add(commands, "reindex", _reindex, "rebuild the index that queries use, or prove that it is right")
    reindex.add_argument(
        "--verify", action="store_true", help="compare it with what it should be and change nothing; exit code 1 if not"
    )
    _add_query(add(commands, "query", _query, "print the runs that a query selects, and how they are found"))
    _add_sweep(add(commands, "sweep", _sweep, "do every job that tidies up, once and to the end"))


def _add_query(query: argparse.ArgumentParser) -> None:
    query.add_argument("expression", metavar="EXPRESSION", help="as in the search box of the UI")
    query.add_argument(
        "--search",
        choices=("run", "metric", "images", "texts", "distributions", "audios", "figures"),
        default="run",
        help="what the expression is asked of (default: %(default)s)",
    )
    query.add_argument("--limit", type=_positive, metavar="N", help="print so many runs at most (default: all)")
    query.add_argument("--explain", action="store_true", help="tell the plan, what the index gave, and the time")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _add_sweep(sweep: argparse.ArgumentParser) -> None:
    sweep.add_argument(
        "--now",
        action="store_true",
        help="take every file without a run for lost, however young: only while no client uploads, and no client "
        "and no frontier has anything left to send",
    )
    sweep.add_argument(
        "--orphan-hours",
        type=float,
        metavar="H",
        help="instead of the setting sweep.orphan_hours, also right after an outage",
    )
    sweep.add_argument(
        "--tombstone-hours",
        type=float,
        metavar="H",
        help="instead of the setting sweep.tombstone_hours, also right after an outage; at least 3 hours",
    )
    sweep.add_argument(
        "--silent-seconds",
        type=float,
        metavar="S",
        help="mark runs crashed that were not heard of for so long (default: none is, one pass cannot listen)",
    )


def _add_chosen(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("id", nargs="*", default=[], metavar="ID", help="as `list` names it")
    chosen.add_argument("--all", action="store_true", help="every dead letter there is")


# ---- dead letters


def _list(settings: Settings, _: argparse.Namespace) -> int:
    from matyan.maintenance.letters import read_all  # noqa: PLC0415 - see the module's docstring
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        count = _say_all(map(_line, read_all(context.kv)))
    if not count:
        _say("no dead letters")
    return 0


def _show(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.maintenance.letters import find, read_content  # noqa: PLC0415 - see the module's docstring
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        (letter,) = find(context.kv, [options.id])
        _say_all(_described(letter, read_content(letter, context.blobs)))
    return 0


def _retry(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.maintenance.letters import ask_all  # noqa: PLC0415 - see the module's docstring
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        letters = _chosen(context.kv, options)
        ask_all(context.kv, [letter.origin for letter in letters], int(time.time() * 1000))
        outcomes = _outcomes(context.kv, letters, options.wait)
    for letter, outcome in zip(letters, outcomes, strict=True):
        _say(f"{letter.id}  {outcome or 'waits: it is tried when `matyan up`, or the roles control and ingest, run'}")
    if not letters:
        _say("no dead letters")
    return 0 if all(outcome == _STORED for outcome in outcomes) else EXIT_FAILED


def _drop(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.maintenance.letters import drop  # noqa: PLC0415 - see the module's docstring
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        letters = _chosen(context.kv, options)
        _say_all(map(_line, letters))
        if letters and not (options.yes or _agrees(f"delete {len(letters)} for good?")):
            _say("nothing was deleted")
            return EXIT_FAILED
        drop(context.kv, context.blobs, letters)
    _say(f"deleted {len(letters)}")
    return 0


def _chosen(kv: KvEngine, options: argparse.Namespace) -> Sequence[DeadLetter]:
    from matyan.maintenance.letters import find, read_all  # noqa: PLC0415 - see the module's docstring

    return list(read_all(kv)) if options.all else find(kv, options.id)


def _outcomes(kv: KvEngine, letters: Sequence[DeadLetter], seconds_max: float) -> list[str]:
    """Return what came of each letter, empty for those of which that is not known in time."""
    ends = time.monotonic() + seconds_max
    outcomes = [""] * len(letters)
    while True:
        waiting = [place for place, outcome in enumerate(outcomes) if not outcome]
        for place in waiting:
            outcomes[place] = _outcome(kv, letters[place])
        if all(outcomes) or time.monotonic() >= ends:
            return outcomes
        time.sleep(_POLL_SECONDS)


_STORED: Final = "stored"


def _outcome(kv: KvEngine, before: DeadLetter) -> str:
    from matyan.store import deadletters  # noqa: PLC0415 - see the module's docstring

    asked, (now,) = kv.read(
        lambda reader: (deadletters.is_asked(reader, before.origin), deadletters.get_many(reader, [before.origin]))
    )
    if now is None:
        return _STORED
    if now.retries > before.retries:
        return f"refused again: {_short(now.reason)}"
    return "" if asked else f"cannot be tried again: {now.retry_fault}"


def _line(letter: DeadLetter) -> str:
    fault = f"  (cannot be tried again: {letter.retry_fault})" if letter.retry_fault else ""
    tries = f"  (retries: {letter.retries})" if letter.retries else ""
    run = letter.run_id or "(no run)"
    return f"{letter.id}  {_moment(letter.received_ms)}  run {run}  {_short(letter.reason)}{tries}{fault}"


def _described(letter: DeadLetter, content: Content) -> Iterable[str]:
    """Yield the lines of `show`."""
    import msgspec  # noqa: PLC0415 - see the module's docstring

    rows = {
        "id": letter.id,
        "reason": letter.reason,
        "run": f"{letter.project}/{letter.run_id}" if letter.run_id else "(no run)",
        "received": _moment(letter.received_ms),
        "refused": _moment(letter.refused_ms),
        "origin": f"{letter.topic}, partition {letter.partition}, offset {letter.offset}, {_item(letter.index)}",
        "log": letter.log_id,
        "retries": str(letter.retries) + (f"; {letter.retry_fault}" if letter.retry_fault else ""),
        "size": f"{len(content.raw)} bytes" + (f" in blob {letter.blob_key}" if letter.blob_key else ""),
    }
    yield from (f"{name + ':':10}{value}" for name, value in rows.items())
    if content.fault:
        yield f"content:  {content.fault}"
        yield content.raw[:_HEX_BYTES_SHOWN].hex(" ", 32)
        return
    yield "content:"
    for command in content.commands:
        yield json.dumps(msgspec.to_builtins(command, enc_hook=_plain), indent=2, ensure_ascii=False)


def _plain(value: object) -> object:
    """Return what stands in a command that is kept undecoded: the JSON of a context."""
    import msgspec  # noqa: PLC0415 - see the module's docstring

    assert isinstance(value, msgspec.Raw)
    return json.loads(bytes(value))


def _item(index: int) -> str:
    if index == -1:
        return "the record itself"
    return f"item {index}" if index >= 0 else f"item {-2 - index}, which could not be read"


# ---- queries


def _query(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.query.explain import found_lines, route_lines  # noqa: PLC0415 - see the module's docstring
    from matyan.query.service import SearchService  # noqa: PLC0415
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        began, count = time.perf_counter(), 0
        service = SearchService(kv=context.kv, seconds_max=settings.query.seconds)
        route, candidates = _find(service, options)
        for candidate in itertools.islice(candidates, options.limit):
            count += 1
            _say_all(found_lines(candidate, options.search))
        seconds = time.perf_counter() - began
    if options.explain:
        source = route.source
        _say_all(route_lines(route.plan, source.choice, asked=source.asked, found=count, seconds=seconds))
    return 0


def _find(service: SearchService, options: argparse.Namespace) -> Found:
    """Return what the service finds; an expression that is no query is for the user to put right."""
    from matyan.errors import ConfigurationError, InvalidArgumentError  # noqa: PLC0415 - see the module's docstring
    from matyan.query.explain import refusal_line  # noqa: PLC0415
    from matyan.query.searches import Search  # noqa: PLC0415

    try:
        return service.find(Search(q=options.expression), options.search)
    except InvalidArgumentError as error:
        raise ConfigurationError(refusal_line(error)) from error


# ---- space and tidying


def _space(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.ids import DEFAULT_PROJECT, RunId  # noqa: PLC0415 - see the module's docstring
    from matyan.maintenance import space  # noqa: PLC0415
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        kv, blobs = context.kv, context.blobs
        if not options.runs:
            _say_all(_amounts(space.of_project(kv, blobs, DEFAULT_PROJECT)))
        for run_id in options.runs:
            _say(f"run {run_id}")
            _say_all(_amounts(space.of_run(kv, blobs, DEFAULT_PROJECT, RunId(run_id))))
    return 0


def _amounts(space: Space) -> Iterable[str]:
    yield f"{'store':20}{space.store.size_bytes:>18,} bytes {space.store.entries:>12,} keys"
    for subspace, amount in sorted(space.keys.items(), key=lambda pair: -pair[1].size_bytes):
        yield f"  {subspace.name.lower():18}{amount.size_bytes:>18,} bytes {amount.entries:>12,} keys"
    yield f"{'files':20}{space.files.size_bytes:>18,} bytes {space.files.entries:>12,} files"


def _reindex(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.ids import DEFAULT_PROJECT  # noqa: PLC0415 - see the module's docstring
    from matyan.maintenance import reindex  # noqa: PLC0415
    from matyan.roles.upkeep import opened  # noqa: PLC0415

    with opened(settings) as context:
        if not options.verify:
            reindex.begin(context.kv, DEFAULT_PROJECT)
            reindex.go_on(context.kv, DEFAULT_PROJECT)
            _say("the index is complete")
            return 0
        verdict = reindex.verify(context.kv, DEFAULT_PROJECT)
    _say(
        f"{verdict.runs} runs should have {verdict.entries} entries: {verdict.missing} missing, "
        f"{verdict.left_over} left over"
    )
    _say_all(difference.described(DEFAULT_PROJECT) for difference in verdict.examples)
    if not verdict.is_complete:
        _say("the index is not complete, so queries look at every run: run `matyan reindex`")
    return 0 if verdict.is_good else EXIT_FAILED


def _sweep(settings: Settings, options: argparse.Namespace) -> int:
    from matyan.maintenance.deletion import LATE_SECONDS  # noqa: PLC0415 - see the module's docstring
    from matyan.roles.upkeep import Age, Limits, opened, sweep_once  # noqa: PLC0415

    chosen = {"orphan_hours": 0.0} if options.now else {}
    given = {"orphan_hours": options.orphan_hours, "tombstone_hours": options.tombstone_hours}
    chosen |= {name: value for name, value in given.items() if value is not None}
    hours = _changed(settings.sweep, chosen)
    limits = Limits(
        orphans=Age(hours.orphan_hours * _HOUR_SECONDS, is_chosen="orphan_hours" in chosen),
        dead_files=0.0 if options.now else LATE_SECONDS,
        tombstones=Age(hours.tombstone_hours * _HOUR_SECONDS, is_chosen="tombstone_hours" in chosen),
        silence=options.silent_seconds,
    )
    with opened(settings, with_log=True) as context:
        for what, number in sweep_once(context, limits):
            _say(f"{number:>12,}  {what}")
    return 0


def _changed(sweep: SweepSettings, chosen: dict[str, float]) -> SweepSettings:
    """Return the settings with what was chosen for once, within the same bounds."""
    import msgspec  # noqa: PLC0415 - see the module's docstring

    from matyan.errors import ConfigurationError  # noqa: PLC0415

    try:
        return msgspec.convert(msgspec.structs.asdict(sweep) | chosen, type(sweep))
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"sweep: {error}") from error


# ---- text


def _agrees(question: str) -> bool:
    """Ask whoever sits at the terminal; nobody there is a no."""
    if not sys.stdin.isatty():
        _say("nobody can be asked here: pass --yes to delete them")
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _moment(time_ms: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - see the module's docstring

    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(reason: str) -> str:
    """Return a reason on one line."""
    return " ".join(reason.split())


def _say_all(lines: Iterable[str]) -> int:
    """Print lines; return how many."""
    count = 0
    for line in lines:
        _say(line)
        count += 1
    return count


def _say(text: str) -> None:
    print(text)  # noqa: T201 - the command's output
