"""`python -m medres` and the `medres` command."""

from __future__ import annotations


def main() -> None:
    from medres.cli.app import app

    app()


if __name__ == "__main__":
    main()
