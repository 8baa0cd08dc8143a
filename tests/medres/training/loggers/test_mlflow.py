"""Numbers that go to MLflow: each epoch's once, into one MLflow run however often the run was
interrupted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import raises_code

import medres
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training.config.options import flattened
from medres.training.loggers.mlflow import MlflowLogger

OPTIONS = {
    "model": "resnet10",
    "preset": "xray-32",
    "width": 8,
    "batch_size": 8,
    "seed": 1,
    "progress": ProgressReporter(),
}


def test_nested_settings_become_dotted_names() -> None:
    nested = {
        "seed": 1,
        "recipe": {"epochs": 3, "class_weights": {"square": 2.0}},
        "windows": ["lung"],
    }
    assert dict(flattened(nested)) == {
        "seed": 1, "recipe.epochs": 3, "recipe.class_weights.square": 2.0, "windows": ["lung"],
    }  # fmt: skip


def test_without_mlflow_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with raises_code(TrainingError, "no_mlflow", "pip install 'medres[mlflow]'"):
        MlflowLogger("experiment", tmp_path, {})
    assert not any(tmp_path.iterdir())


def test_an_interrupted_run_goes_on_in_the_same_mlflow_run(
    tiny_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    out = tmp_path / "run"
    out.mkdir()
    first = MlflowLogger("experiment", out, {"seed": 1, "recipe": {"epochs": 2}})
    first.epoch({"epoch": 1, "loss": 0.5, "tune_auc": None})
    again = MlflowLogger("experiment", out, {"seed": 1})
    again.epoch({"epoch": 2, "loss": 0.25, "tune_auc": 0.75})
    again.close()
    client = MlflowClient()
    run = client.get_run(again.run_id)
    assert (again.run_id, run.info.status, run.info.run_name) == (first.run_id, "FINISHED", "run")
    assert run.data.params == {"seed": "1", "recipe.epochs": "2"}
    assert [(m.step, m.value) for m in client.get_metric_history(again.run_id, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    medres.train(tiny_work, **OPTIONS, epochs=1, out=tmp_path / "whole", mlflow="experiment")
    runs = client.search_runs([client.get_experiment_by_name("experiment").experiment_id])
    whole = next(run for run in runs if run.info.run_name == "whole")
    assert whole.data.params["recipe.epochs"] == "1"
    assert 0 < whole.data.metrics["tune_loss"] < 10
