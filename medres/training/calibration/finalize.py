"""After the fit, on the tuning split alone and at the unit that is served: calibration, operating
points, conformal quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medres.artefact.archive import summary_hash, versions, with_probability
from medres.artefact.card import SERVED, Calibration, Card, ConformalQuantile, OperatingPoint
from medres.evaluate.metrics.thresholds import criterion, threshold
from medres.evaluate.scores.units import AnalysisUnits
from medres.models.test_time_augmentation import with_views
from medres.training.calibration.conformal import conformal_quantile
from medres.training.calibration.scaling import binary_temperature, identity, platt, temperature
from medres.training.data import (
    POOL,
    CompiledModel,
    ScoredImages,
    TrainingData,
    fewest,
    tuning_holdout,
)

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Finalized:
    """What goes into the card beside the weights; left_out: what could not be found, and why."""

    calibration: Calibration
    points: list[OperatingPoint]
    conformal: list[ConformalQuantile]
    left_out: list[dict[str, str]]


def frozen(
    core: keras.Model, data: TrainingData, config: dict[str, Any], kept_epoch: int
) -> tuple[keras.Model, Card]:
    """The served model and its card, from the weights that `core` holds now (float32, logits)."""
    after, held = config["after"], tuning_holdout(data, config["after"]["alpha"])
    core = with_views(core, after["views"], data.cache.spec.fill)
    logits = CompiledModel(core).score(data, "tune")
    calibration = calibrate(logits.take(~held), after["calibration"])
    served = with_probability(core, calibration, data.targets.task)
    scored = CompiledModel(served).score(data, "tune")
    made = after_calibration(calibration, scored.take(~held), scored.take(held), data.unit, after)
    return served, card_of(data, config, made, kept_epoch)


def card_of(data: TrainingData, config: dict[str, Any], made: Finalized, kept_epoch: int) -> Card:
    training = {
        "config": config,
        "kept_epoch": kept_epoch,
        "splits": data.manifest.summary["splits"],
        "left_out": made.left_out,
    }
    return Card(
        task=data.targets.task,
        names=list(data.targets.names),
        preprocess=data.cache.spec,
        unit=cast(Any, data.unit),
        pooling=cast(Any, POOL[data.targets.task]),
        calibration=vars(made.calibration),
        operating_points=made.points,
        conformal=made.conformal,
        training=training,
        versions=versions(),
    )


def after_calibration(
    calibration: Calibration,
    fitted: ScoredImages,
    held: ScoredImages,
    unit: str,
    after: dict[str, Any],
) -> Finalized:
    """Operating points from `fitted` and conformal quantiles from `held`, both with served
    probabilities.
    """
    points, missing = operating_points(fitted, unit, after["operating_points"])
    quantiles, without = conformal(held, after["alpha"])
    return Finalized(calibration, points, quantiles, missing + without)


def calibrate(logits: ScoredImages, method: str) -> Calibration:
    """Calibration at study level: of the largest logit of a study (a rising map leaves it the
    largest), or of the mean of its images' class probabilities.

    method: "platt" or "temperature" (classes always take a temperature), or "none". A finding whose
        tuning studies are all of one class stays as it is; studies whose images have several
        classes are left out.
    """
    names, units = logits.targets.names, logits.units(SERVED)
    if method == "none":
        return identity(len(names))
    if logits.targets.task == "multiclass":
        return _class_temperature(logits, units)
    result = identity(len(names), method)
    for i, name in enumerate(names):
        sample = units.sample(name)
        result.n[i], result.n_positive[i] = len(sample.label), sample.n_positive
        if not 0 < sample.n_positive < len(sample.label):
            continue
        if method == "platt":
            result.scale[i], result.offset[i] = platt(sample.score, sample.label)
        else:
            result.scale[i] = binary_temperature(sample.score, sample.label)
    return result


def _class_temperature(logits: ScoredImages, units: AnalysisUnits) -> Calibration:
    names = logits.targets.names
    label = np.stack([units.label[name] for name in names], axis=1)
    sound = np.nansum(label, axis=1) == 1
    number = {key: i for i, key in enumerate(units.key[sound])}
    member = logits.table[SERVED].map(number)
    images = member.notna().to_numpy()
    count = [int(label[sound, i].sum()) for i in range(len(names))]
    if not number:
        return identity(len(names), "temperature")
    own = np.argmax(np.nan_to_num(label[sound]), axis=1)
    scale = temperature(logits.scores[images], own, member[images].to_numpy(np.int64))
    return Calibration(
        "temperature",
        [scale] * len(names),
        [0.0] * len(names),
        [int(sound.sum())] * len(names),
        count,
    )


def operating_points(
    scored: ScoredImages, unit: str, wanted: dict[str, str]
) -> tuple[list[OperatingPoint], list[dict[str, str]]]:
    """The points of every finding, at `unit` and at the served unit; none for classes. Also what
    could not be had, and why.

    scored: probabilities as served. wanted: name -> criterion; "default" is Youden's unless it is
        named there.
    """
    points, left_out = [], []
    for level in dict.fromkeys((unit, SERVED)):
        units = scored.units(level)
        for finding in units.names if units.task != "multiclass" else ():
            sample = units.sample(finding)
            source = summary_hash([sample.label.tolist(), sample.score.tolist()])
            for name, text in ({"default": "youden"} | wanted).items():
                both = 0 < sample.n_positive < len(sample.label)
                found = threshold(sample, criterion(text)) if both else None
                if found is None:
                    why = (
                        "no threshold reaches it"
                        if both
                        else f"one class only among the tuning units ({level})"
                    )
                    left_out.append(
                        {"finding": finding, "what": f"operating point {name} ({text})", "why": why}
                    )
                    continue
                points.append(
                    OperatingPoint(
                        finding=finding,
                        name=name,
                        threshold=found,
                        criterion=text,
                        unit=level,
                        split="tune",
                        n_patients=sample.n_patients,
                        sha256=source,
                    )
                )
    return points, left_out


def conformal(
    held: ScoredImages, alpha: float
) -> tuple[list[ConformalQuantile], list[dict[str, str]]]:
    """Quantiles of 1 - p(label) by finding and label (or class), at the served unit; and which
    could not be had, and why.

    held: served probabilities of tuning patients that had no part in early stopping, calibration or
        thresholds.
    """
    found: list[ConformalQuantile] = []
    left_out: list[dict[str, str]] = []
    if alpha == 0:
        return found, left_out
    units = held.units(SERVED) if len(held.scores) else None
    several = held.targets.task == "multiclass"
    for name in held.targets.names:
        for label in (name,) if several else (0, 1):
            scores, patient = _nonconformity(units, name, 1 if several else int(label))
            quantile, n = conformal_quantile(scores, patient, alpha), len(np.unique(patient))
            if quantile is None:
                why = (
                    f"{n} patients of this class were kept apart; {fewest(alpha)} are needed"
                    if units
                    else TOO_FEW
                )
                left_out.append(
                    {"finding": name, "what": f"conformal quantile of {label}", "why": why}
                )
                continue
            found.append(
                ConformalQuantile(
                    finding=name, label=label, alpha=alpha, quantile=quantile, n_patients=n
                )
            )
    return found, left_out


TOO_FEW = (
    "a third of the tuning patients is too few for a quantile, so all serve early stopping "
    "and thresholds"
)


def _nonconformity(
    units: AnalysisUnits | None, name: str, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """1 - p(label) of the units with that label, and their patients."""
    if units is None:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    chosen = units.label[name] == label
    score = units.score[name][chosen]
    return 1.0 - score if label else score, units.patient[chosen]
