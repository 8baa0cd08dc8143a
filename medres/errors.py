"""Everything that medres raises on purpose.

    MedresError
    ├── ModelError          a variant, width, depth or shape that cannot be built
    ├── WeightsError        weights that do not fit the model
    ├── TrainingError       data or settings that cannot be trained on; a loss that is not finite
    ├── ArtefactError       a model file that is broken, altered, foreign or of another version
    ├── ExportError         an exported model whose numbers differ, or a runtime that is not installed
    ├── RefusedInput        a study that this model was not made for: .reason is for the person who asked
    └── EvaluationError     a scores table that cannot be evaluated

Data errors come from data_pipelines.errors. A message says what is wrong, what was received, where, and how to mend it,
and never holds a patient's data.
"""

from __future__ import annotations


class MedresError(Exception):
    """Root of the tree."""


class ModelError(MedresError, ValueError):
    pass


class WeightsError(MedresError, ValueError):
    pass


class TrainingError(MedresError):
    pass


class ArtefactError(MedresError):
    pass


class ExportError(MedresError):
    pass


class RefusedInput(MedresError):
    """`reason` is one clear sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EvaluationError(MedresError, ValueError):
    pass
