from __future__ import annotations

import pytest
from helpers import raises_code

from data_pipelines.errors import BackendError
from data_pipelines.runtime import backend


@pytest.mark.parametrize(
    ("installed", "code"),
    [(set(), "no_tensorflow"), ({"tensorflow", "tensorflow-cpu"}, "two_tensorflows")],
)
def test_none_or_two_are_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], code: str
) -> None:
    monkeypatch.setattr(backend, "_version", lambda name: "2.21.0" if name in installed else None)
    with raises_code(BackendError, code, "medres[cpu]"):
        backend.require_tensorflow()


def test_the_command_line_says_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from typer.testing import CliRunner

    from medres.cli.app import app

    monkeypatch.setattr(backend, "_version", lambda name: None)
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "TensorFlow is not installed" in done.stderr


def test_one_is_imported() -> None:
    assert backend.require_tensorflow().__name__ == "tensorflow"
