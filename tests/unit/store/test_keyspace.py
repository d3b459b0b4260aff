"""Run numbers and times are read from keys of the order of creation, whatever time a client's clock said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from matyan.engines.kv.tuples import unpack
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.store import keyspace
from matyan.store.subspaces import Subspace

usual_times = st.integers(1_700_000_000_000_000, 1_800_000_000_000_000)
any_times = st.one_of(usual_times, st.integers(-(2**62), 2**62))
numbers = st.one_of(st.integers(256, 65_535), st.integers(1, 2**63)).map(RunNumber)


@given(st.lists(st.tuples(usual_times, numbers), max_size=20) | st.lists(st.tuples(any_times, numbers), max_size=20))
def test_numbers_of_places_are_those_of_the_unpacked_keys(places: list[tuple[int, RunNumber]]) -> None:
    keys = [keyspace.run_by_time(DEFAULT_PROJECT, *place) for place in places]
    at = len(keyspace.subspace(DEFAULT_PROJECT, Subspace.RUNS_BY_TIME))

    found = keyspace.place_numbers(keys, at)

    assert found == [unpack(key)[-1] for key in keys]
    assert keyspace.place_number_array(keys, at).tolist() == found


@given(st.lists(st.tuples(usual_times, numbers), max_size=20) | st.lists(st.tuples(any_times, numbers), max_size=20))
def test_times_of_places_are_those_of_the_unpacked_keys_as_far_as_calendars_go(
    places: list[tuple[int, RunNumber]],
) -> None:
    keys = [keyspace.run_by_time(DEFAULT_PROJECT, *place) for place in places]
    at = len(keyspace.subspace(DEFAULT_PROJECT, Subspace.RUNS_BY_TIME))

    found = keyspace.created_us_array(keys, at).tolist()

    far = keyspace.MOMENT_US_MAX
    assert found == [min(max(moment, -far), far) for moment, _ in places]
