"""Pages of docs/reference that are made from tables in the code.

`python -m tests.support.reference` writes them; tests/architecture/test_docs.py refuses any that is out of date.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from matyan import errors, limits

ROOT: Final = Path(__file__).parents[2]
REFERENCE: Final = ROOT / "docs" / "reference"


def limits_page() -> str:
    """Make the table of hard limits: every constant of `matyan/limits.py` with the words that follow it."""
    assert limits.__file__ is not None
    source = Path(limits.__file__).read_text()
    rows = [f"| `{name}` | {getattr(limits, name):,} | {words} |" for name, words in _constants(source)]
    return "\n".join(
        [
            "# Limits",
            "",
            "What correctness rests on; no setting changes it.",
            "The unit ends the name, and `_MAX` is inclusive.",
            "",
            "| limit | value | remark |",
            "|---|---:|---|",
            *rows,
            "",
        ]
    )


def errors_page() -> str:
    """Make the table of error codes: every class of `matyan/errors.py`."""
    classes = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MatyanError) and kind is not errors.MatyanError
    ]
    rows = [f"| `{kind.code}` | `{kind.__name__}` | {(kind.__doc__ or '').splitlines()[0]} |" for kind in classes]
    return "\n".join(
        [
            "# Errors",
            "",
            "The code is contract and stands in answers; the class is where it comes from.",
            "Messages are for people and may change.",
            "",
            "| code | class | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {"limits.md": limits_page, "errors.md": errors_page}


def _constants(source: str) -> Iterator[tuple[str, str]]:
    """Yield (name, docstring after it) of every annotated constant of a module."""
    body = ast.parse(source).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            words = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                words = " ".join(str(following.value.value).split())
            yield statement.target.id, words


if __name__ == "__main__":
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make())
