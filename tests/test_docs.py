"""What the documentation shows is what happens: its code runs, its tests exist, its commands have
help.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from helpers import fails, medres

from medres.cli.console import EXPLAINED, verb
from medres.errors import MedresError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECRET = "yellow-feathers"
SHORT = (
    "how-to/evaluate.md",
    "how-to/evaluate-boxes.md",
    "how-to/evaluate-masks.md",
)
LONG = (
    # 10 s; by default tests/medres/cli/test_reader_commands.py runs the same commands
    "how-to/reader-studies.md",
    "explanation/residual-learning.md",  # trains; by default tests/medres/experiments does so
    "how-to/augment.md",
    *("tutorial.md", "how-to/serve.md", "how-to/ct.md", "coming-from.md"),
    *("how-to/keras-fit.md", "how-to/train-in-python.md", "explanation/dense-connections.md"),
)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text())


def run_page(page: str, folder: Path) -> None:
    """Every block of a page from top to bottom: bash line by line, Python in one process a block
    that remembers the others.
    """
    earlier = ""
    environment = os.environ | {
        "CANARY": SECRET,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for language, code in blocks(page):
        if language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", code]
        else:
            imports = "\n".join(
                line for line in earlier.splitlines() if line.startswith(("import ", "from "))
            )
            command = [sys.executable, "-c", f"{imports}\n{code}"]
            earlier += code
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stderr}"
        assert SECRET not in done.stdout + done.stderr, (
            "the environment, with its keys, was printed"
        )


@pytest.mark.parametrize("page", SHORT)
def test_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    run_page(page, tmp_path)


@pytest.mark.long
def test_code_of_the_tutorial_and_of_what_follows_it_runs(tmp_path: Path) -> None:
    for page in LONG:
        run_page(page, tmp_path)


def test_no_page_with_code_is_left_out() -> None:
    pages = {
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if BLOCK.search(path.read_text())
    }
    assert pages <= {*SHORT, *LONG}


@pytest.mark.parametrize(
    "room",
    [
        "data_pipelines",
        "data_pipelines.augment",
        "medres",
        "medres.backbones",
        "medres.evaluate",
        "medres.explain",
        "medres.experiments",
        "medres.results",
    ],
)
def test_every_public_name_stands_in_the_reference(room: str) -> None:
    listed = "".join(path.read_text() for path in (DOCS / "reference").glob("*.md"))
    modules = {"backbones", "evaluate", "experiments", "study"}  # rooms, with pages of their own
    names = [name for name in importlib.import_module(room).__all__ if name not in modules]
    assert [
        name for name in names if not re.search(rf"(^::: .*\.|`){name}(`|$)", listed, re.MULTILINE)
    ] == []


def test_every_supported_input_names_a_test_that_exists() -> None:
    rows = [
        line
        for line in (DOCS / "supported-inputs.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    named = [
        match for row in rows if (match := re.search(r"`([\w/]*test_\w+\.py)::(\w+)` \|$", row))
    ]
    assert len(named) == sum(not row.startswith("| input") for row in rows)
    for match in named:
        assert f"def {match[2]}(" in (ROOT / "tests" / "data_pipelines" / match[1]).read_text(), (
            match[0]
        )


def test_commands_in_the_docs_exist() -> None:
    from typer.main import get_command

    from medres.cli.app import app

    verbs = set(get_command(app).commands)
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for name in re.findall(r"`medres (\w+)", page.read_text()):
            assert name in verbs, f"{page.name}: medres {name}"


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
]
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_of(text: str) -> list[list[str]]:
    """The words of each command of medres in the blocks of a page, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", "\n".join(FENCED.findall(text))).splitlines()
    lines = [line.removeprefix("$ ").strip() for line in lines]
    # A table of commands has its explanations two spaces apart.
    lines = [line.partition("   ")[0] for line in lines if re.match(r"medres [a-z]", line)]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def unknown_options(words: list[str]) -> list[str]:
    """The verb of a command or its options, where they do not exist."""
    from typer.main import get_command

    from medres.cli.app import app

    command = get_command(app)
    while hasattr(command, "commands") and words:
        if words[0] not in command.commands and command.name == "serve":
            words = ["run", *words]  # its default
        if words[0] not in command.commands:
            return words[:1]
        command, words = command.commands[words[0]], words[1:]
    options = {text for one in command.params for text in (*one.opts, *one.secondary_opts)}
    used = [
        word.partition("=")[0].strip("[](),") for word in words if word.startswith(("--", "[--"))
    ]
    return [word for word in used if word not in options | {"--help"}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_options_of_commands_in_blocks_exist(page: Path) -> None:
    """Blocks with placeholders (SOURCE, WORK) cannot run; what they write exists all the same."""
    wrong = [
        (words, bad) for words in commands_of(page.read_text()) if (bad := unknown_options(words))
    ]
    assert wrong == []


def test_a_wrong_option_is_found() -> None:
    page = "```text\nmedres ingest A \\\n  --label b.csv  # no such option\nmedres melt A\n```\n"
    assert [unknown_options(words) for words in commands_of(page)] == [["--label"], ["melt"]]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, made as mkdocs makes them, and those that it names."""
    text = FENCED.sub("", page.read_text())
    heads = re.findall(r"^#+ (.+?)(?: \{#(\w+)\})?$", text, re.MULTILINE)
    words = [(re.sub(r"[^\w\s-]", "", head).strip().lower(), given) for head, given in heads]
    return {given or re.sub(r"[-\s]+", "-", head) for head, given in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_a_file_and_to_a_heading(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        if target.startswith("http"):
            continue
        if not other.exists() or (
            anchor and other.suffix == ".md" and anchor not in anchors_of(other)
        ):
            wrong.append(target)
    assert wrong == []


def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "read_image"
        in (tmp_path / "site" / "reference" / "data_pipelines" / "index.html").read_text()
    )
    commands = (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()
    assert all(f">medres {verb}" in commands for verb in ("ingest", "evaluate", "study depth"))
    assert all(
        option in commands for option in ("--splits-from", "--operating-point", "--pool-label")
    )
    assert options_without_a_row(commands) == []
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"", "how-to/upgrade/", "capabilities/", "reference/commands/"} <= found
    page = (tmp_path / "site" / "troubleshooting" / "index.html").read_text()
    assert [anchor for anchor in EXPLAINED.values() if f'id="{anchor}"' not in page] == []


def options_without_a_row(page: str) -> list[str]:
    """Commands without a heading on the page of commands, and their options without a row there."""
    from typer.main import get_command

    from medres.cli.app import app

    lacking = []
    waiting = list(get_command(app).commands.items())
    while waiting:
        name, command = waiting.pop()
        if hasattr(command, "commands"):
            default = getattr(command, "default_verb", None)
            waiting += [
                (name if inner == default else f"{name} {inner}", one)
                for inner, one in command.commands.items()
            ]
            continue
        _, heading, rest = page.partition(f">medres {name}<")
        section = rest.partition("<h2")[0]
        options = {text for one in command.params for text in one.opts if text.startswith("--")}
        lacking += [name] if not heading else []
        lacking += [f"{name} {text}" for text in options - {"--help"} if f">{text}<" not in section]
    return lacking


def test_every_explained_code_has_a_heading() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    anchors = re.findall(r"^### .+ \{#(\w+)\}$", text, re.MULTILINE)
    assert len(anchors) == len(set(anchors)) == text.count("\n### ")
    no_failed_command = {
        *("out_of_distribution", "rotated", "exploratory", "several_patients", "decoder_crashed")
    }
    assert {*EXPLAINED.values()} == {*anchors} - no_failed_command


# To be removed as soon as every room gives its raises these codes.
@pytest.mark.parametrize("code", EXPLAINED)
def test_every_explained_code_is_raised_somewhere(code: str) -> None:
    sources = (
        path
        for room in ("medres", "data_pipelines")
        for path in (ROOT / room).rglob("*.py")
        if path.name != "console.py"
    )
    assert any(f'code="{code}"' in path.read_text() for path in sources)


@pytest.mark.parametrize("code", EXPLAINED)
def test_a_message_leads_to_its_heading(
    code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def command() -> None:
        raise MedresError("something is wrong", code=code)

    monkeypatch.delenv("MEDRES_DEBUG", raising=False)
    with pytest.raises(typer.Exit):
        verb(command)()
    pointer = f"[docs/troubleshooting.md#{EXPLAINED[code]}]"
    assert capsys.readouterr().err == f"medres: something is wrong {pointer}\n"


def test_a_failed_command_leads_to_its_heading(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path;nodule\na.dcm;1\n")
    message = fails(medres("ingest", tmp_path, "--labels", labels, "--out", tmp_path / "work"))
    assert message.strip().endswith("[docs/troubleshooting.md#semicolons]")
