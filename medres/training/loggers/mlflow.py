"""The settings and metrics of a run in MLflow: needs the extra `mlflow`; MLFLOW_TRACKING_URI names
the server or folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError
from medres.training.config.options import flattened

RUN_ID_FILE = "mlflow-run"  # in the run folder: the MLflow run that a resumed run continues
MAX_VALUE_LENGTH = 500  # characters of the value of a parameter


class MlflowLogger:
    """One MLflow run beside a run folder. It receives the metrics at the end of each epoch, and no
    patient data.

    experiment: a name; the experiment is created where it does not exist. Raises TrainingError
        (codes no_mlflow, mlflow) where MLflow is not installed or cannot be reached.
    """

    def __init__(self, experiment: str, out: Path, settings: Mapping[str, Any]) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise TrainingError(
                "mlflow is not installed: pip install 'medres[mlflow]'", code="no_mlflow"
            ) from None
        self._client, run_id_file = MlflowClient(), out / RUN_ID_FILE
        try:
            if run_id_file.exists():
                self.run_id = run_id_file.read_text()
                self._client.update_run(self.run_id, status="RUNNING")
                return
            existing = self._client.get_experiment_by_name(experiment)
            experiment_id = (
                existing.experiment_id if existing else self._client.create_experiment(experiment)
            )
            self.run_id = self._client.create_run(experiment_id, run_name=out.name).info.run_id
            for name, value in flattened(settings):
                self._client.log_param(self.run_id, name, str(value)[:MAX_VALUE_LENGTH])
        except MlflowException as error:
            raise TrainingError(
                f"MLflow did not accept the run: {str(error).splitlines()[0]}. Check "
                f"MLFLOW_TRACKING_URI",
                code="mlflow",
            ) from None
        write_atomic(run_id_file, self.run_id.encode())

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Log the metrics of one row of the history at its epoch."""
        for name, value in row.items():
            if name != "epoch" and value is not None and math.isfinite(value):
                self._client.log_metric(self.run_id, name, float(value), step=int(row["epoch"]))

    def close(self) -> None:
        self._client.set_terminated(self.run_id)
