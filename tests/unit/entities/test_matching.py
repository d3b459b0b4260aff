"""Searching names as SQL's LIKE does."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.entities.matching import containing


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("", "anything", True),
        ("vis", "VISION", True),
        ("%s%n%", "vision", True),
        ("v_s", "vision", True),
        ("v_i", "vision", False),
        ("n%v", "vision", False),
        ("É", "é", False),
        (".", "vision", False),
        ("a[b]", "xA[B]y", True),
        ("_", "", False),
        ("a", "line\na", True),
    ],
)
def test_pattern_matches_as_in_sqlite(pattern: str, name: str, found: bool) -> None:
    assert containing(pattern)(name) is found


@given(st.text("ab%_", max_size=8), st.text("abA%", max_size=8))
def test_pattern_means_what_one_expression_means(pattern: str, name: str) -> None:
    regex = ".*" + "".join({"%": ".*", "_": "."}.get(one, re.escape(one)) for one in pattern) + ".*"

    assert containing(pattern)(name) == (re.fullmatch(regex, name, re.DOTALL | re.IGNORECASE) is not None)


def test_pattern_of_many_wildcards_costs_no_more() -> None:
    began = time.monotonic()

    assert not containing("%a" * 2000 + "b")("a" * 4096)
    assert time.monotonic() - began < 1
