"""After training, on the tuning (validation) split only and at the unit that is served: probability
calibration, operating points and conformal quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medres.artefact.archive import summary_hash, versions, with_probability
from medres.artefact.card import SERVED, Calibration, Card, ConformalQuantile, OperatingPoint
from medres.evaluate.metrics.thresholds import (
    FEW_PATIENTS,
    class_patients,
    criterion,
    threshold,
)
from medres.evaluate.scores.sample import Sample
from medres.evaluate.scores.units import AnalysisUnits
from medres.models.test_time_augmentation import with_views
from medres.training.calibration.conformal import conformal_quantile
from medres.training.calibration.scaling import binary_temperature, identity, platt, temperature
from medres.training.data import (
    CompiledModel,
    ScoredImages,
    TrainingData,
    min_patients_for_quantile,
    set_cells,
    too_few_for_sets,
    tuning_holdout,
)

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Finalized:
    """What the card has beside the weights. left_out: the finding, what could not be computed for
    it, and why.
    """

    calibration: Calibration
    points: list[OperatingPoint]
    conformal: list[ConformalQuantile]
    left_out: list[dict[str, str]]


def finalized(
    logit_model: keras.Model, data: TrainingData, config: dict[str, Any], best_epoch: int
) -> tuple[keras.Model, Card]:
    """The served model (images in model units to probabilities) and its card.

    logit_model: float32, from images to logits, with the weights of the best epoch. config: as in
        config.json.
    """
    after = config["after"]
    holdout = tuning_holdout(data, after["alpha"])
    logit_model = with_views(logit_model, after["views"], data.cache.spec.fill)
    logits = CompiledModel(logit_model).score(data, "tune")
    calibration = calibrate(logits.take(~holdout), after["calibration"])
    served = with_probability(logit_model, calibration, data.task.name)
    scored = CompiledModel(served).score(data, "tune")
    result = after_calibration(
        calibration, scored.take(~holdout), scored.take(holdout), data.unit, after
    )
    return served, card_of(data, config, result, best_epoch)


def card_of(data: TrainingData, config: dict[str, Any], result: Finalized, best_epoch: int) -> Card:
    """The card of a trained model. config: as in config.json."""
    training = {
        "config": config,
        "kept_epoch": best_epoch,
        "splits": data.manifest.summary["splits"],
        "left_out": result.left_out,
        "notes": notes(result),
    }
    return Card(
        task=data.task.name,
        names=list(data.targets.names),
        preprocess=data.cache.spec,
        unit=cast(Any, data.unit),
        pooling=data.task.pool,
        calibration=vars(result.calibration),
        operating_points=result.points,
        conformal=result.conformal,
        training=training,
        versions=versions(),
    )


def after_calibration(
    calibration: Calibration,
    fitted: ScoredImages,
    holdout: ScoredImages,
    unit: str,
    after: dict[str, Any],
) -> Finalized:
    """Operating points from `fitted` and conformal quantiles from `holdout`, both with the served
    probabilities. after: the part of config.json with this name.
    """
    points, no_points = operating_points(fitted, unit, after["operating_points"])
    quantiles, no_quantiles = conformal(holdout, after["alpha"])
    return Finalized(calibration, points, quantiles, no_points + no_quantiles)


def notes(result: Finalized) -> list[str]:
    """What a user should know about the results of the tuning split, one line each: thresholds that
    few patients fix, and what could not be found.
    """
    few = [
        f"{point.finding}: the threshold {point.name} was found on {point.n_class_patients} "
        f"patients of the class that fixes it ({point.criterion}), fewer than {FEW_PATIENTS}: "
        f"with other patients it could lie elsewhere"
        for point in result.points
        if point.unit == SERVED
        and point.n_class_patients is not None
        and point.n_class_patients < FEW_PATIENTS
    ]
    by_reason: dict[str, list[dict[str, str]]] = {}
    for entry in result.left_out:
        by_reason.setdefault(entry["why"], []).append(entry)
    return few + [
        f"{_names(entries, 'finding')}: {_names(entries, 'what')} left out: {why}"
        for why, entries in by_reason.items()
    ]


def _names(entries: list[dict[str, str]], key: str) -> str:
    return ", ".join(dict.fromkeys(entry[key] for entry in entries))


def calibrate(logits: ScoredImages, method: str) -> Calibration:
    """Calibration at study level: of the largest logit of a study (the largest one remains so under
    an increasing map), or of the mean of the class probabilities of its images.

    method: "platt" or "temperature" (classes always have one temperature), or "none". A finding
        whose tuning studies are all positive or all negative stays uncalibrated; studies whose
        images have several classes are not used.
    """
    names, units = logits.targets.names, logits.units(SERVED)
    if method == "none":
        return identity(len(names))
    if logits.task.exclusive:
        return _class_temperature(logits, units)
    result = identity(len(names), method)
    for i, name in enumerate(names):
        sample = units.sample(name)
        result.n[i], result.n_positive[i] = len(sample.label), sample.n_positive
        if not _has_both_classes(sample):
            continue
        if method == "platt":
            result.scale[i], result.offset[i] = platt(sample.score, sample.label)
        else:
            result.scale[i] = binary_temperature(sample.score, sample.label)
    return result


def _class_temperature(logits: ScoredImages, units: AnalysisUnits) -> Calibration:
    names = logits.targets.names
    labels = np.stack([units.label[name] for name in names], axis=1)
    has_one_class = np.nansum(labels, axis=1) == 1
    index = {key: i for i, key in enumerate(units.key[has_one_class])}
    if not index:
        return identity(len(names), "temperature")
    unit_of_image = logits.table[SERVED].astype("str").map(index)
    images = unit_of_image.notna().to_numpy()
    scale = temperature(
        logits.scores[images],
        np.argmax(np.nan_to_num(labels[has_one_class]), axis=1),
        unit_of_image[images].to_numpy(np.int64),
    )
    return Calibration(
        "temperature",
        [scale] * len(names),
        [0.0] * len(names),
        [int(has_one_class.sum())] * len(names),
        [int(labels[has_one_class, i].sum()) for i in range(len(names))],
    )


def operating_points(
    scored: ScoredImages, unit: str, criteria: dict[str, str]
) -> tuple[list[OperatingPoint], list[dict[str, str]]]:
    """The operating points of every finding at `unit` and at the served unit (none for classes),
    and those that could not be computed, with the reason.

    scored: probabilities as served. criteria: by name of the point; "default" is Youden's unless it
        is among them.
    """
    points: list[OperatingPoint] = []
    left_out: list[dict[str, str]] = []
    if not scored.task.has_thresholds:
        return points, left_out
    for level in dict.fromkeys((unit, SERVED)):
        units = scored.units(level)
        for finding in units.names:
            sample = units.sample(finding)
            sha256 = summary_hash([sample.label.tolist(), sample.score.tolist()])
            for name, text in ({"default": "youden"} | criteria).items():
                value = threshold(sample, criterion(text)) if _has_both_classes(sample) else None
                if value is None:
                    why = (
                        "no threshold reaches the criterion"
                        if _has_both_classes(sample)
                        else f"one class only among the tuning units ({level})"
                    )
                    what = f"operating point {name} ({text})"
                    left_out.append({"finding": finding, "what": what, "why": why})
                    continue
                points.append(
                    OperatingPoint(
                        finding=finding,
                        name=name,
                        threshold=value,
                        criterion=text,
                        unit=level,
                        split="tune",
                        n_patients=sample.n_patients,
                        sha256=sha256,
                        n_class_patients=class_patients(sample, criterion(text)),
                    )
                )
    return points, left_out


def _has_both_classes(sample: Sample) -> bool:
    return bool(0 < sample.n_positive < len(sample.label))


def conformal(
    holdout: ScoredImages, alpha: float
) -> tuple[list[ConformalQuantile], list[dict[str, str]]]:
    """Quantiles of 1 - p(label) for both labels of a finding (or for all classes) at the served
    unit, and those that could not be computed, with the reason.

    A finding, or the classes, have either all their quantiles or none: a label without a quantile
    would be in every set. holdout: served probabilities of tuning patients that early stopping,
    calibration and thresholds did not use.
    """
    quantiles: list[ConformalQuantile] = []
    left_out: list[dict[str, str]] = []
    if alpha == 0:
        return quantiles, left_out
    units = holdout.units(SERVED) if len(holdout.scores) else None
    for cells in set_cells(holdout):
        of_set: list[ConformalQuantile] = []
        missing: dict[int | str, dict[str, str]] = {}
        for finding, label, value in cells:
            scores, patient = _nonconformity(units, finding, value)
            quantile, n = conformal_quantile(scores, patient, alpha), len(np.unique(patient))
            if quantile is None:
                why = too_few_for_sets(alpha)
                if units is not None:
                    why = (
                        f"{n} patients of this class are in the holdout; "
                        f"{min_patients_for_quantile(alpha)} are needed"
                    )
                missing[label] = _left_out(finding, label, why)
                continue
            of_set.append(
                ConformalQuantile(
                    finding=finding, label=label, alpha=alpha, quantile=quantile, n_patients=n
                )
            )
        if missing:
            why = (
                f"sets need a quantile of every class, and {', '.join(map(str, missing))} has none"
            )
            missing |= {q.label: _left_out(q.finding, q.label, why) for q in of_set}
        quantiles += [] if missing else of_set
        left_out += missing.values()
    return quantiles, left_out


def _left_out(finding: str, label: int | str, why: str) -> dict[str, str]:
    return {"finding": finding, "what": f"conformal quantile of {label}", "why": why}


def _nonconformity(
    units: AnalysisUnits | None, name: str, label: int
) -> tuple[np.ndarray, np.ndarray]:
    """1 - p(label) of the units with this label, and their patients."""
    if units is None:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    mask = units.label[name] == label
    score = units.score[name][mask]
    return 1.0 - score if label else score, units.patient[mask]
