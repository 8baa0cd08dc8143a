"""tools/setup.py: how .venv is made, without making one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


def load() -> SimpleNamespace:
    spec = importlib.util.spec_from_file_location("setup_of_medres", ROOT / "tools/setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return SimpleNamespace(**vars(module))


setup = load()


class Machine:
    """Answers commands as a machine would. versions: what each Python says of itself; broken:
    Pythons without ensurepip, whose `venv` leaves a folder without pip (Debian without
    python3-venv).
    """

    def __init__(self, versions: dict[str, str], broken: tuple[str, ...] = ()) -> None:
        self.versions, self.broken = versions, broken

    def __call__(self, command: list[str], **_: object) -> SimpleNamespace:
        name, arguments = " ".join(command).split(" -")[0], command[-2:]
        if arguments[0] == "-c":
            home = next((h for h in self.versions if name == h), None)
            if home is None and not Path(name).exists():
                raise FileNotFoundError(name)
            version = self.versions[home] if home else Path(name).read_text().split()[0]
            return SimpleNamespace(returncode=0, stdout=f"{version}\n")
        if arguments[0] == "venv":
            python = setup.environment_python(Path(arguments[1]), sys.platform)
            python.parent.mkdir(parents=True)
            has_pip = name not in self.broken
            python.write_text(f"{self.versions[name]} {'pip' if has_pip else 'bare'}")
            return SimpleNamespace(returncode=0 if has_pip else 1, stdout="")
        has_pip = Path(name).read_text().endswith("pip")
        return SimpleNamespace(returncode=0 if has_pip else 1, stdout="pip")


def make(folder: Path, machine: Machine, chosen: str | None) -> Path:
    return setup.make_environment(folder, sys.platform, chosen, machine)


def test_what_a_failed_attempt_leaves_is_removed_and_the_next_one_works(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    with pytest.raises(SystemExit, match=r"apt install python3\.12-venv"):
        make(folder, Machine({"py312": "3.12"}, broken=("py312",)), "py312")
    assert not folder.exists()
    python = make(folder, Machine({"py312": "3.12"}), "py312")
    assert python.read_text() == "3.12 pip"


def test_a_half_made_environment_of_another_tool_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    python = setup.environment_python(folder, sys.platform)
    python.parent.mkdir(parents=True)
    python.write_text("3.12 bare")
    (folder / "rubbish").touch()
    make(folder, Machine({"py313": "3.13"}), "py313")
    assert python.read_text() == "3.13 pip"
    assert not (folder / "rubbish").exists()


def test_a_whole_environment_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    python = make(folder, Machine({"py312": "3.12"}), "py312")
    (folder / "mine").touch()
    assert make(folder, Machine({"py313": "3.13"}), "py313") == python
    assert (folder / "mine").exists()


def test_a_python_that_cannot_make_one_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3", raising=False)
    names = {"/usr/bin/python3": "3.12", "python3.11": "3.11"}
    machine = Machine(names, broken=("/usr/bin/python3",))
    python = setup.make_environment(tmp_path / ".venv", "linux", None, machine)
    assert python.read_text() == "3.11 pip"


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_other_versions_are_refused_and_nothing_is_removed(tmp_path: Path, version: str) -> None:
    (tmp_path / ".venv").mkdir()
    with pytest.raises(SystemExit, match=r"3\.11, 3\.12 or 3\.13"):
        make(tmp_path / ".venv", Machine({"mine": version}), "mine")
    assert (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("platform", "chosen", "expected"),
    [
        ("linux", "/opt/python", [["/opt/python"]]),
        ("linux", None, [["run"], ["python3.13"], ["python3.12"], ["python3.11"], ["python3"]]),
        ("darwin", None, [["run"], ["python3.13"], ["python3.12"], ["python3.11"], ["python3"]]),
        ("win32", None, [["run"], ["py", "-3.13"], ["py", "-3.12"], ["py", "-3.11"]]),
    ],
)
def test_candidates_by_platform(platform: str, chosen: str | None, expected: list) -> None:
    found = setup.candidates(platform, chosen, "run")
    assert found == (expected if chosen else [*expected, ["python"]])


def test_the_interpreter_by_platform() -> None:
    assert setup.environment_python(Path("e"), "win32") == Path("e/Scripts/python.exe")
    assert setup.environment_python(Path("e"), "darwin") == Path("e/bin/python")


def test_an_installation_is_current_until_a_source_changes(tmp_path: Path) -> None:
    stamp, source = tmp_path / "stamp", tmp_path / "source"
    source.touch()
    assert not setup.is_current(stamp, [source])
    stamp.touch()
    os.utime(source, (1, 1))
    assert setup.is_current(stamp, [source])
    os.utime(stamp, (0, 0))
    assert not setup.is_current(stamp, [source])
    assert all((ROOT / name).exists() for name in setup.SOURCES)


def test_a_task_that_does_not_exist_is_refused_before_anything_else() -> None:
    with pytest.raises(SystemExit, match="no task demos: choose demo, test"):
        setup.main(["demos"])


def test_make_has_the_tasks_of_the_table() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("demo "))
    assert line.partition(":")[0].split() == list(setup.TASKS)


@pytest.mark.long  # a real environment: pip is unpacked
def test_a_real_half_made_environment(tmp_path: Path) -> None:
    folder = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = setup.environment_python(folder, sys.platform)
    assert not setup.is_whole(python)
    assert setup.make_environment(folder, sys.platform, None) == python
    assert setup.is_whole(python)
