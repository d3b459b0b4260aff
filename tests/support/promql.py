"""What a PromQL expression asks for: its series, and the labels that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import promql_parser

GRAFANA_RANGE: Final = "$__rate_interval"
"""Grafana's variable for a range that fits the panel."""


class Asked(NamedTuple):
    """One series that an expression selects."""

    name: str
    labels: frozenset[str]
    """Labels that are matched, or that an aggregation around it keeps."""
    functions: tuple[str, ...]
    """Functions around it, the innermost last."""


def asked(expression: str) -> list[Asked]:
    """Return every series of an expression.

    Raises:
        ValueError: it is no PromQL.
    """
    return list(_walk(promql_parser.parse(expression.replace(GRAFANA_RANGE, "5m")), frozenset(), ()))


def named_in_text(text: str) -> set[str]:
    """Return the labels that a legend or an annotation shows: `{{role}}`, `{{ $labels.role }}`."""
    return set(re.findall(r"\{\{(?: \$labels\.)?\s*([a-z_]+)\s*\}\}", text))


def _walk(node: Any, labels: frozenset[str], functions: tuple[str, ...]) -> Iterator[Asked]:
    match node:
        case promql_parser.VectorSelector():
            matched = {matcher.name for matcher in node.matchers.matchers}
            yield Asked(str(node.name), labels | matched, functions)
        case promql_parser.MatrixSelector():
            yield from _walk(node.vector_selector, labels, functions)
        case promql_parser.AggregateExpr():
            kept = frozenset(node.modifier.labels) if node.modifier else frozenset()
            yield from _walk(node.expr, labels | kept, functions)
        case promql_parser.Call():
            for argument in node.args:
                yield from _walk(argument, labels, (*functions, node.func.name))
        case promql_parser.BinaryExpr():
            yield from _walk(node.lhs, labels, functions)
            yield from _walk(node.rhs, labels, functions)
        case promql_parser.ParenExpr():
            yield from _walk(node.expr, labels, functions)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise TypeError(f"the tests know no {type(node).__name__}: add it")
