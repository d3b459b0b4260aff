"""Numbers of a source: what is applied is known whatever the order, in little room."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.protocol import TopicPartition
from matyan.store import gateways
from matyan.store.gateways import MISSING_MAX, Gap, Numbers

ONE, OTHER = TopicPartition("data", 0), TopicPartition("data", 1)


def apply(numbers: Sequence[int], state: Numbers | None = None) -> Numbers:
    state = state or Numbers()
    for number in numbers:
        state = state.plus(number, 5)
    return state


@given(st.lists(st.integers(1, 60)))
def test_exactly_what_was_applied_is_known(numbers: list[int]) -> None:
    state = apply(numbers)

    assert [number for number in range(1, 70) if state.has(number)] == sorted(set(numbers))
    assert all(gap.begin < gap.end for gap in state.missing)
    assert all(one.end < other.begin for one, other in zip(state.missing, state.missing[1:], strict=False))


def test_a_source_in_order_takes_no_room() -> None:
    assert apply(range(1, 10_000)) == Numbers(9999, (), 5)


def test_a_gap_closes_when_its_records_come() -> None:
    assert apply([1, 5]).missing == (Gap(2, 5),)
    assert apply([1, 5, 3]).missing == (Gap(2, 3), Gap(4, 5))
    assert apply([1, 5, 3, 2, 4]) == Numbers(5, (), 5)


def test_of_too_many_gaps_the_oldest_are_given_up() -> None:
    state = apply(range(2, 4 * MISSING_MAX, 2))

    assert len(state.missing) == MISSING_MAX
    assert state.has(1)
    assert not state.has(state.highest - 1)


def test_numbers_are_kept_by_partition_and_source(kv: KvEngine) -> None:
    first, second = apply([1, 2, 5]), apply([7])
    kv.write(lambda tx: gateways.put(tx, "log", ONE, {"a": first, "b": second}))

    assert kv.read(lambda reader: gateways.get_many(reader, "log", ONE, ["b", "c", "a"])) == [second, Numbers(), first]
    assert kv.read(lambda reader: gateways.get_many(reader, "log", OTHER, ["a"])) == [Numbers()]
    assert kv.read(lambda reader: gateways.get_many(reader, "fresh", ONE, ["a"])) == [Numbers()]


def test_sources_not_seen_for_long_are_forgotten(kv: KvEngine) -> None:
    states = {f"gateway-{number}": Numbers(1, (), number) for number in range(30)}
    kv.write(lambda tx: gateways.put(tx, "log", ONE, states))
    kv.write(lambda tx: gateways.put(tx, "other", OTHER, {"gateway-0": Numbers(1, (), 50)}))

    assert gateways.forget_gateways(kv, 10) == 10
    assert gateways.forget_gateways(kv, 10) == 0
    found = kv.read(lambda reader: gateways.get_many(reader, "log", ONE, list(states)))
    assert [numbers.seen_ms for numbers in found if numbers.highest] == list(range(10, 30))
    assert kv.read(lambda reader: gateways.get_many(reader, "other", OTHER, ["gateway-0"]))[0].highest == 1
