"""The query language: text -> checked, compiled expression that selects runs or sequences."""

from __future__ import annotations

import ast
import logging
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from matyan.errors import InvalidArgumentError, TooSlowError, UnavailableError
from matyan.query import syntax
from matyan.query.policy import compile_body, make_globals
from matyan.query.reads import resolve
from matyan.query.sandbox import Budget, QueryBudgetError
from matyan.query.syntax import RUN, is_constant
from matyan.query.vocabulary import RANDOM_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matyan.query.names import RunName
    from matyan.runs.model import Run
    from matyan.sequences.model import Summary

logger = logging.getLogger(__name__)

VARIABLES: Final = frozenset({RUN, "metric", "images", "texts", "distributions", "audios", "figures"})
"""What a search evaluates per row; each but `run` is seen beside `run`."""
TURN_SECONDS: Final = 0.0005
"""How long a scan goes from row to row before whoever takes its answers may see to deadlines and to others' turns."""
_SYSTEM_PARAMS: Final = "__system_params"
_NO_FAULTS_OF_ROWS: Final = (QueryBudgetError, UnavailableError, TooSlowError)
"""The search has spent its budget, or the store does not answer: to leave the row out would be a lie."""


Asked = tuple[list[int], int]
"""Which of some further runs are selected, and where to go on, all as indexes."""


class Ask(Protocol):
    """What asks runs a query."""

    def __call__(self, runs: Sequence[Run], summaries: Sequence[Sequence[Summary]], /) -> Iterator[Asked]:
        """Ask a few runs at a time; between them, whoever takes the answers may look at a clock.

        Args:
            runs: the runs.
            summaries: of each, those of its sequences that are known.
        """


class Predicate:
    """One compiled expression."""

    def __init__(self, body: ast.expr, *, parameters: tuple[str, ...], budget: Budget) -> None:
        """Compile; `body` is changed."""
        self._parameters = parameters
        resolved, reads = resolve(body)
        code = compile_body(resolved, parameters)
        names = {**make_globals(budget), **reads}
        # The code's value is the function, as for any module: no eval() in the path of a query.
        self._function = FunctionType(code, names)()
        self._budget = budget

    def matches(self, namespace: Mapping[str, object]) -> bool:
        """Return whether the row that the names stand for is selected. What fails to evaluate is not.

        Args:
            namespace: `run`, and the sequence under the search's own word if the expression is about one.

        Raises:
            QueryBudgetError: the search has used up its time, or this row its steps.
            UnavailableError, TooSlowError: the store, from which some names are read, does not answer.
        """
        arguments = [*map(namespace.__getitem__, self._parameters)]
        self._budget.begin_row()
        try:
            return bool(self._function(*arguments))
        except _NO_FAULTS_OF_ROWS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a query only loses the row (contract)
            _note_lost(error)
            return False

    def of_runs(self, name: RunName) -> Ask:
        """Return what asks which runs, for which `name` stands one after the other, `matches` selects.

        A scan asks a hundred thousand, and most evaluations take half a microsecond and spend no step: to call anything
        for each run that is not the query itself would take as long. So this is one loop over some runs with all that
        it needs at hand. It ends with the first row that spent something, so that each is granted its own steps, or
        when its turn is over: what a row costs without a step, such as a search in a long text, cannot be foreseen.
        """
        function, budget = self._function, self._budget
        steps, now = budget.steps, budget.clock

        def ask(runs: Sequence[Run], summaries: Sequence[Sequence[Summary]]) -> Iterator[Asked]:
            rows = zip(range(len(runs)), runs, summaries, strict=True)
            at = -1
            while at + 1 < len(runs):
                budget.begin_row()
                selected: list[int] = []
                due = now() + TURN_SECONDS
                for at, run, known in rows:
                    name.run, name.summaries, name.known_params = run, known, None  # as `of` does
                    try:
                        if function(name):
                            selected.append(at)
                    except _NO_FAULTS_OF_ROWS:
                        raise
                    except Exception as error:  # noqa: BLE001 - as in `matches`
                        _note_lost(error)
                    if budget.left != steps or now() > due:
                        break
                yield selected, at + 1

        return ask


