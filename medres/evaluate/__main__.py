"""`python -m medres.evaluate`: the same command as `medres evaluate`."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 success, 1 failure, 2 wrong usage)."""
    from medres.cli.app import app

    arguments = sys.argv[1:] if argv is None else argv
    try:
        app(args=["evaluate", *arguments], prog_name="medres")
    except SystemExit as stop:
        return int(stop.code or 0)
    except Exception:  # noqa: BLE001 - only --debug lets an exception through
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
