"""Build the wheel and the source archive, and try them in clean environments.

    python tools/check_release.py           everything below, for each Python that is found
    python tools/check_release.py build     dist/*.whl and dist/*.tar.gz
    python tools/check_release.py sbom      dist/medres-VERSION.cdx.json and dist/licenses.md
    python tools/check_release.py install   each Python with each extra: install, then the doctor
        --python 3.12 --extra serve         these only; both may be repeated

Needs the extra `release`. Environments are made with uv in a temporary folder, one at a time, and
removed when they were tried. `dev` and `gpu` are left out unless they are named. The last lines say
what was tried, what failed and what was left out, with the reason; exit status 1 where something
failed. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSIONS = ("3.11", "3.12", "3.13")
RUNNING = "{}.{}".format(*sys.version_info)
CORE = ""  # the package alone
LEFT_OUT = {
    "gpu": "several GB of CUDA libraries; name it to try it",
    "dev": "it is what .venv holds, so that the tests try it",
}
TENSORFLOWS = ("tensorflow", "tensorflow-cpu")
UV = (sys.executable, "-m", "uv")
NEEDED_BY_TESTS = ("tests", "tools", "examples", "docs", "constraints.txt", "CITATION.cff")


class Result(NamedTuple):
    python: str
    extra: str
    outcome: str  # "ok", "left out: REASON" or "FAILED: REASON"
    seconds: float = 0.0

    def __str__(self) -> str:
        name = f"medres[{self.extra}]" if self.extra else "medres"
        return f"Python {self.python:<5} {name:<17} {self.seconds:5.0f} s  {self.outcome}"


class CommandError(Exception):
    """A command failed; the text is the last line that it printed."""


def run(*command: str | Path) -> str:
    """The output of a command. Raises CommandError where it fails."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise CommandError(f"{Path(command[0]).name}: {lines[-1]}")
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source archive of this version, checked for what must be in them."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder)
    name = f"medres-{PROJECT['version']}"
    wheel, archive = folder / f"{name}-py3-none-any.whl", folder / f"{name}.tar.gz"
    with zipfile.ZipFile(wheel) as opened:
        problems = [*missing(opened.namelist(), ""), *foreign(opened.namelist())]
    with tarfile.open(archive) as opened_archive:
        names = opened_archive.getnames()
        problems += missing(names, f"{name}/")
        tops = {"/".join(entry.split("/")[:2]) for entry in names}
        problems += [f"{top} is missing" for top in NEEDED_BY_TESTS if f"{name}/{top}" not in tops]
    if problems:
        raise CommandError("; ".join(problems))
    return wheel, archive


