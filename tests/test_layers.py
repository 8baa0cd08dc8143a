"""The arrows of the house: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "medres").rglob("*.py"), *(ROOT / "data_pipelines").rglob("*.py")])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imports(path: Path, *, types: bool = False) -> set[str]:
    """Modules that a file imports, anywhere in it; types: also those under TYPE_CHECKING."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= MODULES else names | {node.module}
        pending += ast.iter_child_nodes(node)
    return found


def first_parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_data_pipelines_never_imports_medres() -> None:
    guilty = [
        str(p) for p in FILES if p.is_relative_to(ROOT / "data_pipelines") and "medres" in first_parts(imports(p))
    ]
    assert guilty == []


def test_evaluate_never_imports_tensorflow_and_only_main_imports_scoring() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "medres" / "evaluate"):
            used = imports(path)
            assert not first_parts(used) & {"tensorflow", "keras"}, path
            others = {
                name
                for name in used
                if name.startswith("medres.") and not name.startswith(("medres.evaluate", "medres.errors"))
            }
            assert not others or (
                path.name in {"__main__.py", "command.py"} and all(o.startswith("medres.scoring") for o in others)
            ), path


def test_imports_make_no_cycle() -> None:
    """Those inside functions and those for types alone count too."""
    graph = {module_name(p): imports(p, types=True) for p in FILES}
    graph = {name: {u for u in used if u in graph and u != name} for name, used in graph.items()}
    order: list[str] = []
    pending = dict(graph)
    while pending:
        ready = sorted(name for name, used in pending.items() if not used & pending.keys())
        assert ready, f"a cycle among {sorted(pending)}"
        order += ready
        for name in ready:
            del pending[name]
    assert set(order) == set(graph)


@pytest.mark.parametrize(
    "code", ["import medres", "import data_pipelines", "import medres.cli", "import medres.evaluate"]
)
def test_import_loads_no_tensorflow(code: str) -> None:
    script = f"{code}; import sys; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_bears_the_name_of_a_public_function_of_its_package() -> None:
    """Importing the module would put it where the lazy import puts the function."""
    import data_pipelines
    import medres
    from medres import backbones, evaluate, study

    for package in (data_pipelines, medres, backbones, evaluate, study):
        folder = Path(package.__file__).parent
        modules = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/__init__.py")
        }
        shared = modules & set(package.__all__)
        assert shared <= {"backbones", "evaluate", "study"}, package.__name__
        assert not (package is not medres and shared)