def _note_lost(error: Exception) -> None:
    """Note why a row is not selected."""
    # The error's kind alone: its text shows values of the row, and making it can fail.
    logger.debug("query failed on a row", extra={"error": type(error).__name__})


class Split(NamedTuple):
    """A query as two predicates: a sequence is selected if and only if its run passes the first and it the second."""

    run: Predicate | None
    """Sees `run` alone. None: every run passes."""
    sequence: Predicate | None
    """None: every sequence passes."""


class Query:
    """A checked query. Belongs to one search in one thread, because its budget does."""

    def __init__(self, text: str, *, variable: str, budget: Budget) -> None:
        """Check and compile; `compile_query` is the door."""
        self.text = text
        self.variable = variable
        self.budget = budget
        self._prepared = syntax.prepare(text, variable=variable)
        self.tree = syntax.check(self._prepared)
        """The checked tree, the default filter included. Not to be changed."""
        self._parameters = (RUN,) if variable == RUN else (RUN, variable)
        self._predicate = self._compile(self._fresh_body())
        self.matches = self._predicate.matches
        """Tells whether a row is selected."""
        self.of_runs = self._predicate.of_runs
        """Returns what tells whether a run is."""

    @cached_property
    def may_read_system_params(self) -> bool:
        """Whether `__system_params` must be in the runs' params; False is certain."""
        if any(isinstance(node, ast.Constant) and node.value == _SYSTEM_PARAMS for node in ast.walk(self.tree)):
            return True
        return any(_is_computed_key(node) for node in ast.walk(self.tree))

    @cached_property
    def split(self) -> Split:
        """The top-level conjunction, cut in what depends on `run` alone and the rest."""
        apart = RANDOM_NAMES | ({self.variable} - {RUN})
        if not apart & _names_read(self.tree):
            return Split(Predicate(self._fresh_body(), parameters=(RUN,), budget=self.budget), None)
        # With `:=`, one conjunct may need what another assigned; so rare that it is not worth a closer look.
        if any(isinstance(node, ast.NamedExpr) for node in ast.walk(self.tree)):
            return Split(None, self._predicate)
        conjuncts = _conjuncts(self._fresh_body())
        about_run = [part for part in conjuncts if not apart & _names_read(part)]
        about_sequence = [part for part in conjuncts if apart & _names_read(part)]
        run = Predicate(_join(about_run), parameters=(RUN,), budget=self.budget) if about_run else None
        return Split(run, self._compile(_join(about_sequence)))

    def _fresh_body(self) -> ast.expr:
        """Return a copy of the tree's body that compilation may change; parsing is faster than copying."""
        return syntax.parse(self._prepared).body

    def _compile(self, body: ast.expr) -> Predicate:
        return Predicate(body, parameters=self._parameters, budget=self.budget)


def compile_query(text: str, *, variable: str, budget: Budget | None = None) -> Query:
    """Return the query that a search's text asks for.

    Args:
        text: as the client sent it; an empty one selects everything that is not archived.
        variable: the word of the search, one of VARIABLES.
        budget: what the search may spend, running from its creation; by default one with the default limits.

    Raises:
        QuerySyntaxError: it is no Python expression; positions as CPython gives them.
        InvalidArgumentError: it uses what queries may not use, or is too large.
    """
    if variable not in VARIABLES:
        raise InvalidArgumentError(f"no search is called {variable!r}")
    return Query(text, variable=variable, budget=Budget() if budget is None else budget)


def _conjuncts(body: ast.expr) -> list[ast.expr]:
    """Return the operands of the conjunction at the top, in order, nested ones flattened."""
    if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And):
        return [part for value in body.values for part in _conjuncts(value)]
    return [body]


def _join(conjuncts: list[ast.expr]) -> ast.expr:
    if len(conjuncts) == 1:
        return conjuncts[0]
    return ast.copy_location(ast.BoolOp(op=ast.And(), values=conjuncts), conjuncts[0])


def _is_computed_key(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return not isinstance(node.slice, ast.Slice) and not is_constant(node.slice)
    return isinstance(node, ast.Attribute) and node.attr == "get"


def _names_read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
