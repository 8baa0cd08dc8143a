"""`medres.save`: a model that was fitted by hand as a medres file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec
from medres.artefact.archive import save as save_archive
from medres.artefact.graph_check import checked_graph
from medres.errors import ArtefactError, TrainingError
from medres.fitting.logit_graph import Outputs, logit_graph, savable_model
from medres.progress import Bars, ProgressReporter
from medres.training.calibration.finalize import finalized
from medres.training.checks import check_card_texts, check_classes, check_trainable
from medres.training.config.options import RunOptions, preprocessing, resolve_settings
from medres.training.data import load_data
from medres.training.input_statistics import with_input_statistics
from medres.training.network import backbone_sha256


def save(
    model: keras.Model,
    work: Path | str,
    *,
    preset: str | dict | PreprocessSpec | None = None,
    out: Path | str,
    split: str = "tune",
    outputs: Outputs | None = None,
    calibration: str = "platt",
    operating_points: dict[str, str] | None = None,
    alpha: float = 0.0,
    views: int = 1,
    progress: ProgressReporter | None = None,
) -> Path:
    """Write a fitted Keras model as a medres file, with what `medres.train` gives its models:
    calibration and operating points from the tuning (validation) split, the limit of the distance
    from the training images, the training domain, and reference outputs. Returns the path.

    model: functional or Sequential, trained anywhere, from images as `medres.data` gives them
        (float32, model units) to logits or probabilities. `medres.classifier` and `medres.adapt`
        build such models; a `fused_training_copy` of one is taken as the original. It stays as it
        is; the file holds a float32 copy without a final sigmoid or softmax (see
        `medres.fitting.logit_graph`).
    preset: with which it was fitted. out: path of the file, ends in .keras.
    split: thresholds come from the tuning split: no other value is allowed.
    outputs: "logits" or "probabilities", where the end of the model does not say so.
    calibration, operating_points, views: as in medres.training.config.options.RunOptions.
    alpha: error rate of conformal sets; they need tuning patients that the fit did not see either:
        give `medres.data` the same alpha.

    Raises ModelError if the model cannot be a medres file (see `logit_graph`), ArtefactError
    (wrong_suffix, unsupported_layer, ...) and TrainingError (codes other_split, bad_setting, ...).
    Nothing at `out` is changed then.
    """
    out, reporter = Path(out), progress or Bars()
    if out.suffix != ".keras":
        raise ArtefactError(
            f"{out.name}: a medres model file ends in .keras, received "
            f"{out.suffix or 'no suffix'!r}",
            code="wrong_suffix",
        )
    if split != "tune":
        raise TrainingError(
            f"split={split!r}: thresholds and calibration come from the tuning split; train would "
            f"be too optimistic, and test is for the report",
            code="other_split",
        )
    after = {
        "calibration": calibration,
        "operating_points": operating_points or {},
        "alpha": alpha,
        "views": views,
    }
    savable_model(model)
    options, chosen = resolve_settings(None, after)
    manifest = Manifest.load(work)
    spec = preprocessing(preset, manifest)
    check_classes(manifest, spec.kind)
    data = load_data(work, spec, manifest, reporter)
    check_trainable(data, chosen)
    logits = logit_graph(
        model, spec, data.task, data.task.outputs(len(data.targets.names)), given=outputs
    )
    checked_graph(json.loads(logits.to_json()))
    settings = _settings(logits, spec, options)
    check_card_texts(data.targets.names, settings)
    served, card = finalized(logits, data, settings, len(_epochs(model)))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_archive(out, served, *with_input_statistics(card, served, data))
    for note in card.training["notes"]:
        reporter.line(note)
    return out


def _settings(logits: keras.Model, spec: PreprocessSpec, options: RunOptions) -> dict[str, Any]:
    """What config.json is for a run: the card states it."""
    return {
        "schema": "medres.run/1",
        "model": {
            "variant": "backbone",
            "version": options.version,
            "width": None,
            "stem": None,
            "windows": _windows(logits),
            "backbone_sha256": backbone_sha256(logits),
        },
        "preprocess": spec.model_dump(),
        "fitted": "keras.Model.fit",
        "after": options.model_dump(include={"calibration", "operating_points", "alpha", "views"}),
    }


def _windows(model: keras.Model) -> list[tuple[float, float]] | None:
    """(center, width) in HU of the windows that `medres.classifier` and `medres.adapt` put into a
    graph: the layers window1, window2, ...; None where there are none.
    """
    windows = []
    for number in range(1, len(model.layers)):
        layer = next((x for x in model.layers if x.name == f"window{number}"), None)
        if not isinstance(layer, keras.layers.Rescaling):
            break
        width = 1.0 / float(layer.scale)
        windows.append((round((0.5 - float(layer.offset)) * width, 3), round(width, 3)))
    return windows or None


def _epochs(model: keras.Model) -> list[int]:
    """The epochs of the last fit, as far as the model remembers them."""
    return list(getattr(getattr(model, "history", None), "epoch", None) or [])