def missing(names: list[str], prefix: str) -> list[str]:
    """What an archive lacks: a module, a template or the marker of types that lies in the tree."""
    wanted = [
        path.relative_to(ROOT).as_posix()
        for room in ("medres", "data_pipelines")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return [f"{name} is missing" for name in sorted(wanted) if prefix + name not in names]


def foreign(names: list[str]) -> list[str]:
    """What a wheel holds beside the two packages and its metadata."""
    tops = {name.partition("/")[0] for name in names}
    metadata = f"medres-{PROJECT['version']}.dist-info"
    return [f"{top} is not ours" for top in sorted(tops - {"medres", "data_pipelines", metadata})]


def find_python(version: str) -> str | None:
    """An interpreter of this version, of pyenv or where uv looks; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in sorted((pyenv / "versions").glob(f"{version}.*/bin/python"), reverse=True):
        return str(python)
    try:
        return run(*UV, "python", "find", "--no-python-downloads", version).strip()
    except CommandError:
        return None


def make_environment(folder: Path, python: str, source: Path, extra: str) -> Path:
    """The interpreter of a new environment with the wheel (or the source archive) and an extra, in
    pinned versions.
    """
    run(*UV, "venv", "--quiet", "--python", python, folder)
    interpreter = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    package = f"medres[{extra}] @ {source.as_uri()}" if extra else f"medres @ {source.as_uri()}"
    pins = ("--constraint", ROOT / "constraints.txt")
    run(*UV, "pip", "install", "--quiet", "--python", interpreter, *pins, package)
    return interpreter


def try_one(version: str, python: str, source: Path, extra: str) -> Result:
    """Install into a clean environment, check that the versions agree, and ask the doctor."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="medres-release-") as folder:
        try:
            interpreter = make_environment(Path(folder) / "env", python, source, extra)
            run(*UV, "pip", "check", "--python", interpreter)
            facts = json.loads(run(interpreter, "-I", "-m", "medres", "doctor", "--json"))
            outcome = "; ".join(problems(facts, extra)) or "ok"
        except CommandError as error:
            outcome = str(error)
    verdict = outcome if outcome == "ok" else f"FAILED: {outcome}"
    return Result(version, extra, verdict, time.monotonic() - begin)


def problems(facts: dict, extra: str) -> list[str]:
    """What the doctor says of an environment that should hold the wheel and one extra. A missing
    TensorFlow is no problem without the extra that brings one.
    """
    found = []
    if facts["packages"].get("medres") != PROJECT["version"]:
        found.append(f"the doctor sees medres {facts['packages'].get('medres')}")
    absent = [name for name, version in facts["extras"].get(extra, {}).items() if version is None]
    found += [f"{name} is not installed" for name in absent]
    expected = not any(facts["packages"].get(name) for name in TENSORFLOWS)
    reported = [
        text
        for text in facts["problems"]
        if not (expected and text.startswith("TensorFlow cannot be imported"))
    ]
    return [*found, *reported]


def try_all(
    wheel: Path, versions: Iterable[str], extras: Iterable[str], left_out: Mapping[str, str]
) -> Iterator[Result]:
    """One result for each version and extra. left_out: extra -> the reason."""
    for version in versions:
        python = find_python(version)
        for extra in extras:
            if python is None:
                yield Result(version, extra, "left out: no such Python on this machine")
            elif extra in left_out:
                yield Result(version, extra, f"left out: {left_out[extra]}")
            else:
                yield try_one(version, python, wheel, extra)


def write_sbom(folder: Path, wheel: Path) -> Path:
    """A CycloneDX list of what `pip install "medres[cpu]"` installs, in pinned versions, and a
    table of the licenses. Raises CommandError where the package alone would bring the GPL.
    """
    target = folder / f"medres-{PROJECT['version']}.cdx.json"
    with tempfile.TemporaryDirectory(prefix="medres-release-") as temporary:
        interpreter = make_environment(Path(temporary) / "env", sys.executable, wheel, "cpu")
        project = ROOT / "pyproject.toml"
        options = ("--pyproject", project, "--mc-type", "library", "--output-reproducible")
        run(
            sys.executable, "-m", "cyclonedx_py", "environment", *options, "-o", target, interpreter
        )
        table = run(interpreter, "-I", ROOT / "tools" / "licenses.py", "cpu")
    (folder / "licenses.md").write_text(table, encoding="utf-8")
    return target


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "step", nargs="?", choices=["all", "build", "sbom", "install"], default="all"
    )
    parser.add_argument("--python", action="append", metavar="VERSION", choices=VERSIONS)
    parser.add_argument("--extra", action="append", metavar="NAME")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    chosen = parser.parse_args(arguments)
    named = chosen.extra or []
    unknown = set(named) - set(PROJECT["optional-dependencies"])
    if unknown:
        parser.error(f"no extra {', '.join(sorted(unknown))}: see pyproject.toml")
    try:
        wheel, archive = build(chosen.dist.resolve())
        print(f"built {wheel.name} and {archive.name} in {chosen.dist}")
        if chosen.step in ("all", "sbom"):
            print(f"wrote {write_sbom(chosen.dist, wheel)} and {chosen.dist / 'licenses.md'}")
    except CommandError as error:
        print(f"check_release: {error}", file=sys.stderr)
        return 1
    if chosen.step not in ("all", "install"):
        return 0
    everything = [CORE, *sorted(PROJECT["optional-dependencies"])]
    left_out = {} if named else LEFT_OUT
    results = [try_one(RUNNING, sys.executable, archive, CORE)]
    print(f"{results[0]} (from the source archive)", flush=True)
    for result in try_all(wheel, chosen.python or VERSIONS, named or everything, left_out):
        print(result, flush=True)
        results.append(result)
    n_failed = sum(result.outcome.startswith("FAILED") for result in results)
    n_left_out = sum(result.outcome.startswith("left out") for result in results)
    print(f"{len(results) - n_left_out} tried, {n_failed} failed, {n_left_out} left out")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
