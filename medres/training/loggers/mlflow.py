"""A run's settings and numbers in MLflow, for those who keep theirs there: extra `mlflow`;
MLFLOW_TRACKING_URI says where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError

MARK = (
    "mlflow-run"  # file in the run folder: the id of the MLflow run that goes on when the run does
)
LONGEST = 500  # characters of a parameter's value


class Tracked:
    """One MLflow run beside a run folder. Numbers go there at the end of an epoch; no patient's
    data does.

    experiment: its name, made where it does not exist. Raises TrainingError where MLflow is not
        installed or cannot be reached.
    """

    def __init__(self, experiment: str, out: Path, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise TrainingError("mlflow is not installed: pip install 'medres[mlflow]'") from None
        self._client, mark = MlflowClient(), out / MARK
        try:
            if mark.exists():
                self.run = mark.read_text()
                self._client.update_run(self.run, status="RUNNING")
                return
            found = self._client.get_experiment_by_name(experiment)
            where = found.experiment_id if found else self._client.create_experiment(experiment)
            self.run = self._client.create_run(where, run_name=out.name).info.run_id
            for name, value in flat(settings):
                self._client.log_param(self.run, name, str(value)[:LONGEST])
        except MlflowException as error:
            raise TrainingError(
                f"MLflow does not take the run: {str(error).splitlines()[0]}. See "
                f"MLFLOW_TRACKING_URI"
            ) from None
        write_atomic(mark, self.run.encode())

    def epoch(self, row: Mapping[str, Any]) -> None:
        """The numbers of one row of the history, at its epoch."""
        for name, value in row.items():
            if name != "epoch" and value is not None and math.isfinite(value):
                self._client.log_metric(self.run, name, float(value), step=int(row["epoch"]))

    def close(self) -> None:
        self._client.set_terminated(self.run)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("recipe.epochs", 15), ... of nested settings."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
