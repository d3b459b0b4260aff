"""Random query texts: expressions over all that the language has and more, and known queries with a few things changed.

Both draw from a `random.Random`, which may be one of Hypothesis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from matyan.query.sandbox import Budget
from matyan.query.vocabulary import _ATTRIBUTES, make_guards, make_names
from tests.fuzz.corpus import ESCAPES, EXHAUSTIONS
from tests.support.dataset import GOLDEN

MUTATED_CHARACTERS_MAX: Final = 2000
"""Longer attacks are about length; to change a character of them changes nothing."""

_VARIABLES: Final = ("run", "run", "run", "metric", "x", "y", "_")
_NAMES: Final = (*sorted(make_names(make_guards(Budget()))), "type", "object", "print", "zip")
_KEYS: Final = ("name", "hparams", "lr", "tags", "metrics", "notes", "created_at", "context", "last", "get", "keys")
_ATTRIBUTE_NAMES: Final = (
    *sorted({name for table in _ATTRIBUTES.values() for name in table}),
    *("__class__", "gi_frame", "format", "format_map", "mro", "append", "factorial", "digits"),
)
_LITERALS: Final = (
    *("0", "1", "2", "-1", "7", "999", "9999", "10**5", "2**61 - 1", "2**1023", "10**10", "1e308", "1e-9", "3j", "1_0"),
    *("None", "True", "False", "...", "math.inf", "math.nan", "()", "[]", "{}", "b''", "b'a%s'"),
    *("''", "'a'", "'lr'", "'%s'", "'%999d'", "'{0.__class__}'", "'\\ud800'", "'\u00e9'", "'9' * 999", "'a' * 150000"),
    *("[*range(999)]", "range(9999)", "'a b ' * 9999", "{'a': 1}", "{1, 2}", "(1, 'x')", "datetime(2024, 6, 1)"),
    *("timedelta(1)", "slice(1)", "frozenset([1])", "{'subset': 'train'}"),
)
_BINARY: Final = ("+", "-", "*", "/", "//", "%", "**", "<<", ">>", "&", "|", "^", "@")
_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not")
_TOKEN: Final = re.compile(r"\w+|\s+|[^\w\s]")

_Rule = Callable[[Random, int], str]


def random_expression(random: Random, depth: int = 5) -> str:
    """Return an expression, mostly a valid one, whose operations mostly have no meaning."""
    rules = _RULES if depth > 0 else _LEAVES
    return rules[random.randrange(len(rules))](random, depth - 1)


def random_mutation(random: Random) -> str:
    """Return an attack or a recorded query with some words exchanged, left out, repeated, or taken from another."""
    words = _TOKEN.findall(random.choice(_SEEDS))
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(words) + 1)
        words[place : place + random.randint(0, 3)] = _replacement(random, words)
    return "".join(words)


def _replacement(random: Random, words: Sequence[str]) -> Sequence[str]:
    kind = random.randrange(5)
    if kind == 0:
        return ()
    if kind == 1:
        return (random.choice(_LITERALS),)
    if kind == 2:
        return (f"({random_expression(random, 2)})",)
    other = words if kind == 3 else _TOKEN.findall(random.choice(_SEEDS))
    begin = random.randrange(len(other) or 1)
    return [*other[begin : begin + random.randint(1, 6)]] * random.choice((1, 1, 1, 2, 40))


def _literal(random: Random, _: int) -> str:
    return random.choice(_LITERALS)


def _variable(random: Random, _: int) -> str:
    return random.choice(_VARIABLES)


def _name(random: Random, _: int) -> str:
    return random.choice(_NAMES)


def _key(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)}.{random.choice(_KEYS)}"


def _attribute(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)}.{random.choice(_ATTRIBUTE_NAMES)}"


def _member(random: Random, _: int) -> str:
    return f"{random.choice(('math', 'random', 'string', 'datetime'))}.{random.choice(_MEMBERS)}"


def _item(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)}[{random_expression(random, depth)}]"


def _slice(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)}[{random_expression(random, depth)}:{random.choice(('', ':', ':-1'))}]"


def _method(random: Random, depth: int) -> str:
    return f"{_attribute(random, depth)}({_arguments(random, depth)})"


def _call(random: Random, depth: int) -> str:
    function = random.choice((_name, _name, _name, _member, _operand))
    return f"{function(random, depth)}({_arguments(random, depth)})"


def _arguments(random: Random, depth: int) -> str:
    parts = [random_expression(random, depth) for _ in range(random.randrange(4))]
    if random.random() < 0.2:
        parts.append(random.choice(("key=", "default=", "start=", "*", "**", "maxsplit=")) + _operand(random, depth))
    return ", ".join(parts)


def _binary(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)} {random.choice(_BINARY)} {_operand(random, depth)}"


def _comparison(random: Random, depth: int) -> str:
    text = _operand(random, depth)
    for _ in range(random.randint(1, 2)):
        text += f" {random.choice(_COMPARISONS)} {_operand(random, depth)}"
    return text


def _logic(random: Random, depth: int) -> str:
    return f" {random.choice(('and', 'or'))} ".join(_operand(random, depth) for _ in range(random.randint(2, 3)))


def _unary(random: Random, depth: int) -> str:
    return random.choice(("not ", "-", "+", "~")) + _operand(random, depth)


def _condition(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)} if {_operand(random, depth)} else {_operand(random, depth)}"


def _display(random: Random, depth: int) -> str:
    parts = [_maybe_starred(random, depth) for _ in range(random.randrange(4))]
    begin, end = random.choice(("[]", "()", "{}"))
    return begin + ", ".join(parts) + ("," if parts else "") + end


def _maybe_starred(random: Random, depth: int) -> str:
    return random.choice(("", "", "", "*")) + _operand(random, depth)


def _table(random: Random, depth: int) -> str:
    pairs = [f"{_operand(random, depth)}: {random_expression(random, depth)}" for _ in range(random.randrange(3))]
    return "{" + ", ".join([*pairs, *random.choice(((), (f"**{_operand(random, depth)}",)))]) + "}"


def _comprehension(random: Random, depth: int) -> str:
    begin, end = random.choice(("[]", "()", "{}"))
    element = random.choice((random_expression, _pair))(random, depth) if begin == "{" else _operand(random, depth)
    return begin + element + "".join(_for(random, depth) for _ in range(random.randint(1, 3))) + end


def _pair(random: Random, depth: int) -> str:
    return f"{_operand(random, depth)}: {_operand(random, depth)}"


def _for(random: Random, depth: int) -> str:
    target = random.choice(("x", "y", "_", "x, y", "x, *y", "[x, *y]", "(x, [y, *_])", "run", "len", "y", "x", "x"))
    return f" for {target} in {_operand(random, depth)}" + random.choice(("", "", f" if {_operand(random, depth)}"))


def _lambda(random: Random, depth: int) -> str:
    parameters = random.choice(("", "x", "x=1", "*x", "**x", "x, /, y=2", "*, y", "x, *y, **_", "run"))
    return f"(lambda {parameters}: {random_expression(random, depth)})"


def _assigned(random: Random, depth: int) -> str:
    return f"({random.choice(('x', 'y', 'run', 'len', '_'))} := {random_expression(random, depth)})"


def _formatted(random: Random, depth: int) -> str:
    spec = random.choice(("", "!r", "!a", ":5", ":.3f", ":>{9}", ":999", ":99999", ":%Y", ":{x}"))
    return f"f'''a{{({random_expression(random, depth)}){spec}}}b'''"


def _operand(random: Random, depth: int) -> str:
    return f"({random_expression(random, depth)})" if depth > 0 else random_expression(random, 0)


_MEMBERS: Final = (
    "pi",
    "factorial",
    "gamma",
    "fsum",
    "hypot",
    "gcd",
    "pow",
    "random",
    "choice",
    "betavariate",
    "digits",
)
_LEAVES: Final[Sequence[_Rule]] = (_literal, _literal, _variable, _variable, _name, _member)
_RULES: Final[Sequence[_Rule]] = (
    *(_literal, _variable, _key, _key, _attribute, _item, _slice, _method, _method, _call, _call, _call),
    *(_binary, _binary, _comparison, _comparison, _logic, _unary, _condition, _display, _table),
    *(_comprehension, _comprehension, _lambda, _assigned, _formatted),
)
_SEEDS: Final = (
    *(attack.text for attack in (*ESCAPES, *EXHAUSTIONS) if len(attack.text) <= MUTATED_CHARACTERS_MAX),
    *(row["q"] for row in json.loads((GOLDEN / "query-results.json").read_text(encoding="utf-8")) if row["q"]),
)
