"""Where an object's file lies: directories and names are hashes, so no key, however odd, can leave the root.

    objects/<project>/<group>/<object>   each the start of a SHA-256

A key's group is its text up to and including the second slash, `<project>/<run id>/` by convention; a key with fewer
slashes is a group of its own. Deleting or listing a run looks at one directory, a project at its own directories.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from matyan.engines.blob.objects import encode_key

_NAME_DIGITS: Final = 40
_GROUP_SLASHES: Final = 2


def group_of(key: str) -> str:
    """Return the key's group. No group's text lies inside another's keys, so groups in order give keys in order."""
    parts = key.split("/", _GROUP_SLASHES)
    return key if len(parts) <= _GROUP_SLASHES else f"{parts[0]}/{parts[1]}/"


def is_within_group(prefix: str) -> bool:
    """Return whether all keys with this prefix are of one group."""
    return prefix.count("/") >= _GROUP_SLASHES


def group_directory(objects: Path, group: str) -> Path:
    """Return the directory of a group."""
    return project_directory(objects, group) / _name(group)


def project_directory(objects: Path, prefix: str) -> Path:
    """Return the directory of all keys with the same text before the first slash."""
    return objects / _name(prefix.split("/", 1)[0])


def object_path(objects: Path, key: str) -> Path:
    """Return the file of an object."""
    return group_directory(objects, group_of(key)) / _name(key)


def directories_under(objects: Path, prefix: str) -> list[Path]:
    """Return every group directory that may hold keys with this prefix, in no order.

    Keys shorter than two slashes lie outside the directory of their longer namesakes, hence the project scan.
    """
    if is_within_group(prefix):
        directory = group_directory(objects, group_of(prefix))
        return [directory] if directory.is_dir() else []
    projects = [project_directory(objects, prefix)] if "/" in prefix else _subdirectories(objects)
    return [group for project in projects for group in _subdirectories(project)]


def _subdirectories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:  # tells directories without a look at each
            return [path / entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


def _name(text: str) -> str:
    return hashlib.sha256(encode_key(text)).hexdigest()[:_NAME_DIGITS]
