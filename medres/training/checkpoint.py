"""Checkpoints: every variable of a run with its state, in one file that is written whole or not at
all.

One .npz: `<group>/<i>` in the order of the group's variables, and `state`, JSON. Nothing in it is
pickled. Names sort by time: epoch-0003-step-0000040.npz holds three whole epochs and 40 steps of
the fourth.
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

KEEP = 2
BEST = "best.npz"

Groups = Mapping[str, Sequence[Any]]


def save(path: Path, groups: Groups, state: dict[str, Any]) -> None:
    """Write the variables and `state` (JSON) atomically. Raises TrainingError where a value is not
    finite, OSError on a full disk.
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
            "weights are not finite; the checkpoints before this one are sound. Lower the "
            "learning rate"
        )
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
    np.savez(buffer, **{**arrays, "state": text})  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state of a checkpoint. Raises TrainingError where it cannot be read."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(arrays.pop("state").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"checkpoint {path.name} cannot be read ({type(error).__name__}): delete it to go on "
            f"from the one before"
        ) from None


def restore(path: Path, groups: Groups, run: str) -> dict[str, Any]:
    """Assign every variable and return the state. run: what `state["run"]` must be. Raises
    TrainingError; nothing is assigned then.
    """
    arrays, state = read(path)
    if state.get("run") != run:
        raise TrainingError(
            f"checkpoint {path.name} belongs to a run of other data or settings: remove it, or "
            f"train into a new folder"
        )
    for group, variables in groups.items():
        saved = [arrays.get(f"{group}/{i}") for i in range(len(variables))]
        if any(
            s is None or s.shape != tuple(v.shape) for s, v in zip(saved, variables, strict=True)
        ):
            raise TrainingError(
                f"checkpoint {path.name} belongs to another {group}: train into a new folder"
            )
    for group, variables in groups.items():
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{group}/{i}"])
    return state


def path_of(folder: Path, epoch: int, step: int) -> Path:
    """The file of a state with `epoch` whole epochs and `step` batches of the next."""
    return folder / f"epoch-{epoch:04d}-step-{step:07d}.npz"


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return max(folder.glob("epoch-*.npz"), default=None)


def keep_last(folder: Path, count: int = KEEP) -> None:
    """Delete all checkpoints but the newest `count` and the best."""
    for path in sorted(folder.glob("epoch-*.npz"))[:-count]:
        path.unlink()
