"""Search by name as SQL does it."""

from __future__ import annotations

import re
from collections.abc import Callable


def containing(pattern: str) -> Callable[[str], bool]:
    """Return the test of SQL's `LIKE '%pattern%'`: `%` is any text, `_` one character, ASCII case is ignored."""
    # Part after part, each at its first place: unlike one expression with `.*` this never backtracks.
    parts = [re.compile("".join(map(_one, part)), re.DOTALL) for part in pattern.split("%") if part]

    def matches(text: str) -> bool:
        position = 0
        for part in parts:
            found = part.search(text, position)
            if found is None:
                return False
            position = found.end()
        return True

    return matches


def _one(character: str) -> str:
    if character == "_":
        return "."
    is_letter = character.isascii() and character.isalpha()
    return f"[{character.lower()}{character.upper()}]" if is_letter else re.escape(character)
