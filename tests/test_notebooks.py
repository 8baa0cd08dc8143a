"""The notebooks run from top to bottom, and what is stored in them is fit to be shown."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
UNWANTED = re.compile(
    r"/(?:home|root|tmp|Users|var|work)/|Warning:|WARNING|I0000|E0000|W0000|cuda|oneDNN"
)
MOST_BYTES = 400_000

# The default suite runs the first notebook on fewer patients and epochs, with a smaller net.
SMALLER = {
    "patients=100": "patients=24",
    "epochs=10": "epochs=1",
    'model="resnet18", width=16': 'model="resnet10", width=8',
}

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()


@pytest.mark.long
@every
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDRES_NOTEBOOK_OUT", str(tmp_path))
    execute(nbformat.read(path, as_version=4), tmp_path)


def test_first_notebook_runs_on_fewer_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDRES_NOTEBOOK_OUT", str(tmp_path))
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells)
    assert all(source.count(text) == 1 for text in SMALLER)
    for cell in notebook.cells:
        for text, smaller in SMALLER.items():
            cell.source = cell.source.replace(text, smaller)
    execute(notebook, tmp_path)


@every
def test_stored_outputs_are_whole_and_clean(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code"), (
        "a cell was not run"
    )
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3, (
        "stored without its figures"
    )
    assert path.stat().st_size < MOST_BYTES
    for output in outputs:
        shown = {key: value for key, value in output.items() if key != "data"}
        shown |= {
            key: value
            for key, value in output.get("data", {}).items()
            if key not in ("image/png", "image/gif")
        }
        found = UNWANTED.search(str(shown))
        assert found is None, f"{found}: {str(shown)[:300]}"
        assert output.output_type != "error"


@every
def test_a_notebook_says_what_it_wants_and_leads_on(path: Path) -> None:
    text = [
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    ]
    assert text[0].startswith(f"# {int(path.name[:2])}. ")
    assert "made up" in text[0]
    assert "Research use only" in " ".join(text[0].split())
    for target in re.findall(r"\]\(([^)#]+)\)", "\n".join(text)):
        assert (path.parent / target).is_file(), target
    assert f"`{path.stem}`" in (ROOT / "docs" / "notebooks.md").read_text()
