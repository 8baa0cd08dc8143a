"""Where progress goes: to standard error, and in a notebook below its cell."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from medres.progress import Bars, in_notebook


def shell(monkeypatch: pytest.MonkeyPatch, running: object) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: running))


def test_an_imported_kernel_is_no_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    for running in (None, SimpleNamespace()):  # no shell; a terminal's shell
        shell(monkeypatch, running)
        assert not in_notebook()
        Bars().line("one [finished] thing")
        assert capsys.readouterr() == ("", "one [finished] thing\n")


def test_in_a_notebook_lines_stand_below_the_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shell(monkeypatch, SimpleNamespace(kernel=object()))
    assert in_notebook()
    Bars().line("done")
    assert capsys.readouterr() == ("done\n", "")
