"""Checkpoints: every variable of a run and the state of the run, in one file that is written
atomically.

The file is an .npz with the arrays `<group>/<i>`, in the order of the group's variables, and with
`state`, which is JSON. Nothing in it is pickled. File names sort by time:
epoch-0003-step-0000040.npz was written after three whole epochs and 40 batches of the fourth.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.runtime.atomic_files import write_atomic
from medres.errors import TrainingError

MAX_CHECKPOINTS = 2
BEST = "best.npz"

Groups = Mapping[str, Sequence[Any]]


def save(path: Path, groups: Groups, state: dict[str, Any]) -> None:
    """Write the variables and `state` (JSON) atomically. Raises TrainingError (code not_finite)
    where a value is not finite, and OSError on a full disk.
    """
    arrays = {
        f"{group}/{i}": v.numpy()
        for group, variables in groups.items()
        for i, v in enumerate(variables)
    }
    write(path, arrays, state)


def write(path: Path, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write named arrays and `state` atomically; see `save`."""
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise TrainingError(
            "the weights are not finite; earlier checkpoints are valid. Lower the learning rate "
            "and train into a new folder",
            code="not_finite",
        )
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
    np.savez(buffer, **{**arrays, "state": text})  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state of a checkpoint. Raises TrainingError (code unreadable_checkpoint)
    where the file cannot be read.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays.pop("state").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"checkpoint {path.name} cannot be read ({type(error).__name__}): delete the file to "
            f"resume from the checkpoint before it",
            code="unreadable_checkpoint",
        ) from None


def restore(path: Path, groups: Groups, *runs: str) -> dict[str, Any]:
    """Assign every variable and return the state.

    runs: the hash of the run, of which `state["run"]` must be one; several where its number of
        epochs was raised. Raises TrainingError (code other_run) before anything is assigned.
    """
    arrays, state = read(path)
    if state.get("run") not in runs:
        raise TrainingError(
            f"checkpoint {path.name} belongs to a run with other data or settings: delete the "
            f"file, or train into a new folder",
            code="other_run",
        )
    for group, variables in groups.items():
        for i, variable in enumerate(variables):
            array = arrays.get(f"{group}/{i}")
            if array is None or array.shape != tuple(variable.shape):
                raise TrainingError(
                    f"checkpoint {path.name} does not fit the variables of the {group}: train into "
                    f"a new folder",
                    code="other_run",
                )
    for group, variables in groups.items():
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{group}/{i}"])
    return state


def path_of(folder: Path, epoch: int, step: int) -> Path:
    """The file for a state after `epoch` whole epochs and `step` batches of the next one."""
    return folder / f"epoch-{epoch:04d}-step-{step:07d}.npz"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return max(folder.glob("epoch-*.npz"), default=None)


def keep_last(folder: Path, count: int = MAX_CHECKPOINTS) -> None:
    """Delete all checkpoints except the newest `count`; the best weights stay."""
    for path in sorted(folder.glob("epoch-*.npz"))[:-count]:
        path.unlink()
