"""What a release promises: one version everywhere, known licenses, whole archives."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_of_medres", ROOT / f"tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


licenses, check_release = load("licenses"), load("check_release")


def test_the_package_alone_brings_no_gpl() -> None:
    packages = licenses.closure(licenses.CORE)
    assert {"keras", "pydicom", "numpy", "ml-dtypes"} <= {package.name for package in packages}
    assert licenses.refusals(packages) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("LGPL-2.1-or-later", False),
        ("MIT OR GPL-2.0-only", False),
        ("MIT AND GPL-2.0-only", True),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
    ],
)
def test_which_licenses_are_the_gpl(expression: str, expected: bool) -> None:
    assert licenses.is_gpl(expression) == expected


def write_package(folder: Path, name: str, *lines: str, license_file: str = "") -> None:
    """An installed package without code, which `importlib.metadata` finds in `folder`."""
    info = folder / f"{name}-1.0.dist-info"
    (info / "licenses").mkdir(parents=True)
    text = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines]
    (info / "METADATA").write_text("\n".join(text) + "\n")
    (info / "licenses" / "LICENSE").write_text(license_file)


def test_needs_are_followed_through_extras_and_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ["second[fast]", 'third; extra == "more"', 'absent; sys_platform == "none"']
    requires = [f"Requires-Dist: {need}" for need in needs]
    write_package(tmp_path, "first", *requires, "Provides-Extra: more", "Provides-Extra: lost")
    fast = 'Requires-Dist: fourth; extra == "fast"'
    write_package(tmp_path, "second", "License-Expression: MIT", fast)
    gpl = "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    write_package(tmp_path, "third", gpl)
    text = "MIT License\n\nCopyright somebody"
    write_package(tmp_path, "fourth", "License-File: LICENSE", license_file=text)
    monkeypatch.syspath_prepend(tmp_path)
    core = licenses.closure("", "first")
    assert [tuple(package) for package in core] == [
        ("fourth", "1.0", "MIT"),
        ("second", "1.0", "MIT"),
    ]
    with_more = licenses.closure("more", "first")
    assert licenses.refusals(core) == []
    assert licenses.refusals(with_more) == ["third 1.0: GNU General Public License v3 (GPLv3)"]
    shutil.rmtree(tmp_path / "third-1.0.dist-info")
    with pytest.raises(metadata.PackageNotFoundError):
        licenses.closure("more", "first")


def test_a_package_that_declares_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, "mute")
    monkeypatch.syspath_prepend(tmp_path)
    package = licenses.Package("mute", "1.0", licenses.license_of(metadata.distribution("mute")))
    assert licenses.refusals([package]) == ["mute 1.0: not declared"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert {"message", "title", "date-released", "abstract"} <= set(citation)


def test_the_documentation_names_the_wheel_of_this_version() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = [re.findall(r"medres-([\d.]+)-py3", page.read_text("utf-8")) for page in pages]
    assert {version for versions in named for version in versions} == {PROJECT["version"]}


FACTS = {
    "packages": {"medres": PROJECT["version"]},
    "extras": {"nifti": {"nibabel": "5.4.2"}, "cpu": {"tensorflow-cpu": None}},
    "tensorflow": {"error": "TensorFlow cannot be imported: no module"},
    "problems": ["TensorFlow cannot be imported: no module. To install it, run pip"],
}


def test_an_environment_without_tensorflow_is_right_unless_it_should_have_one() -> None:
    assert check_release.problems(FACTS, "") == []
    assert check_release.problems(FACTS, "nifti") == []
    assert check_release.problems(FACTS, "cpu") == ["tensorflow-cpu is not installed"]
    broken = {**FACTS, "packages": {**FACTS["packages"], "tensorflow-cpu": "2.21.0"}}
    assert check_release.problems(broken, "nifti") == FACTS["problems"]


def test_another_version_or_another_problem_is_found() -> None:
    old = {**FACTS, "packages": {"medres": "0.0.1"}, "problems": ["RLE cannot be decoded"]}
    assert check_release.problems(old, "") == [
        "the doctor sees medres 0.0.1",
        "RLE cannot be decoded",
    ]


def test_what_an_archive_lacks_or_should_not_hold_is_named() -> None:
    names = [
        path.relative_to(ROOT).as_posix()
        for room in ("medres", "data_pipelines")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert "medres/evaluate/reporting/templates/page.html.j2" in names
    assert check_release.missing(names, "") == []
    assert check_release.foreign(names) == []
    assert check_release.missing(names[1:], "") == [f"{names[0]} is missing"]
    assert check_release.foreign([*names, "tests/x.py"]) == ["tests is not ours"]


def test_every_extra_of_the_release_check_exists() -> None:
    assert set(check_release.LEFT_OUT) <= set(PROJECT["optional-dependencies"])
    assert list(check_release.VERSIONS) == [
        text.rpartition(" :: ")[2] for text in PROJECT["classifiers"] if ":: 3." in text
    ]


@pytest.mark.long  # builds both archives; needs hatchling, which the extra `release` brings
def test_both_archives_are_built_and_whole(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    wheel, archive = check_release.build(tmp_path)
    assert wheel.stat().st_size < 5 << 20
    assert archive.exists()


def test_an_unknown_extra_is_refused_before_anything_is_built() -> None:
    with pytest.raises(SystemExit):
        check_release.main(["install", "--extra", "everything"])
