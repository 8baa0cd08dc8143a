"""What the reports of classifiers, masks, boxes and reader studies have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from data_pipelines.runtime.plain_text import json_text
from medres.evaluate.reporting.csv_tables import Row
from medres.evaluate.reporting.save import save_report
from medres.evaluate.serialization import JsonObject


class SavedReport(ABC):
    """A report as JSON, as a page and as a folder. report: typed results with `to_json`."""

    report: Any

    @cached_property
    def numbers(self) -> JsonObject:
        """What report.json holds: plain dicts, lists, numbers and texts."""
        numbers: JsonObject = self.report.to_json()
        return numbers

    def to_json(self) -> str:
        """report.json as text; never NaN or infinity."""
        return json_text(self.numbers, indent=1, ensure_ascii=False) + "\n"

    @abstractmethod
    def to_html(self) -> str:
        """The self-contained page."""

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write report.html, report.json and tables/*.csv into a new folder: all of them, or after
        a failure none. Returns the folder.

        Raises EvaluationError if the folder exists and is not empty. `overwrite` replaces an
        earlier report, and nothing else.
        """
        return save_report(self._texts(), self._tables(), Path(folder), overwrite=overwrite)

    def _texts(self) -> dict[str, str]:
        """The files beside the tables, by name."""
        return {"report.json": self.to_json(), "report.html": self.to_html()}

    @abstractmethod
    def _tables(self) -> Mapping[str, list[Row]]:
        """The rows of each CSV file, by its name."""

    def _repr_html_(self) -> str:
        return self.to_html()
