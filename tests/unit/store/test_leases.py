"""One holder at a time, whatever the store does to the transactions, and none that writes after it was replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matyan.engines.kv.embedded import EmbeddedKv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.errors import LeaseLostError
from matyan.store import leases
from matyan.store.leases import Claim
from tests.support.kv import RunTwiceKv
from tests.support.kv_faults import FaultRates, FaultyKv

NAME = "job"
SECONDS = 10.0
FAULTS = FaultRates(too_old=0.1, conflict=0.1, unknown_lost=0.1, unknown_applied=0.3)


@pytest.fixture(params=["twice", "faulty"])
def kv(request: pytest.FixtureRequest, engine: EmbeddedKv) -> KvEngine:
    engine.write(lambda tx: tx.clear_range(b"", b"\xff"), durable=False)
    return RunTwiceKv(engine) if request.param == "twice" else FaultyKv(engine, seed=7, rates=FAULTS)


def claim(process: str, turn: int = 1) -> Claim:
    return Claim(name=NAME, process=process, turn=turn)


def acquire(kv: KvEngine, one: Claim, now: float) -> int | None:
    return kv.write(partial(leases.acquire, claim=one, now_seconds=now, seconds=SECONDS), durable=False)


def renew(kv: KvEngine, one: Claim, now: float) -> bool:
    (kept,) = kv.write(partial(leases.renew, claims=[one], now_seconds=now, seconds=SECONDS), durable=False)
    return kept


def release(kv: KvEngine, one: Claim, *, forget: bool = False) -> None:
    kv.write(partial(leases.release, claim=one, forget=forget), durable=False)


def is_required(kv: KvEngine, one: Claim) -> bool:
    """Return whether a transaction that asks for the lease is committed."""

    def write(tx: KvTransaction) -> None:
        leases.require(tx, one)

    try:
        kv.write(write)
    except LeaseLostError:
        return False
    return True


def test_a_lease_is_held_by_one_until_it_expires(kv: KvEngine) -> None:
    assert acquire(kv, claim("a"), 0.0) == 1

    assert acquire(kv, claim("b"), SECONDS - 0.1) is None
    assert acquire(kv, claim("a", turn=2), SECONDS - 0.1) is None, "another thread of the same process"
    assert acquire(kv, claim("b"), SECONDS) == 2


def test_a_renewed_lease_lasts_longer(kv: KvEngine) -> None:
    acquire(kv, claim("a"), 0.0)

    assert renew(kv, claim("a"), 9.0)

    assert acquire(kv, claim("b"), 18.9) is None
    assert acquire(kv, claim("b"), 19.0) == 2


def test_a_holder_that_slept_past_its_expiry_notices_before_it_writes(kv: KvEngine) -> None:
    acquire(kv, claim("a"), 0.0)
    assert is_required(kv, claim("a")), "expired or not: nobody has taken it"
    acquire(kv, claim("b"), 60.0)

    assert not is_required(kv, claim("a"))
    assert not renew(kv, claim("a"), 61.0)
    assert is_required(kv, claim("b"))


def test_a_released_lease_is_free_at_once_and_its_number_rises_on(kv: KvEngine) -> None:
    acquire(kv, claim("a"), 0.0)

    release(kv, claim("a"))

    assert not is_required(kv, claim("a"))
    assert acquire(kv, claim("b"), 0.0) == 2


def test_a_forgotten_lease_leaves_nothing(kv: KvEngine) -> None:
    acquire(kv, claim("a"), 0.0)

    release(kv, claim("a"), forget=True)

    assert kv.read(lambda reader: leases.get(reader, NAME)) is None
    assert not is_required(kv, claim("a"))
    assert acquire(kv, claim("a", turn=2), 0.0) == 1
    assert not is_required(kv, claim("a")), "a later holding of the same process is not this one"


def test_a_release_that_comes_late_does_not_touch_the_next_holder(kv: KvEngine) -> None:
    acquire(kv, claim("a"), 0.0)
    acquire(kv, claim("b"), 60.0)

    release(kv, claim("a"))
    release(kv, claim("a"), forget=True)

    assert is_required(kv, claim("b"))


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(("acquire", "renew", "release")), st.floats(0.0, 8.0)),
    max_size=30,
)


@settings(deadline=None)  # it writes to a disk
@given(actions=ACTIONS)
def test_numbers_rise_and_nobody_holds_what_another_was_given(
    engine: EmbeddedKv, actions: Sequence[tuple[str, str, float]]
) -> None:
    """Three processes act in any order, time passing in between; the store's answers are checked against a model."""
    engine.write(lambda tx: tx.clear_range(b"", b"\xff"), durable=False)
    now, turn, numbers = 0.0, 0, [0]
    holder: Claim | None = None
    expires = 0.0
    claims: dict[str, Claim] = {}
    for process, action, seconds in actions:
        now += seconds
        if action == "acquire":
            turn += 1
            claims[process] = claim(process, turn)
            number = acquire(engine, claims[process], now)
            assert (number is not None) == (holder is None or now >= expires)
            if number is not None:
                assert number > numbers[-1]
                numbers.append(number)
                holder, expires = claims[process], now + SECONDS
        elif process in claims:
            act: Callable[..., object] = renew if action == "renew" else lambda kv, one, _: release(kv, one)
            act(engine, claims[process], now)
            if claims[process] == holder:
                holder, expires = (holder, now + SECONDS) if action == "renew" else (None, 0.0)
        for one in claims.values():
            assert is_required(engine, one) == (one == holder)
