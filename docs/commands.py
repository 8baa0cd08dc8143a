"""A hook of mkdocs: the page of commands is written from the commands themselves, so that it cannot
fall behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PAGE = "reference/commands.md"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    if page.file.src_uri != PAGE:
        return markdown
    from typer.main import get_command

    from medres.cli.app import app

    parts = [markdown]
    for name, command in _verbs(get_command(app), "medres"):
        parts += [f"## {name}", command.help or "", *_parameters(command)]
    return "\n\n".join(part for part in parts if part)


def _verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for verb, inner in command.commands.items():
        is_default = verb == getattr(command, "default_verb", None)
        yield from _verbs(inner, name if is_default else f"{name} {verb}")


def _parameters(command: Any) -> list[str]:
    """One table of arguments and options; nothing where there are none."""
    rows = []
    for one in command.params:
        if one.name == "help":
            continue
        names = (
            ", ".join(f"`{text}`" for text in one.opts)
            if one.param_type_name == "option"
            else f"`{one.name.upper()}`"
        )
        default = one.default
        shown = (
            "required"
            if one.required
            else (
                ""
                if default is None or default is False or default == () or callable(default)
                else f"`{default}`"
            )
        )
        rows.append(f"| {names} | {(one.help or '').replace('|', chr(92) + '|')} | {shown} |")
    return ["\n".join(["| | | default |", "|---|---|---|", *rows])] if rows else []
