"""Checkpoints: all variables of model and optimiser with the run's state, in one file that is written whole or not at all.

One .npz: `model/<i>` and `optimizer/<i>` in the order of Keras' `variables`, and `state`, JSON. Nothing in it is pickled.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files import write_atomic
from medres.errors import TrainingError

if TYPE_CHECKING:
    import keras


def save(path: Path, model: keras.Model, state: dict) -> None:
    """Write the variables of a compiled model and its optimiser, and `state` (JSON), atomically."""
    arrays = {f"model/{i}": v.numpy() for i, v in enumerate(model.variables)}
    arrays |= {f"optimizer/{i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
    arrays["state"] = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def restore(path: Path, model: keras.Model) -> dict:
    """Assign every variable and return the state. Raises TrainingError where file and model do not fit."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop("state").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"checkpoint {path.name} cannot be read ({type(error).__name__}): delete it to go on from the one before"
        ) from None
    for group, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        saved = [arrays.get(f"{group}/{i}") for i in range(len(variables))]
        if any(s is None or s.shape != tuple(v.shape) for s, v in zip(saved, variables, strict=True)):
            raise TrainingError(f"checkpoint {path.name} belongs to another {group}: train into a new folder")
        for array, variable in zip(saved, variables, strict=True):
            variable.assign(array)
    return state


def latest(folder: Path) -> Path | None:
    """The newest epoch checkpoint of a run, or None."""
    return max(folder.glob("epoch-*.npz"), default=None)


def keep_last(folder: Path, count: int) -> None:
    """Delete all epoch checkpoints but the newest `count`."""
    for path in sorted(folder.glob("epoch-*.npz"))[:-count]:
        path.unlink()
