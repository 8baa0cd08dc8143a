"""`medres.score`: the scores of a model file, or of a model that was fitted and not saved yet."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras

from data_pipelines.cache.store import cached_specs
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.errors import TrainingError
from medres.evaluate.scores.scored import Scored
from medres.fitting.logit_graph import Outputs, savable_model, takes_images_of
from medres.fitting.saving import save
from medres.inference.scoring import score as score_file
from medres.progress import ProgressReporter


def score(
    model: keras.Model | Path | str,
    work: Path | str,
    split: str = "test",
    *,
    preset: str | dict | PreprocessSpec | None = None,
    outputs: Outputs | None = None,
    progress: ProgressReporter | None = None,
    check: Callable[[Scored], object] | None = None,
) -> Scored:
    """Score one split of a work folder; `medres.evaluate.evaluate` takes the result as it is.

    model: path of a medres file, or a fitted Keras model. The latter is scored as the file that
        `medres.save(model, work, preset=preset, outputs=outputs)` would write: calibrated, and with
        the operating points of the tuning split.
    split: "train", "tune" (validation) or "test"; each access to the test split is logged in the
        work folder.
    preset: of a Keras model; None: the only one of the caches of the work folder that has the shape
        of its input. outputs: of a Keras model, as for `medres.save`; a file has both in its card.
    check: see `medres.inference.scoring.score_split`; it refuses a request before the scoring.
    Raises ArtefactError if the labels of the work folder are not those of the file, SpecError if
    the split is unknown or has no image for this model, what `medres.save` raises, and
    TrainingError (codes which_preset; stated_by_file for preset or outputs beside a path).
    """
    if isinstance(model, str | Path):
        if preset is not None or outputs is not None:
            raise TrainingError(
                f"{model} has its preset and its outputs in its card: leave preset and outputs out",
                code="stated_by_file",
            )
        return score_file(model, work, split, progress=progress, check=check)
    savable_model(model)
    spec = _cached_spec(model, work) if preset is None else preset
    with tempfile.TemporaryDirectory(prefix="medres-score-") as folder:
        path = Path(folder) / "model.keras"
        save(model, work, preset=spec, out=path, outputs=outputs, progress=progress)
        return score_file(path, work, split, progress=progress, check=check)


def _cached_spec(model: keras.Model, work: Path | str) -> PreprocessSpec:
    """The only spec among the caches that gives images as this model takes them."""
    specs = {spec.sha256: spec for spec in cached_specs(work)}
    fitting = [spec for spec in specs.values() if takes_images_of(model, spec)]
    if len(fitting) != 1:
        names = ", ".join(spec.name for spec in fitting) or "none"
        raise TrainingError(
            f"caches of the work folder for images of shape {tuple(model.inputs[0].shape)}: "
            f"{names}. Say with which preset the model was fitted: "
            f'medres.score(model, work, preset="xray-224")',
            code="which_preset",
        )
    return fitting[0]
