"""A small disk that can be filled up and emptied again."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = 48 * 1024 * 1024
_PIECE: Final = bytes(256 * 1024)


class SmallDisk:
    """A directory on a disk of its own in memory; a plain directory that never fills where none can be mounted."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(path)]
        try:
            self.is_small = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            self.is_small = False
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        if not self.is_small:
            return
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(_PIECE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.is_small:
            subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True, check=False)
            self.is_small = False
