"""`python -m matyan` is `matyan`."""

from __future__ import annotations

from matyan.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
