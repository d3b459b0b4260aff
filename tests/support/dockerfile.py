"""The instructions of a Dockerfile, as far as ours uses them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Instruction(NamedTuple):
    """One instruction with its continuation lines joined."""

    name: str
    rest: str

    @property
    def flags(self) -> Mapping[str, str]:
        """What begins with `--`."""
        return dict(re.findall(r"(?:^|\s)--([a-z-]+)=(\S+)", self.rest.split(" CMD ")[0]))

    @property
    def words(self) -> Sequence[str]:
        """Everything but flags; of the JSON form its elements."""
        text = re.sub(r"^(--[a-z-]+=\S+\s+)+", "", self.rest)
        text = text.removeprefix("CMD ")
        return json.loads(text) if text.startswith("[") else shlex.split(text)


class Stage(NamedTuple):
    """What stands between one FROM and the next."""

    base: str
    name: str
    instructions: Sequence[Instruction]

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of a name."""
        return [one for one in self.instructions if one.name == name]

    def last(self, name: str) -> Instruction:
        """Return the one that counts."""
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What its ENV instructions set."""
        return dict(word.split("=", 1) for one in self.all("ENV") for word in one.words)


class Dockerfile(NamedTuple):
    """A whole file."""

    arguments: Mapping[str, str]
    """Every ARG and its default, empty when it has none."""
    stages: Sequence[Stage]

    @property
    def final(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]


def read_dockerfile(path: Path) -> Dockerfile:
    """Parse the file."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = [Instruction(*line.split(maxsplit=1)) for line in text.splitlines()]
    arguments = dict((one.rest + "=").split("=")[:2] for one in found if one.name == "ARG")
    stages: list[Stage] = []
    for one in found:
        if one.name == "FROM":
            base, _, name = one.rest.partition(" AS ")
            stages.append(Stage(_filled(base, arguments), name, []))
        elif stages:
            stages[-1] = stages[-1]._replace(instructions=[*stages[-1].instructions, one])
    return Dockerfile(arguments, stages)


def _filled(text: str, arguments: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text)
