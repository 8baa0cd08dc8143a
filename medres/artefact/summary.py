"""What `medres verify` prints: everything that a model file states about itself, as text or as
JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.dicom.standard_terms import sop_class_name
from data_pipelines.kinds import UNITS
from data_pipelines.runtime.plain_text import counted, escaped
from medres.artefact.archive import Artefact
from medres.artefact.boxes import DetectionFields
from medres.artefact.card import Card, intended_use_text
from medres.artefact.golden_vectors import TOLERANCE
from medres.artefact.validation import UPRIGHT

WIDTH = 18


def origin(artefact: Artefact) -> str:
    """What was shown about the origin of the file: "intact, not signed", or "signed by" and the
    fingerprint of the key.
    """
    return "intact, not signed" if artefact.signer is None else f"signed by {artefact.signer}"


def as_dict(artefact: Artefact) -> dict[str, Any]:
    """The summary as JSON values. verified: the checksums match and the reference outputs are
    reproduced, which does not show who wrote the file; origin and signer do.
    """
    card = artefact.card.model_dump()
    card["intended_use"] = intended_use_text(artefact.card.intended_use)
    checks = {
        "origin": origin(artefact),
        "signer": artefact.signer,
        "sha256": artefact.sha256,
        "golden_difference": artefact.golden_difference,
        "golden_tolerance": TOLERANCE,
    }
    return {"verified": True, **checks, "parameters": artefact.model.count_params(), "card": card}


def lines(artefact: Artefact) -> list[str]:
    """The summary as text: one fact per line, under headings. Control characters of the file are
    escaped, so that they do not reach the terminal.
    """
    card = artefact.card
    caution = (
        "Checksums can be renewed by anyone: only a signature shows who wrote this file."
        if artefact.signer is None
        else "The signature shows who signed this file, not that what it states is true."
    )
    out = [
        f"{origin(artefact)}: the checksums match, and the reference outputs are reproduced "
        f"(difference at most {artefact.golden_difference:.1e}, limit {TOLERANCE:.0e})",
        f"{caution} What follows is what the file states about itself.",
        "",
        *_section("model", _model(artefact)),
        *_section("input", _input(card)),
        *_section("prediction", _prediction(card)),
        *_section("training data", _training(card)),
        *_section("made with", [(name, version) for name, version in card.versions.items()]),
        intended_use_text(card.intended_use),
    ]
    return [escaped(line) for line in out]


def _section(title: str, facts: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> list[str]:
    return [title.upper(), *(f"  {name:<{WIDTH}}{value}" for name, value in facts), ""]


def _model(artefact: Artefact) -> Iterator[tuple[str, str]]:
    card = artefact.card
    config = card.training.get("config", {}).get("model", {})
    yield "network", f"{artefact.model.name}, {artefact.model.count_params():,} parameters"
    if config.get("version"):
        yield "version", f"{config['version']}, stem {config.get('stem')}"
    yield "task", f"{card.task}: {', '.join(card.names)}"
    yield "best epoch", str(card.training.get("kept_epoch", "not stated"))
    yield "file SHA-256", artefact.sha256


def _input(card: Card) -> Iterator[tuple[str, str]]:
    spec = card.preprocess
    yield "images", f"{spec.kind}, prepared as {spec.name} (spec {spec.sha256[:12]})"
    if card.input_units:
        yield "units", UNITS[card.input_units].title
    for center, width in card.windows or ():
        yield "window", f"center {center:g} HU, width {width:g} HU (inside the model)"


def _decoding(fields: DetectionFields) -> Iterator[tuple[str, str]]:
    """How the raw maps of a detector become boxes."""
    yield "unit", "boxes in each image"
    yield "levels", f"one position for {', '.join(map(str, fields.strides))} pixels along a side"
    yield (
        "decoding",
        f"scores from {fields.score_threshold:g} on; of boxes of one class with an overlap above "
        f"{fields.nms_iou:g} the best; at most {fields.most} in an image",
    )
    yield "scores", "not calibrated"


def _prediction(card: Card) -> Iterator[tuple[str, str]]:
    if card.detection is not None:
        yield from _decoding(card.detection)
    else:
        yield "unit", "one study (CT: one series)"
        yield "pooling", f"{card.pooling} over the images of the study"
    if card.training.get("config", {}).get("after", {}).get("views", 1) > 1:
        yield "test time", "mean of the logits of the image and of four shifted copies"
    if card.detection is None:
        yield (
            "calibration",
            f"{card.calibration.get('method', 'none')}, on the tune (validation) split",
        )
    for point in card.operating_points:
        yield (
            f"threshold {point.name}",
            f"{point.finding} >= {point.threshold:.4g} per {point.unit} "
            f"({point.criterion}, {point.split} split, {counted(point.n_patients, 'patient')})",
        )
    for entry in card.conformal:
        yield (
            "conformal",
            f"{entry.finding} = {entry.label}: quantile {entry.quantile:.4g} at alpha "
            f"{entry.alpha:g} ({counted(entry.n_patients, 'patient')})",
        )
    for note in card.training.get("notes", ()):
        yield "note", str(note)
    if card.novelty_threshold is not None:
        yield (
            "refuses",
            f"out-of-distribution images (distance above {card.novelty_threshold:.3g})",
        )
    if UPRIGHT in card.members:
        yield "refuses", "images that appear rotated or flipped"


def _training(card: Card) -> Iterator[tuple[str, str]]:
    for name, counts in card.training.get("splits", {}).items():
        yield (
            name,
            ", ".join(
                counted(counts[key], noun)
                for key, noun in (
                    ("patients", "patient"),
                    ("studies", "study"),
                    ("images", "image"),
                )
            ),
        )
    domain = card.domain
    if domain is None:
        yield "domain", "not stated: only the kind of image is checked"
        return
    sop_classes: Counter[str] = Counter()
    for uid, count in domain.sop_classes.items():
        sop_classes[sop_class_name(uid)] += count
    for name, codes in (
        ("format", domain.formats),
        ("SOP class", sop_classes),
        ("modality", domain.modalities),
        ("body part", domain.body_parts),
        ("view", domain.views),
    ):
        yield (
            name,
            ", ".join(f"{code or 'not stated'} {count}" for code, count in codes.items())
            or "not stated",
        )
    yield (
        "size",
        f"{domain.rows[0]:g} to {domain.rows[1]:g} rows, {domain.cols[0]:g} to {domain.cols[1]:g} "
        f"columns",
    )
    spacing = domain.spacing_mm
    yield (
        "pixel spacing",
        "not stated" if spacing is None else f"{spacing[0]:.3g} to {spacing[1]:.3g} mm",
    )
    if domain.detector_scale is not None:
        low, high = domain.detector_scale.spacing_mm
        yield "detector spacing", f"{low:.3g} to {high:.3g} mm"
    for scale, where in ((domain.scale, ""), (domain.detector_scale, " at the detector")):
        if scale is not None:
            rows, cols = scale.row_extent_mm, scale.col_extent_mm
            yield (
                "extent",
                f"{rows[0]:.4g} to {rows[1]:.4g} mm of rows, {cols[0]:.4g} to {cols[1]:.4g} mm of "
                f"columns{where}",
            )
    tolerance = domain.tolerance
    yield (
        "tolerance",
        f"accepted beyond these ranges: size x {tolerance.size:g} (x "
        f"{tolerance.size_without_spacing:g} without a spacing), spacing x {tolerance.spacing:g}, "
        f"extent x {tolerance.extent:g}",
    )
