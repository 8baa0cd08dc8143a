"""Folds by patient and the ensemble of their models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.cross_validation.folds import CrossValidation, cross_validate

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.cross_validation.folds": "CrossValidation cross_validate",
    },
)
