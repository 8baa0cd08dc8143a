"""Everything that medres raises on purpose.

    MedresError                  .code names the reason; documentation and tests hang on it
    ├── ModelError       model       a variant, width, depth or shape that cannot be built
    ├── WeightsError     weights     weights that do not fit the model
    ├── TrainingError    training    data or settings that cannot be trained on; a loss of NaN
    ├── ResultError      result      an object of a result that cannot be made of these images
    ├── ArtefactError    artefact    a model file that is broken, altered, foreign or too new
    ├── ExportError      export      numbers that differ, or a runtime that is not installed
    ├── RefusedInput     refused     a study outside the model's domain: .reason is for people
    ├── ServeError       serve       what the server does not accept, or cannot do
    └── EvaluationError  evaluation  a scores table that cannot be evaluated

Data errors come from data_pipelines.errors. A message says what is wrong, what was received, where,
and how to fix it, and never holds a patient's data.
"""

from __future__ import annotations

from data_pipelines.errors import CodedError


class MedresError(CodedError):
    """Root of the errors of medres. `code` is a stable, lower-case reason code: the class's own, or
    a narrower one that the raise gives.
    """

    code = "medres"


class ModelError(MedresError, ValueError):
    """A model with this variant, width, depth or shape cannot be built."""

    code = "model"


class WeightsError(MedresError, ValueError):
    """The weights do not fit the model, or the weights file cannot be read."""

    code = "weights"


class TrainingError(MedresError):
    """Training cannot start or go on with these data or settings, or its loss is not finite."""

    code = "training"


class ResultError(MedresError):
    """An object of a result (report, overlay, segmentation) cannot be made of these images."""

    code = "result"


class ArtefactError(MedresError):
    """The model file is broken, altered, of another program, or too new."""

    code = "artefact"


class ExportError(MedresError):
    """An export gives other numbers than the model, or its runtime is not installed."""

    code = "export"


class RefusedInput(MedresError):
    """The study is outside the domain of the model. `reason` is one clear sentence."""

    code = "refused"

    @property
    def reason(self) -> str:
        return str(self)


class PredictionError(MedresError, ValueError):
    """A prediction cannot be made with these settings, or the network returns an invalid one."""

    code = "prediction"


class ServeError(MedresError):
    """The server does not accept a file or a setting, or cannot do what was asked."""

    code = "serve"


class EvaluationError(MedresError, ValueError):
    """The scores table, or an option of the evaluation, cannot be used."""

    code = "evaluation"
