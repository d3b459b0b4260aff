"""What the guards stand in for means what it means in Python, as far as it is allowed."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matyan.query.language import compile_query
from matyan.query.sandbox import COLLIDING_MAX, HASH_BITS, Budget, OversizeError, check_hashes
from matyan.query.vocabulary import make_guards, read_attribute
from tests.support.dataset import golden_runs
from tests.unit.query.rows import name_run

ROW: Final = {"run": name_run(golden_runs()[0])}


def is_true(text: str) -> bool:
    return compile_query(text, variable="run").matches(ROW)


@pytest.mark.parametrize(
    "text",
    [
        # C calls, iterates and unpacks through guards
        "sorted([3, 1, 2]) == [1, 2, 3]",
        "sorted(['b', 'A'], key=lambda t: t.lower(), reverse=True) == ['b', 'A']",
        "sorted([[1, 2], [0, 5]], key=sum) == [[1, 2], [0, 5]]",
        "max([1, -3], key=abs) == -3 and min(4, 2, 3) == 2",
        "max([], default=7) == 7 and min((x for x in []), default=None) == None",
        "[*'ab', *[1], *range(2)] == ['a', 'b', 1, 0, 1]",
        "(*'ab', 1) == ('a', 'b', 1)",
        "{*'aab', 'c', *[1]} == {'a', 'b', 'c', 1}",
        "{'a': 1, **{'b': 2, 'a': 3}, 'b': 4} == {'a': 3, 'b': 4}",
        "[*{**{'x': 1}, 'y': 2, **{'x': 3}}] == ['x', 'y']",
        "[[a, b] for [a, *b] in [[1, 2, 3]]] == [[1, [2, 3]]]",
        "[c for a, [b, c] in [(1, (2, 3))]] == [3]",
        "(lambda a, *b, c=0, **d: (a, b, c, d))(*[1, 2], **{'c': 3, 'e': 4}) == (1, (2,), 3, {'e': 4})",
        # sets
        "{1, 2}.union([3], (4,)) == {1, 2, 3, 4} and frozenset([1]).issubset(range(3))",
        "{1, 2}.intersection({2}) == {2} and {1, 2}.difference([2], [1]) == set()",
        "set([(1, 2), (3, 4)]) == {(3, 4), (1, 2)}",
        # text
        "' a b '.strip() == 'a b' and 'xxaxx'.strip('x') == 'a' and 'xa'.lstrip('x') == 'a'",
        "'a,b,c'.split(',', 1) == ['a', 'b,c'] and 'a b  c'.split() == ['a', 'b', 'c']",
        "'a,b,c'.rsplit(',', 1) == ['a,b', 'c'] and 'a b'.rsplit(maxsplit=0) == ['a b']",
        "'a\\nb'.splitlines() == ['a', 'b'] and 'a\\n'.splitlines(True) == ['a\\n']",
        "'abcabc'.rfind('b') == 4 and 'abcabc'.rindex('c', 0, 4) == 2 and 'a.b.c'.rpartition('.') == ('a.b', '.', 'c')",
        "f'{1:>4}|{2.5:.2f}' == '   1|2.50' and '%5d|%-3s|' % (7, 'a') == '    7|a  |'",
        # the others
        "datetime.strptime('2024-06-01', '%Y-%m-%d') == datetime(2024, 6, 1)",
        "datetime(2024, 6, 1).strftime('%d.%m.%Y') == f'{datetime(2024, 6, 1):%d.%m.%Y}' == '01.06.2024'",
        "0 <= random.betavariate(1, 2) <= 1",
        "reorder([3, 1, 2], [1, 2]) == [(1, 1), (2, 2)]",
        "run.hparams.keys() != None and [*{'a': 1}.keys()] == ['a']",
    ],
)
def test_what_is_guarded_means_what_it_means_in_python(text: str) -> None:
    assert is_true(text)


@given(st.lists(st.integers() | st.floats(allow_nan=False)), st.booleans())
def test_sorting_is_that_of_python(values: list[float], reverse: bool) -> None:
    guards = make_guards(Budget())

    assert guards.sort(values, reverse=reverse) == sorted(values, reverse=reverse)


@given(st.text("ab, ", max_size=20), st.none() | st.sampled_from([",", "ab"]), st.integers(-1, 5))
def test_splitting_is_that_of_python(text: str, separator: str | None, times: int) -> None:
    split, rsplit = (getattr(read_attribute(text, name), "__call__") for name in ("split", "rsplit"))  # noqa: B004, B009 - a partial, typed as any object

    assert split(separator, times) == text.split(separator, times)
    assert rsplit(separator, times) == text.rsplit(separator, times)


@pytest.mark.parametrize("value", ["text", b"bytes", 1.5, 2**HASH_BITS - 1, True, None], ids=repr)
def test_values_whose_hashes_nobody_chooses_are_no_danger(value: object) -> None:
    check_hashes([value] * (COLLIDING_MAX + 1))


@pytest.mark.parametrize("value", [2**HASH_BITS, -(2**61), 1j, (1,), frozenset([1]), range(1)], ids=repr)
def test_values_whose_hashes_can_be_chosen_are_few_in_one_set(value: object) -> None:
    check_hashes([value] * COLLIDING_MAX)

    with pytest.raises(OversizeError):
        check_hashes([value] * (COLLIDING_MAX + 1))


def test_integers_of_so_many_bits_are_their_own_hashes() -> None:
    longest = 2**HASH_BITS - 1

    assert hash(longest) == longest
    assert hash(4 * longest + 3) != 4 * longest + 3
