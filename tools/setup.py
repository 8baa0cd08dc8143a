"""Make .venv at the root of the checkout, with medres in editable form, and run something in it.

    python tools/setup.py                  make .venv, or bring it up to date
    python tools/setup.py demo|test|...    the same, then a task of the table TASKS

Linux, macOS and Windows, started with any Python from 3.9. The environment gets Python 3.11, 3.12
or 3.13: this one, or another that is found, or that of the variable PYTHON. MEDRES_TF=gpu installs
the CUDA build of TensorFlow. On Windows: py tools\\setup.py demo
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
SOURCES = ("pyproject.toml", "constraints.txt", "tools/setup.py")  # .venv is older: install again
PYTEST = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
TASKS = {
    "demo": [["-m", "medres", "demo", "--out", "medres-demo"]],
    "test": [PYTEST],
    "test-long": [["-m", "pytest", "-m", "long", "--timeout", "7200"]],
    "check": [
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "ruff", "check", "."],
        ["-m", "mypy"],
        PYTEST,
    ],
    "coverage": [[*PYTEST, "--cov", "--cov-report=term"]],
    "docs": [["-m", "mkdocs", "build", "--quiet", "--strict"]],
}
ASK_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"

Run = Callable[..., Any]  # subprocess.run, or a replacement in tests


def candidates(platform: str, chosen: str | None, running: str) -> list[list[str]]:
    """Commands that may start a Python of the right version, best first.

    platform: sys.platform. chosen: of the variable PYTHON, or None. running: this Python.
    """
    if chosen:
        return [[chosen]]
    newest_first = tuple(reversed(VERSIONS))
    if platform == "win32":  # the launcher knows every Python that is installed
        return [[running], *(["py", "-" + version] for version in newest_first), ["python"]]
    return [[running], *(["python" + version] for version in newest_first), ["python3"], ["python"]]


def environment_python(folder: Path, platform: str) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if platform == "win32" else "bin/python")


def is_supported(command: list[str], run: Run = subprocess.run) -> bool:
    """Whether a command starts a Python of a version that medres supports."""
    return _answer([*command, "-c", ASK_VERSION], run) in VERSIONS


def is_whole(python: Path, run: Run = subprocess.run) -> bool:
    """Whether an environment can be installed into. One that was only half made has no pip."""
    return (
        python.exists()
        and is_supported([str(python)], run)
        and _answer([str(python), "-m", "pip", "--version"], run) is not None
    )


def is_current(stamp: Path, sources: Iterable[Path]) -> bool:
    """Whether the last installation is newer than everything that it depends on."""
    return stamp.exists() and all(s.stat().st_mtime <= stamp.stat().st_mtime for s in sources)


def _answer(command: list[str], run: Run) -> str | None:
    """What a command prints, or None where it fails or does not exist."""
    try:
        done = run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def make_environment(
    folder: Path, platform: str, chosen: str | None, run: Run = subprocess.run
) -> Path:
    """The interpreter of a virtual environment in `folder`; one that is half made is removed."""
    python = environment_python(folder, platform)
    if is_whole(python, run):
        return python
    running = getattr(sys, "_base_executable", sys.executable)  # not the one in `folder`
    commands = [c for c in candidates(platform, chosen, running) if is_supported(c, run)]
    if not commands:
        raise SystemExit(
            "medres needs Python 3.11, 3.12 or 3.13, and found none of them. Install one, or name "
            "it in the variable PYTHON: make PYTHON=/path/to/python test"
        )
    for command in commands:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"medres: making {folder.name} with {' '.join(command)}", flush=True)
        run([*command, "-m", "venv", str(folder)])
        if is_whole(python, run):
            return python
    shutil.rmtree(folder, ignore_errors=True)
    version = _answer([*commands[0], "-c", ASK_VERSION], run)
    raise SystemExit(
        f"medres: {' '.join(commands[0])} cannot make virtual environments. On Debian and Ubuntu, "
        f"run apt install python{version}-venv, then this command again"
    )


def install(python: Path, extra: str, run: Run = subprocess.run) -> None:
    """medres with its development tools, in the versions of constraints.txt."""
    print(
        "medres: installing the package and its development tools into .venv (about 1.5 GB, one "
        "to five minutes)"
    )
    options = ["--quiet", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    package = f".[{extra},dev]"
    done = run(
        [str(python), "-m", "pip", "install", *options, "--editable", package], cwd=str(ROOT)
    )
    if done.returncode != 0:
        raise SystemExit("medres: the installation failed; its reason stands above")


def main(arguments: list[str]) -> int:
    unknown = [name for name in arguments if name not in TASKS]
    if unknown:
        raise SystemExit("medres: no task {}: choose {}".format(unknown[0], ", ".join(TASKS)))
    stamp = ROOT / ".venv" / ".ready"
    python = environment_python(ROOT / ".venv", sys.platform)
    if not (python.exists() and is_current(stamp, [ROOT / name for name in SOURCES])):
        python = make_environment(ROOT / ".venv", sys.platform, os.environ.get("PYTHON"))
        install(python, os.environ.get("MEDRES_TF", "cpu"))
        stamp.touch()
        print("medres: ready")
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    for name in arguments:
        for command in TASKS[name]:
            code = subprocess.call([str(python), *command], cwd=str(ROOT))
            if code != 0:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
