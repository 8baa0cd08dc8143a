"""Pictures for the page: images, decoded in isolated workers, and what models draw, in their own
processes. Nothing is decoded in the server, and nothing is written to the disk.
"""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

from data_pipelines.errors import DicomError
from medres.errors import ServeError
from medres.inference.decoder import Decoder
from medres.serve.completion import work_folder
from medres.serve.page.drawing import Drawing
from medres.serve.page.images import ImageOrder, ShownImage, Window, shown_image
from medres.serve.results import FILES_EXPIRED, MODEL_GONE
from medres.serve.scheduler import Scheduler

Value = TypeVar("Value")

MAX_KEPT = 64 << 20  # bytes of pictures in memory
WAIT_SECONDS = 30.0  # for the drawing before this one
DRAW_SECONDS = 300.0  # of a model


class Pictures:
    """Makes pictures, and keeps the last ones."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._decoder = Decoder(isolate=True)
        self._drawing = threading.Lock()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._n_bytes = 0

    def close(self) -> None:
        """End the workers."""
        self._decoder.close()

    def image(self, sop: str, frame: int, window: Window) -> ShownImage:
        """An image that the spool holds. Raises DicomError, or ServeError (files_expired)."""
        spool = self._scheduler.spool
        name = spool.database.value("SELECT file FROM instance WHERE sop = ?", sop)
        if not name:
            raise _expired()

        def read() -> tuple[ShownImage, int]:
            order = ImageOrder(str(spool.folder / "files" / name), frame, window)
            answer = self._decoder.call(shown_image, order)
            if isinstance(answer, DicomError):
                raise answer
            return answer, len(answer.png)

        return self._once((name, frame, window), read)

    def drawings(self, job: sqlite3.Row) -> dict[tuple[int, int], tuple[str, bytes]]:
        """(prediction, part) -> caption and PNG; {} for a refused study. Raises ServeError:
        files_expired, model_gone, drawing_busy, and those of `ModelProcess`.
        """
        files = self._scheduler.spool.database.rows(
            "SELECT file FROM instance WHERE study = ?", job["study"]
        )
        if not any(row["file"] for row in files):
            raise _expired()

        def draw() -> tuple[dict[tuple[int, int], tuple[str, bytes]], int]:
            drawn = {
                (one["prediction"], one["part"]): (one["caption"], base64.b64decode(one["png"]))
                for one in self._draw(job)
            }
            return drawn, sum(len(png) for _, png in drawn.values())

        return self._once(job["id"], draw)

    def _draw(self, job: sqlite3.Row) -> list[Drawing]:
        models = {model.facts.sha256: model for model in self._scheduler.models}
        model = models.get(job["model"])
        if model is None:
            raise ServeError(
                "the model that answered is no longer served: it cannot draw", code=MODEL_GONE
            )
        if not self._drawing.acquire(timeout=WAIT_SECONDS):
            raise ServeError("other pictures are being drawn: try again", code="drawing_busy")
        try:
            with work_folder(self._scheduler.spool, job) as folder:
                return model.draw(folder, DRAW_SECONDS)
        finally:
            self._drawing.release()

    def _once(self, key: Hashable, make: Callable[[], tuple[Value, int]]) -> Value:
        """The value of a key, made at the first call."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(Value, self._kept[key][0])
        value, n_bytes = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = value, n_bytes
                self._n_bytes += n_bytes
            while self._n_bytes > MAX_KEPT:
                self._n_bytes -= self._kept.popitem(last=False)[1][1]
        return value


def _expired() -> ServeError:
    return ServeError(
        "the images of this study were removed after the retention time", code=FILES_EXPIRED
    )
