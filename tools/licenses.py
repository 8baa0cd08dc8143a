"""The licenses of what an installed medres brings along, as its packages declare them.

    python tools/licenses.py             the package alone, and each extra that is installed here
    python tools/licenses.py serve cpu   the package alone, and these extras

Prints a table in Markdown: name, version, license, and the extras that bring the package. Exit
status 1 where the package alone would bring software under the GPL or AGPL, or without a license.
Run it with the Python of the environment that it is about.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CORE = ""  # the extra that stands for none
UNKNOWN = "not declared"
GPL = re.compile(r"\bA?GPL|GNU (Affero )?General Public", re.IGNORECASE)
LINKING = re.compile(r"WITH GCC-exception", re.IGNORECASE)  # of the GCC runtime: binds nobody
TEXTS = {  # how the text of a license begins -> its name
    "GNU AFFERO GENERAL PUBLIC LICENSE": "AGPL",
    "GNU GENERAL PUBLIC LICENSE": "GPL",
    "Apache License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD 3-Clause License": "BSD-3-Clause",
}


class Package(NamedTuple):
    name: str
    version: str
    license: str


def closure(extra: str, root: str = "medres") -> list[Package]:
    """The packages that `root[extra]` needs, directly or not, `root` itself left out, by name.

    Raises importlib.metadata.PackageNotFoundError where one of them is not installed.
    """
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), CORE), (canonicalize_name(root), extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, CORE), *((needed, inner) for inner in requirement.extras)]
    names = {name for name, _ in seen} - {canonicalize_name(root)}
    return [
        Package(n, metadata.version(n), license_of(metadata.distribution(n))) for n in sorted(names)
    ]


def license_of(package: metadata.Distribution) -> str:
    """What a package declares: the SPDX expression, else the classifiers, else the first line of
    the field License, else what its license files are by their first lines; `not declared` where
    none of them says it.
    """
    facts = package.metadata
    if expression := facts.get("License-Expression"):
        return str(expression)
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in facts.get_all("Classifier") or []
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    first_line = (facts.get("License") or "").strip().partition("\n")[0].strip()
    return " AND ".join(classifiers) or first_line or _license_of_files(package) or UNKNOWN


def _license_of_files(package: metadata.Distribution) -> str:
    names = []
    for name in package.metadata.get_all("License-File") or []:
        head = (package.read_text(f"licenses/{name}") or package.read_text(name) or "")[:200]
        names += [license for text, license in TEXTS.items() if text in head][:1]
    return " AND ".join(names)


def is_gpl(license: str) -> bool:
    """Whether an expression obliges its user to the GPL or AGPL. The LGPL does not, nor does an
    alternative (`OR`), nor the exception of the runtime libraries of GCC.
    """
    for part in re.split(r"\bAND\b", license):
        choices = re.split(r"\bOR\b", part)
        if all(GPL.search(choice) and not LINKING.search(choice) for choice in choices):
            return True
    return False


def table(extras: Iterable[str]) -> list[str]:
    """Lines in Markdown, one row for each package; packages of the core first."""
    brought: dict[Package, list[str]] = {}
    core = set(closure(CORE))
    for extra in extras:
        for package in closure(extra):
            if package not in core:
                brought.setdefault(package, []).append(extra)
    rows = [(package, "the package alone") for package in sorted(core)]
    rows += [(package, ", ".join(names)) for package, names in sorted(brought.items())]
    head = ["| package | version | license as declared | brought by |", "|---|---|---|---|"]
    return head + [f"| {p.name} | {p.version} | {p.license} | {why} |" for p, why in rows]


def installed_extras(root: str = "medres") -> list[str]:
    """The extras whose packages are all installed here."""
    extras = []
    for extra in metadata.metadata(root).get_all("Provides-Extra") or []:
        try:
            closure(extra, root)
        except metadata.PackageNotFoundError:
            continue
        extras.append(extra)
    return sorted(extras)


def refusals(packages: Iterable[Package]) -> list[str]:
    """One sentence for each package that the core may not need."""
    return [
        f"{package.name} {package.version}: {package.license}"
        for package in packages
        if is_gpl(package.license) or package.license == UNKNOWN
    ]


def main(arguments: list[str]) -> int:
    print("\n".join(table(arguments or installed_extras())))
    problems = refusals(closure(CORE))
    for problem in problems:
        print(f"licenses: the package alone may not bring {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
