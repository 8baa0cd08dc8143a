"""What tests of several rooms share besides fixtures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_pipelines.errors import DicomError
from medres.progress import ProgressReporter


def medres(*arguments: object):
    """Run a command of medres in this process."""
    from medres.cli.app import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def fails(result, *, code: int = 1) -> str:
    """The one line on standard error of a command that failed."""
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    if code == 1:
        assert len(lines) == 1
        assert lines[0].startswith("medres: ")
    return result.stderr


@contextlib.contextmanager
def raises_code(
    kind: type[Exception], code: str, *mentions: str
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """The block raises this class with this `.code`; `mentions` are values that its message
    names.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert getattr(caught.value, "code", None) == code, caught.value
    for value in mentions:
        assert value in str(caught.value)


def work_in_process(patch: pytest.MonkeyPatch) -> None:
    """Files are looked at here, not in workers of their own: for tests of what is found, not of
    isolation.
    """

    def answers(function: Callable, items: Sequence, **_: object) -> Iterator[tuple]:
        for item in items:
            try:
                yield item, function(item)
            except DicomError as error:
                yield item, error

    for module in (
        "data_pipelines.ingestion.index.parts",
        "data_pipelines.runtime.engines.engine",
        "data_pipelines.cache.builder",
        "medres.inspection.thumbnails",
        "medres.inspection.volume_views",
    ):
        patch.setattr(f"{module}.map_isolated", answers)


class Lines(ProgressReporter):
    """Keeps the lines of text that a run reports, and shows no bars."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def train_tiny_net(work: Path, out: Path, **options: Any) -> Any:
    """`medres.train` with a network of two layers, two batches per epoch on the tiny cohort."""
    import keras

    from medres.training import train

    keras.utils.set_random_seed(3)
    net = keras.Sequential(
        [
            keras.Input((32, 32, 1), name="in"),
            keras.layers.Conv2D(4, 3, strides=4, activation="relu", name="one"),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="two"),
        ],
        name="net",
    )
    base = {
        "model": net,
        "preset": "xray-32",
        "batch_size": 16,
        "seed": 4,
        "epochs": 3,
        "schedule": "constant",
        "warmup": 0,
        "checkpoint_steps": 1,
        "alpha": 0.0,
        "progress": ProgressReporter(),
    }
    return train(work, out=out, **base | options)
