"""`python -m medres.evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 success, 1 failure, 2 wrong usage)."""
    from medres.evaluate.cli import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
