"""Numbers that go to MLflow: each epoch's once, into one MLflow run however often the run was
interrupted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import medres
from medres.errors import TrainingError
from medres.progress import ProgressReporter
from medres.training.loggers.mlflow import Tracked, flat

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
    assert dict(flat(nested)) == {
        "seed": 1, "recipe.epochs": 3, "recipe.class_weights.square": 2.0, "windows": ["lung"],
    }  # fmt: skip


def test_without_mlflow_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(TrainingError, match=r"pip install 'medres\[mlflow\]'"):
        Tracked("study", tmp_path, {})
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
    tracked = Tracked("study", out, {"seed": 1, "recipe": {"epochs": 2}})
    tracked.epoch({"epoch": 1, "loss": 0.5, "tune_auc": None})
    again = Tracked("study", out, {"seed": 1})
    again.epoch({"epoch": 2, "loss": 0.25, "tune_auc": 0.75})
    again.close()
    client = MlflowClient()
    run = client.get_run(again.run)
    assert (again.run, run.info.status, run.info.run_name) == (tracked.run, "FINISHED", "run")
    assert run.data.params == {"seed": "1", "recipe.epochs": "2"}
    assert [(m.step, m.value) for m in client.get_metric_history(again.run, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    medres.train(tiny_work, **OPTIONS, epochs=1, out=tmp_path / "whole", mlflow="study")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    whole = next(run for run in runs if run.info.run_name == "whole")
    assert whole.data.params["recipe.epochs"] == "1"
    assert 0 < whole.data.metrics["tune_loss"] < 10
