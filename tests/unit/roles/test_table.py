"""Which parts run, in what order."""

from __future__ import annotations

import pytest

from matyan.roles.parts import BUILD
from matyan.roles.table import AFTER, NEEDS, ROLES, Part, start_order


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


def test_local_runs_every_part_there_is() -> None:
    assert set(start_order("local")) == set(Part)


def test_every_part_has_its_needs_and_its_build_function() -> None:
    assert set(NEEDS) == set(Part) == set(BUILD)
