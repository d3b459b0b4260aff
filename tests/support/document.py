"""The OpenAPI document of a running server: its operations, for tests that call every one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

METHODS: Final = ("get", "put", "post", "delete")


@dataclass(frozen=True)
class Operation:
    """One operation; `path` with its parameters in braces."""

    method: str
    path: str
    description: Mapping[str, Any]

    @property
    def is_matyan(self) -> bool:
        """Whether its errors have Matyan's shape."""
        return self.path.startswith("/api/v1/")

    @property
    def takes_body(self) -> bool:
        """Whether it reads a JSON body."""
        return "application/json" in self.description.get("requestBody", {}).get("content", ())

    def parameters(self, where: str) -> dict[str, Mapping[str, Any]]:
        """Return name -> schema of its parameters in `path`, `query` or `header`."""
        return {each["name"]: each["schema"] for each in self.description.get("parameters", ()) if each["in"] == where}

    def target(self, value: str = "none") -> str:
        """Return the path with every parameter replaced by `value`, which must be encoded already."""
        path = self.path
        for name in self.parameters("path"):
            path = path.replace(f"{{{name}}}", value)
        return path


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """Return all operations of a document."""
    return [
        Operation(method.upper(), path, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
