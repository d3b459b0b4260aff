"""Which parts run, in what order."""

from __future__ import annotations

import pytest

from matyan.roles.parts import BUILD
from matyan.roles.table import AFTER, APART, LOCAL, NEEDS, ROLES, Part, start_order


@pytest.mark.parametrize("role", ROLES)
def test_every_part_starts_after_what_it_needs_and_what_it_comes_after(role: str) -> None:
    order = start_order(role)
    position = {part: index for index, part in enumerate(order)}

    assert len(position) == len(order)
    for part in order:
        for need in NEEDS[part]:
            assert position[need] < position[part]
        for earlier in AFTER.get(part, ()):
            assert position.get(earlier, -1) < position[part]


def test_the_door_opens_last() -> None:
    assert start_order("local")[-1] is Part.HTTP


def test_local_runs_every_part_but_the_one_that_watches_other_processes() -> None:
    assert set(Part) - set(start_order(LOCAL)) == {Part.FOLLOW}


def test_the_roles_apart_run_together_every_part() -> None:
    assert {part for role in APART for part in start_order(role)} == set(Part)


def test_every_part_has_its_needs_and_its_build_function() -> None:
    assert set(NEEDS) == set(Part) == set(BUILD)
