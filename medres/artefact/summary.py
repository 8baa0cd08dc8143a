"""What `medres verify` prints: everything that a model file says about itself, for a terminal or
for programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from medres.artefact.archive import Artefact
from medres.artefact.card import Card
from medres.artefact.golden_vectors import TOLERANCE
from medres.artefact.validation import UPRIGHT

WIDTH = 18


def as_dict(artefact: Artefact) -> dict[str, Any]:
    """The page's content for programs."""
    card = artefact.card.model_dump()
    checks = {
        "sha256": artefact.sha256,
        "golden_difference": artefact.golden_difference,
        "golden_tolerance": TOLERANCE,
    }
    return {"verified": True, **checks, "parameters": artefact.model.count_params(), "card": card}


def lines(artefact: Artefact) -> list[str]:
    """The page: one fact a line, under headings. No control character of the file reaches the
    terminal.
    """
    card = artefact.card
    out = [
        "VERIFIED  members, graph and weights are those that medres wrote; golden probabilities "
        "differ by at most "
        f"{artefact.golden_difference:.1e} (limit {TOLERANCE:.0e})",
        "",
        *_section("model", _model(artefact)),
        *_section("input", _input(card)),
        *_section("answer", _answer(card)),
        *_section("training data", _training(card)),
        *_section("made with", [(name, version) for name, version in card.versions.items()]),
        card.intended_use,
    ]
    return ["".join(c for c in line if c.isprintable()) for line in out]


def _section(title: str, facts: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> list[str]:
    return [title.upper(), *(f"  {name:<{WIDTH}}{value}" for name, value in facts), ""]


def _model(artefact: Artefact) -> Iterator[tuple[str, str]]:
    card = artefact.card
    config = card.training.get("config", {}).get("model", {})
    yield "network", f"{artefact.model.name}, {artefact.model.count_params():,} parameters"
    if config.get("version"):
        yield "version", f"{config['version']}, stem {config.get('stem')}"
    yield "task", f"{card.task}: {', '.join(card.names)}"
    yield "kept epoch", str(card.training.get("kept_epoch", "not stated"))
    yield "file SHA-256", artefact.sha256


def _input(card: Card) -> Iterator[tuple[str, str]]:
    spec = card.preprocess
    yield "images", f"{spec.kind}, prepared as {spec.name} (spec {spec.sha256[:12]})"
    if card.input_units:
        yield (
            "units",
            {"HU": "Hounsfield units", "display": "display values 0 to 1, bright = dense"}[
                card.input_units
            ],
        )
    for centre, width in card.windows or ():
        yield "window", f"centre {centre:g} HU, width {width:g} HU (inside the model)"


def _answer(card: Card) -> Iterator[tuple[str, str]]:
    yield "asked for", "one study (CT: one series)"
    yield "pooling", f"{card.pooling} over the images of the study"
    if card.training.get("config", {}).get("after", {}).get("views", 1) > 1:
        yield "test time", "the mean of the image's logits and those of four shifted copies"
    yield "calibration", f"{card.calibration.get('method', 'none')}, on the tuning split"
    for point in card.operating_points:
        yield (
            f"threshold {point.name}",
            f"{point.finding} >= {point.threshold:.4g} a {point.unit} "
            f"({point.criterion}, {point.split} split, {point.n_patients} patients)",
        )
    for record in card.conformal:
        yield (
            "conformal",
            f"{record.finding} = {record.label}: quantile {record.quantile:.4g} at alpha "
            f"{record.alpha:g} ({record.n_patients} patients)",
        )
    if card.novelty_threshold is not None:
        yield (
            "refuses",
            f"images further than {card.novelty_threshold:.3g} from the training images",
        )
    if UPRIGHT in card.members:
        yield "refuses", "images that would fit the training images better upside down or turned"


def _training(card: Card) -> Iterator[tuple[str, str]]:
    for name, counts in card.training.get("splits", {}).items():
        yield (
            name,
            f"{counts['patients']} patients, {counts['studies']} studies, {counts['images']} "
            f"images",
        )
    domain = card.domain
    if domain is None:
        yield "domain", "not stated: nothing but the kind of image is refused"
        return
    for what, codes in (
        ("modality", domain.modalities),
        ("body part", domain.body_parts),
        ("view", domain.views),
    ):
        yield (
            what,
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
