"""What a search says at a terminal: what it found, and how. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from matyan.errors import InvalidArgumentError, QuerySyntaxError
from matyan.query.candidates import Choice, Reason
from matyan.query.executor import Candidate
from matyan.query.plan import Plan, describe
from matyan.query.selections import Looked
from matyan.query.syntax import RUN

_REASONS: Final[Mapping[Reason, str]] = {
    Reason.ENOUGH: "the newest runs were enough, the index was not read",
    Reason.PLAN: "the index told which further runs to ask",
    Reason.NO_TERM: "nothing of this query is indexed, all runs were asked",
    Reason.TOO_MANY: "the index names too many runs to be of help, all runs were asked",
    Reason.NO_INDEX: "the index is not complete yet, all runs were asked",
}


def found_lines(candidate: Candidate, word: str) -> Iterator[str]:
    """Yield a line for the run that matches, and in a search of sequences one for each of those that match."""
    yield f"{candidate.run.hash}  {_printable(candidate.run.name)}"
    if word != RUN:
        yield from (f"    {_printable(summary.name)}  {summary.context}" for summary in candidate.summaries)


def route_lines(plan: Plan, choice: Choice, *, asked: int, found: int, seconds: float) -> Iterator[str]:
    """Yield what was planned, and what came of it.

    Args:
        plan: of the query.
        choice: how runs were found beyond the newest ones.
        asked: runs that the query was asked of.
        found: runs that match.
        seconds: that all took.
    """
    yield f"plan   {plan}"
    yield from (f"index  {_looked_line(looked)}" for looked in choice.looked)
    yield f"path   {choice.path}: {_REASONS[choice.reason]}"
    yield f"asked  {asked:,} runs, {found:,} match"
    yield f"time   {seconds * 1000:,.1f} ms"


def refusal_line(error: InvalidArgumentError) -> str:
    """Return why a text is no query, and where in it: columns count from 1, blanks at its ends and `select` do not."""
    if not isinstance(error, QuerySyntaxError):
        return error.message
    said = f"the query is no expression: {error.message}"
    if not error.line:
        return said
    # The text was parsed in parentheses; the first of them stands at column 1 of line 1.
    column = error.offset - 1 if error.line == 1 else error.offset
    return f"{said} (line {error.line}, column {max(1, column)})"


def _looked_line(looked: Looked) -> str:
    result = f"more than {looked.rows_max:,} entries, not used" if looked.found is None else f"{looked.found:,} runs"
    return f"{describe(looked.term)}: {result}"


def _printable(text: str) -> str:
    """Return a text without what a terminal would act upon."""
    return text if text.isprintable() else ascii(text)
