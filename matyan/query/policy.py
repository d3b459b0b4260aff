"""QueryPolicy: RestrictedPython's transformation, with operators, calls, displays and loops bounded by our guards."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Final

from RestrictedPython.compile import compile_restricted_eval
from RestrictedPython.Guards import guarded_iter_unpack_sequence
from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

from matyan.errors import InvalidArgumentError
from matyan.query.reads import Resolved
from matyan.query.syntax import FILENAME, is_constant, without_warnings
from matyan.query.vocabulary import make_guards, make_names, read_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import CodeType

    from matyan.query.sandbox import Budget

# ruff: noqa: N802 - ast.NodeVisitor finds methods by the names of node classes

_GUARDED: Final[dict[type[ast.operator], str]] = {
    ast.Mult: "_multiply_",
    ast.Pow: "_power_",
    ast.LShift: "_shift_left_",
    ast.Mod: "_modulo_",
}
_PLAIN: Final = {
    ast.Add: ("_add_", operator.add),
    ast.Sub: ("_subtract_", operator.sub),
    ast.Div: ("_divide_", operator.truediv),
    ast.FloorDiv: ("_floor_divide_", operator.floordiv),
    ast.RShift: ("_shift_right_", operator.rshift),
    ast.BitAnd: ("_and_", operator.and_),
    ast.BitOr: ("_or_", operator.or_),
    ast.BitXor: ("_xor_", operator.xor),
    ast.MatMult: ("_matrix_multiply_", operator.matmul),
}
_OPERATORS: Final[dict[type[ast.operator], str]] = _GUARDED | {kind: name for kind, (name, _) in _PLAIN.items()}


def make_globals(budget: Budget) -> dict[str, object]:
    """Return all that the compiled code of one query can reach."""
    guards = make_guards(budget)
    return {
        "__builtins__": {},
        "_getattr_": read_attribute,
        "_getitem_": guards.get_item,
        "_getiter_": guards.iterate,
        "_iter_unpack_sequence_": guarded_iter_unpack_sequence,
        "_call_": guards.call,
        "_step_": guards.step,
        "_charge_": guards.charge,
        "_format_": guards.format,
        "_concatenate_": guards.concatenate,
        "_spread_": guards.spread,
        "_make_set_": guards.make_set,
        "_merge_": guards.merge,
        "_multiply_": guards.multiply,
        "_power_": guards.power,
        "_shift_left_": guards.shift_left,
        "_modulo_": guards.modulo,
        **{name: guards.binary(operation) for name, operation in _PLAIN.values()},
        **make_names(guards),
    }


def compile_body(body: ast.expr, parameters: Sequence[str]) -> CodeType:
    """Compile a checked expression, which is changed, to code whose value is a function of the parameters.

    As a function's locals, variables are fast, and what `:=` assigns is gone with the call.

    Raises:
        InvalidArgumentError: RestrictedPython refuses it.
    """
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(name) for name in parameters], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    function = ast.copy_location(ast.Lambda(args=arguments, body=body), body)
    tree = ast.fix_missing_locations(ast.Expression(body=function))
    try:
        with without_warnings():
            result = compile_restricted_eval(tree, filename=FILENAME, policy=QueryPolicy)
    except RecursionError as error:
        raise InvalidArgumentError("the query nests too deep") from error
    if result.errors or result.code is None:
        raise InvalidArgumentError(f"the query is refused: {'; '.join(result.errors)}")
    return result.code


class QueryPolicy(RestrictingNodeTransformer):
    """Rewrites what could take long or grow large to calls of guards."""

    _outermost: ast.expr | None = None
    _repeats = 0
    """How many lambdas and comprehensions are around the node: there, even constant displays are paid for."""

    def visit_Expression(self, node: ast.Expression) -> ast.AST:
        """Remember the function that the whole query is: it is no lambda of the query's own."""
        self._outermost = node.body
        return self.node_contents_visit(node)

    def visit_Resolved(self, node: Resolved) -> ast.AST:
        """Let through what is ours."""
        return node.expression

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Check the name, and leave `print` an unknown one."""
        if node.id in ("print", "printed"):
            return node
        return _one(super().visit_Name(node))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Rewrite to `_getattr_(value, "name")`; unlike the inherited one, without going over the value once more."""
        name = node.attr
        if (name.startswith("_") and name != "_") or name.endswith("__roles__") or name in INSPECT_ATTRIBUTES:
            self.error(node, f'"{name}" is an invalid attribute name')
        visited = self.node_contents_visit(node)
        return _call(node, "_getattr_", visited.value, _constant(node, name))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """Rewrite to `_multiply_(left, right)` and the like."""
        visited = self.node_contents_visit(node)
        return _call(node, _OPERATORS[type(node.op)], visited.left, visited.right)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rewrite to `_call_(function, ...)`."""
        visited = super().visit_Call(node)
        assert isinstance(visited, ast.Call)
        if isinstance(visited.func, ast.Name) and visited.func.id == "_apply_":
            visited.func.id = "_call_"
            return visited
        visited.args.insert(0, visited.func)
        visited.func = ast.copy_location(ast.Name("_call_", ast.Load()), node)
        return visited

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Rewrite the body to `_step_(collected arguments) or body`."""
        if node is self._outermost:
            return self.node_contents_visit(node)
        self._repeats += 1
        visited = _one(super().visit_Lambda(node))
        self._repeats -= 1
        assert isinstance(visited, ast.Lambda)
        collected = [
            ast.copy_location(ast.Name(arg.arg, ast.Load()), node)
            for arg in (node.args.vararg, node.args.kwarg)
            if arg is not None
        ]
        step = _call(node, "_step_", *collected)
        visited.body = ast.copy_location(ast.BoolOp(op=ast.Or(), values=[step, visited.body]), node)
        return visited

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        """Rewrite to `*_spread_(values)`, unless it is a target."""
        visited = self.node_contents_visit(node)
        if isinstance(node.ctx, ast.Load):
            visited.value = _call(node.value, "_spread_", visited.value)
        return visited

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        """Unpack a list target as the tuple target that it might be, whose elements are counted."""
        node.target = _as_tuple(node.target)
        visited = self.guard_iter(node)
        assert isinstance(visited, ast.AST)
        return visited

    def visit_List(self, node: ast.List) -> ast.AST:
        """Charge for the display."""
        return self._display(node)

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        """Charge for the display, unless it is a target."""
        return self._display(node)

    def visit_Set(self, node: ast.Set) -> ast.AST:
        """Charge for the display; rewrite one with `*` in it to `_make_set_([...])`."""
        if any(isinstance(element, ast.Starred) for element in node.elts):
            elements = ast.copy_location(ast.List(elts=node.elts, ctx=ast.Load()), node)
            return _call(node, "_make_set_", self._display(elements))
        return self._display(node)

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        """Charge for the display; rewrite one with `**` in it to `_charge_(_merge_(...))`."""
        if None in node.keys:
            tables = [_one(self.visit(table)) for table in _tables(node)]
            return _call(node, "_charge_", _call(node, "_merge_", *tables))
        return self._display(node)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        """Charge for the whole."""
        return self._comprehension(node, _one(self._repeated(node)))

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        """Charge for the whole."""
        return self._comprehension(node, _one(self._repeated(node)))

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        """Charge for the whole."""
        return self._comprehension(node, _one(self._repeated(node)))

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        """Charge for each turn only."""
        return _one(self._repeated(node))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Rewrite to `_concatenate_(part, _format_(value, conversion, spec), ...)`."""
        parts: list[ast.expr] = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                value = _one(self.visit(part.value))
                spec = _constant(node, "") if part.format_spec is None else _one(self.visit(part.format_spec))
                parts.append(_call(node, "_format_", value, _constant(node, part.conversion), spec))
            else:
                parts.append(part)
        return _call(node, "_concatenate_", *parts)

    def _repeated(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> object:
        self._repeats += 1
        visit = getattr(super(), f"visit_{type(node).__name__}")
        visited: object = visit(node)
        self._repeats -= 1
        return visited

    def _comprehension(self, node: ast.expr, visited: ast.expr) -> ast.AST:
        return _call(node, "_charge_", visited)

    def _display(self, node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> ast.expr:
        is_free = is_constant(node) and not self._repeats
        visited = self.node_contents_visit(node)
        is_target = isinstance(node, ast.List | ast.Tuple) and not isinstance(node.ctx, ast.Load)
        return _one(visited) if is_free or is_target else _call(node, "_charge_", visited)


def _as_tuple(target: ast.expr) -> ast.expr:
    """Return the target with tuples for lists, which mean the same, at any depth."""
    if isinstance(target, ast.Starred):
        return ast.copy_location(ast.Starred(_as_tuple(target.value), target.ctx), target)
    if isinstance(target, ast.List | ast.Tuple):
        return ast.copy_location(ast.Tuple([_as_tuple(element) for element in target.elts], target.ctx), target)
    return target


def _tables(node: ast.Dict) -> Iterator[ast.expr]:
    """Yield what a display with `**` in it merges, in order."""
    pairs = ast.copy_location(ast.Dict(keys=[], values=[]), node)
    for key, value in zip(node.keys, node.values, strict=True):
        if key is not None:
            pairs.keys.append(key)
            pairs.values.append(value)
            continue
        if pairs.keys:
            yield pairs
            pairs = ast.copy_location(ast.Dict(keys=[], values=[]), node)
        yield value
    if pairs.keys:
        yield pairs


def _call(place: ast.expr, name: str, *arguments: ast.expr) -> ast.Call:
    function = ast.copy_location(ast.Name(name, ast.Load()), place)
    return ast.copy_location(ast.Call(func=function, args=list(arguments), keywords=[]), place)


def _constant(place: ast.expr, value: str | int) -> ast.Constant:
    return ast.copy_location(ast.Constant(value), place)


def _one(visited: object) -> ast.expr:
    """Return the result of a visit, which is one expression in an expression."""
    assert isinstance(visited, ast.expr)
    return visited
