"""Run a script of tests.support, or a command of the released client, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CLIENT: Final = Path(sys.executable).with_name("matyan-client")
SCRIPT_SECONDS_MAX: Final = 100.0


def run_module(module: str, *arguments: str, warns: bool = False) -> str:
    """Run a script, which must end well, and without a warning unless it `warns`; return its output."""
    output = run_command(sys.executable, "-m", f"tests.support.{module}", *arguments)
    assert warns or "WARNING" not in output, output
    assert "ERROR" not in output, output
    return output


def run_client(*arguments: str) -> str:
    """Run `matyan-client <arguments>`, which must end well; return what it printed, warnings among it."""
    return run_command(str(CLIENT), *arguments)


def run_command(*command: str) -> str:
    """Run a command, which must end well; return its output and its errors in one text."""
    process = subprocess.run(
        command,
        cwd=ROOT,
        env=_environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SCRIPT_SECONDS_MAX,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def _environment() -> dict[str, str]:
    """The environment without settings of the one who runs the tests, and without certificates.

    Each handle of a run makes a client that loads those of all authorities, in 60 ms: on loopback none is needed.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MATYAN_") and "proxy" not in name.lower() and name != "SSL_CERT_FILE"
    }
    return {**kept, "LOGURU_LEVEL": "WARNING", "SSL_CERT_DIR": str(Path(__file__).parent)}
