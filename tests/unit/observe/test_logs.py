"""Log lines for people and machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from matyan.observe.logs import LogFormat, bound, set_up


@pytest.fixture(autouse=True)
def _restore_root() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def lines(log_format: LogFormat) -> io.StringIO:
    out = io.StringIO()
    set_up("info", log_format, out)
    return out


def test_a_json_line_holds_the_message_the_data_and_what_was_bound() -> None:
    out = lines("json")
    with bound(request="abc", run="outer"):
        logging.getLogger("matyan.x").info("run deleted", extra={"run": "r1", "keys": 2})

    line = json.loads(out.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("info", "matyan.x", "run deleted")
    assert (line["request"], line["run"], line["keys"]) == ("abc", "r1", 2)


def test_what_was_bound_ends_with_its_block() -> None:
    out = lines("json")
    with bound(request="abc"), bound(batch=1):
        pass
    logging.getLogger("matyan.x").info("later")

    assert not {"request", "batch"} & json.loads(out.getvalue()).keys()


def test_a_json_line_is_one_line_even_with_a_traceback() -> None:
    out = lines("json")
    try:
        int("boom\nboom")
    except ValueError:
        logging.getLogger("matyan.x").exception("it failed")

    [line] = out.getvalue().splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]


def test_a_console_line_quotes_what_has_blanks() -> None:
    out = lines("console")
    logging.getLogger("matyan.x").info("done", extra={"what": "a b", "n": 1})

    assert out.getvalue().rstrip().endswith("info    matyan.x  done  what='a b' n=1")


def test_levels_below_the_one_set_and_chatter_of_libraries_are_not_shown() -> None:
    out = lines("console")
    logging.getLogger("matyan.x").debug("too much")
    logging.getLogger("_granian").info("chatter")
    logging.getLogger("_granian").warning("heard")

    assert "too much" not in out.getvalue()
    assert "chatter" not in out.getvalue()
    assert "heard" in out.getvalue()


def test_a_library_that_set_up_its_own_logging_is_heard_through_ours() -> None:
    library = logging.getLogger("_granian")
    library.propagate = False
    library.addHandler(logging.StreamHandler(io.StringIO()))

    out = lines("console")
    library.warning("heard")

    assert "heard" in out.getvalue()
