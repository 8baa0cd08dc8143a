"""Diagnostic evaluation of any scores table: numbers with intervals, and one page that a person can read.

`evaluate(scores)` returns a `DiagnosticReport`. numpy, scipy and pandas only: no TensorFlow is loaded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medres.evaluate.report import DiagnosticReport, evaluate

__all__ = ["DiagnosticReport", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from medres.evaluate import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
