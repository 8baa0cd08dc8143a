"""The arrows of the house: who may import whom, what importing costs, and how large a room may
be.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines.kinds import INPUT_SCALINGS, KINDS, UNITS

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "medres").rglob("*.py"), *(ROOT / "data_pipelines").rglob("*.py")])
MAX_FILES = 16


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}
ROOMS = sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


def imported(path: Path, *, types: bool = False) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a file, at any depth, and of its lazy exports; types: also
    of imports under TYPE_CHECKING.
    """
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        if isinstance(node, ast.Call) and "lazy_exports" in ast.dump(node.func):
            yield from ((module, "") for module in ast.literal_eval(node.args[1]))
        pending += ast.iter_child_nodes(node)


def imports(path: Path, *, types: bool = False) -> set[str]:
    """Modules that a file imports."""
    pairs = set(imported(path, types=types))
    return {f"{m}.{n}" if f"{m}.{n}" in MODULES else m for m, n in pairs}


def first_parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def large_room(module: str) -> str:
    """The room of a module, at the second level: medres.training.config is part of
    medres.training.
    """
    return ".".join(module.split(".")[:2])


def assert_no_cycle(graph: dict[str, set[str]]) -> None:
    pending = {name: {u for u in used if u != name} for name, used in graph.items()}
    while pending:
        ready = [name for name, used in pending.items() if not used & pending.keys()]
        assert ready, f"a cycle among {sorted(pending)}"
        for name in ready:
            del pending[name]


def test_data_pipelines_never_imports_medres() -> None:
    assert [
        name
        for name, path in MODULES.items()
        if name.startswith("data_pipelines") and "medres" in first_parts(imports(path))
    ] == []


ENTRY = "medres.evaluate.__main__"  # it starts the command line, which imports everything


def test_evaluate_needs_neither_tensorflow_nor_the_rooms_of_models() -> None:
    allowed = ("medres.evaluate", "medres.errors", "medres.tasks", "medres.svg")
    for name, path in MODULES.items():
        if name.startswith("medres.evaluate") and name != ENTRY:
            used = imports(path)
            assert not first_parts(used) & {"tensorflow", "keras"}, name
            others = {u for u in used if u.startswith("medres.") and not u.startswith(allowed)}
            assert not others, name


def test_imports_make_no_cycle() -> None:
    """Those inside functions and those for types alone count too."""
    graph = {name: imports(path, types=True) for name, path in MODULES.items()}
    assert_no_cycle({name: used & graph.keys() for name, used in graph.items()})


def room_graph() -> dict[str, set[str]]:
    """Room, or module that stands beside the rooms -> those that it imports."""
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name.count(".") > 0 and name not in (ENTRY, "medres.__main__"):
            used = {large_room(u) for u in imports(path) if u in MODULES and u.count(".") > 0}
            graph.setdefault(large_room(name), set()).update(used - {large_room(name)})
    return graph


def test_rooms_make_no_cycle() -> None:
    assert_no_cycle(room_graph())


def test_rooms_import_only_what_stands_below_them_on_the_map() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `((?:medres|data_pipelines)/\w+)(?:/|\.py)` \|", page, re.MULTILINE)
    order = [row.replace("/", ".") for row in rows]
    graph = room_graph()
    assert sorted(order) == sorted(graph)
    upwards = [
        f"{room} imports {used}"
        for room, all_used in graph.items()
        for used in all_used
        if room.split(".")[0] == used.split(".")[0] and order.index(used) < order.index(room)
    ]
    assert upwards == []


def test_rooms_are_small_and_say_what_they_are_for() -> None:
    for room in ROOMS:
        files = [p for p in MODULES[room].parent.glob("*.py") if p.name != "__init__.py"]
        assert len(files) <= MAX_FILES, room
        doc = ast.get_docstring(ast.parse(MODULES[room].read_text()))
        assert doc, f"{room} has no docstring"
        assert len(doc) > 40, f"{room}: say what it is for"


def test_private_names_stay_in_their_file() -> None:
    guilty = [
        f"{name}: {module}.{imported_name}"
        for name, path in MODULES.items()
        for module, imported_name in imported(path, types=True)
        if module in MODULES and imported_name.startswith("_")
    ]
    assert guilty == []


@pytest.mark.parametrize(
    "code",
    ["import medres", "import data_pipelines", "import medres.cli.app", "import medres.evaluate"],
)
def test_import_loads_no_tensorflow(code: str) -> None:
    assert loaded(code, "tensorflow", "keras") == "[]"


def test_decode_workers_load_neither_pandas_nor_tensorflow() -> None:
    code = (
        "import data_pipelines.ingestion.file_inspection, data_pipelines.cache.worker, "
        "data_pipelines.annotations.placement, data_pipelines.annotations.references"
    )
    assert loaded(code, "tensorflow", "keras", "pandas") == "[]"


def loaded(code: str, *packages: str) -> str:
    script = f"{code}; import sys; print(sorted({set(packages)} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_no_module_bears_the_name_of_a_public_function_of_its_room() -> None:
    """Importing the module would put it where the lazy import puts the function."""
    packages = {
        "backbones",
        "evaluate",
        "experiments",
        "losses",
        "metrics",
        "study",
    }  # that medres exports
    for room in ROOMS:
        folder = MODULES[room].parent
        names = {p.stem for p in folder.glob("*.py")} | {
            p.parent.name for p in folder.glob("*/*.py")
        }
        public = set(getattr(importlib.import_module(room), "__all__", ()))
        assert names & public <= (packages if room == "medres" else set()), room


def test_every_public_name_of_a_room_is_there() -> None:
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name) is not None, f"{room}.{name}"


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("medres.scoring", "score_split", "medres.inference.scoring"),
        ("medres.training.recipes", "Recipe", "medres.training.config.recipe"),
        ("data_pipelines.phantom", "make_cohort", "data_pipelines.synthetic.cohort"),
        ("data_pipelines.preprocess", "to_model_units", "data_pipelines.preprocessing"),
    ],
)
def test_old_paths_work_and_say_where_to_go(old: str, name: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=new.replace(".", r"\.")):
        module = importlib.import_module(old)
    assert getattr(module, name) is getattr(importlib.import_module(new), name)


def test_study_is_an_alias_of_experiments() -> None:
    import medres.study
    from medres.study.depths import depth_study

    assert medres.study.depth_study is depth_study
    assert medres.study.DepthPlan is medres.experiments.DepthExperiment


NAMES_OF_KINDS = {*KINDS, *UNITS, *INPUT_SCALINGS} - {"imagenet", "none"}  # weights, recipes too
NAMES_OF_TASKS = {"binary", "multilabel", "multiclass"}
HOMES = {"data_pipelines.kinds", "data_pipelines.labels.task", "medres.tasks"}


def compared_texts(path: Path) -> Iterator[str]:
    """Texts that a file compares with something: an operator, `in`, or a case of `match`."""
    for node in ast.walk(ast.parse(path.read_text())):
        sides: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        if isinstance(node, ast.MatchValue):
            sides = [node.value]
        for side in sides:
            items = side.elts if isinstance(side, ast.Tuple | ast.List | ast.Set) else [side]
            yield from (
                i.value for i in items if isinstance(i, ast.Constant) and isinstance(i.value, str)
            )


def test_kinds_and_tasks_decide_in_their_own_modules_only() -> None:
    guilty = {
        name: sorted(set(compared_texts(path)) & (NAMES_OF_KINDS | NAMES_OF_TASKS))
        for name, path in MODULES.items()
        if name not in HOMES
    }
    assert {name: texts for name, texts in guilty.items() if texts} == {}
