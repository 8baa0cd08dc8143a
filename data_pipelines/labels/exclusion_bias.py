"""Exclusions by label and split, and the test whether exclusion is associated with a label.

An exclusion that depends on the label (colored arrows on the sick, damaged files of one clinic)
biases what a model learns and every figure of its report.

Keys of ingest.json, written by every ingest:

    exclusions_by_label   a list of ExclusionRow, one per finding, value and split that has images
    exclusion_tests       a list of ExclusionTest, one per finding, or per class of several
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

#: reasons of files that would be no sample anyhow, or of which a copy is included: nothing is lost
NO_LOSS = frozenset(
    {"duplicate", "no_image", "modality", "localizer", "projection", "rendering", "subtraction"}
    | {"screen_capture", "parametric_map"}
)
MAX_ADJUSTED_P = 0.01
MAX_SHARE_DIFFERENCE = 0.05
PERMUTATIONS = 99_999
CLASS = "class"
_VALUES = {"1": 1.0, "0": 0.0, "-1": -1.0}
NOT_ASSESSED = "not_assessed"
_SPLITS = ("train", "tune", "test", "")
_MAX_LINES = 20


class ExclusionRow(TypedDict):
    """What was excluded of the images with one label in one split.

    finding: name of the finding, or "class" for a multi-class task. value: "1", "0", "-1",
    "not_assessed", or the name of the class. split: train, tune or test; "" where none is known.
    patients, images: those given. patients_excluded: patients with any excluded image.
    images_excluded: excluded images. codes: reason code -> number of excluded images.
    """

    finding: str
    value: str
    split: str
    patients: int
    patients_excluded: int
    images: int
    images_excluded: int
    codes: dict[str, int]


class ExclusionTest(TypedDict):
    """Whether exclusion is associated with a finding, or with a class against all others.

    p_value: two-sided, of patients with any excluded image: Fisher's exact test, or a permutation
    test where a patient has images of both values; None where one value has no patient. p_adjusted:
    by Holm over all findings. share_positive, share_negative: of the patients with and without the
    finding, the share with any excluded image. associated: p_adjusted < 0.01, and the shares differ
    by more than five points.
    """

    finding: str
    p_value: float | None
    p_adjusted: float | None
    share_positive: float | None
    share_negative: float | None
    associated: bool


class PatientCounts(NamedTuple):
    """Images of one patient: with the finding, without it, and how many of each are excluded."""

    positive: int
    negative: int
    positive_excluded: int
    negative_excluded: int


def exclusions_by_label(rows: pd.DataFrame) -> list[ExclusionRow]:
    """Count the exclusions of each label in each split.

    rows: one per labeled image, kept or excluded. Columns read: patient (one text per patient),
    split, reason ('' for an image that is kept), and label:<finding> or class.
    """
    table: list[ExclusionRow] = []
    for finding, values in _label_values(rows).items():
        for value in _in_order(values):
            for split in _SPLITS:
                part = rows[(values == value) & (rows["split"] == split)]
                if len(part):
                    table.append(_row(part, finding, value, split))
    return table


def exclusion_tests(rows: pd.DataFrame, *, seed: int = 0) -> list[ExclusionTest]:
    """Test each finding (of a multi-class task: each class against all others), see ExclusionTest.

    rows: as for exclusions_by_label. Images that are uncertain or not assessed do not count.
    """
    columns = _label_values(rows)
    if list(columns) == [CLASS]:
        values = columns[CLASS]
        assessed = values != NOT_ASSESSED
        positives = {name: values.eq(name) for name in sorted(set(values[assessed]))}
    else:
        positives = {name: values.eq("1") for name, values in columns.items()}
        assessed = None
    results = {}
    for name, positive in positives.items():
        used = columns[name].isin(["0", "1"]) if assessed is None else assessed
        results[name] = _shares_and_p(_patient_counts(rows[used], positive[used]), seed)
    adjusted = holm([p for _, _, p in results.values()])
    return [
        _test(name, *result, p_adjusted)
        for (name, result), p_adjusted in zip(results.items(), adjusted, strict=True)
    ]


def association_p(patients: Sequence[PatientCounts], *, seed: int = 0) -> float:
    """Two-sided p value of the difference between the share of patients with any excluded image
    among those with the finding, and among those without it.

    A patient with images of both values counts on both sides. Without such patients it is Fisher's
    exact test. With them, the labels are permuted: of whole patients among those with one value,
    and of images within each patient with both; at least as large a difference in either direction
    counts, over PERMUTATIONS draws and the observed one.

    >>> round(association_p([PatientCounts(1, 0, 1, 0)] * 4 + [PatientCounts(0, 1, 0, 0)] * 4), 4)
    0.0286
    """
    one_value = [p for p in patients if not (p.positive and p.negative)]
    both = [p for p in patients if p.positive and p.negative]
    n_positive = sum(p.positive > 0 for p in one_value)
    n_excluded = sum(_any_excluded(p) for p in one_value)
    positive_excluded = sum(p.positive_excluded > 0 for p in one_value)
    if not both:
        from scipy.stats import fisher_exact

        negative_excluded = n_excluded - positive_excluded
        n_negative = len(one_value) - n_positive
        cells = [
            [positive_excluded, n_positive - positive_excluded],
            [negative_excluded, n_negative - negative_excluded],
        ]
        return float(fisher_exact(cells).pvalue)
    rng = np.random.default_rng(seed)
    draws = rng.hypergeometric(
        n_excluded, len(one_value) - n_excluded, n_positive, size=PERMUTATIONS
    )
    positives, negatives = draws, n_excluded - draws
    for kind, count in sorted(Counter(_margins(p) for p in both).items()):
        outcomes = rng.multinomial(count, _side_probabilities(*kind), size=PERMUTATIONS)
        positives = positives + outcomes[:, 0] + outcomes[:, 2]
        negatives = negatives + outcomes[:, 1] + outcomes[:, 2]
    sizes = n_positive + len(both), len(one_value) - n_positive + len(both)
    # differences as integers: draws that equal the observed one must count
    observed = sizes[1] * sum(p.positive_excluded > 0 for p in patients) - sizes[0] * sum(
        p.negative_excluded > 0 for p in patients
    )
    differences = np.abs(sizes[1] * positives - sizes[0] * negatives)
    return float((1 + (differences >= abs(observed)).sum()) / (1 + PERMUTATIONS))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number (Holm 1979); None stays None and does not count.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    ranked = sorted((p, n) for n, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, n) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[n] = largest
    return adjusted


def exclusion_warnings(tests: Sequence[ExclusionTest]) -> list[str]:
    """Return one sentence for each finding that is associated with exclusion."""
    return [
        f"exclusion is associated with {test['finding']}: an image was excluded of "
        f"{test['share_positive']:.0%} of the patients with it and of {test['share_negative']:.0%} "
        f"of those without it (p = {test['p_adjusted']:.2g}). See exclusions_by_label in "
        f"ingest.json for the reasons"
        for test in tests
        if test["associated"]
    ]


def exclusion_lines(table: Sequence[ExclusionRow]) -> list[str]:
    """Return the table as lines of text, one per label: excluded of all images in each split."""
    if not table:
        return []
    splits = [split for split in _SPLITS if any(row["split"] == split for row in table)]
    groups: dict[tuple[str, str], list[ExclusionRow]] = {}
    for row in table:
        groups.setdefault((row["finding"], row["value"]), []).append(row)
    listed = sorted(groups.items(), key=lambda item: -_share_excluded(item[1]))[:_MAX_LINES]
    shown = [key for key in groups if key in dict(listed)]
    lines = [("excluded by label", *(split or "no split" for split in splits), "share", "reasons")]
    lines += [_line(key, groups[key], splits) for key in shown]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    n_more = len(groups) - len(shown)
    return text + [f"and {n_more} more labels, see ingest.json"] * (n_more > 0)


def _line(
    key: tuple[str, str], rows: Sequence[ExclusionRow], splits: Sequence[str]
) -> tuple[str, ...]:
    cells = {row["split"]: f"{row['images_excluded']} of {row['images']}" for row in rows}
    codes: Counter[str] = Counter()
    for row in rows:
        codes.update(row["codes"])
    reasons = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    name = f"{key[0]} = {key[1]}"
    share = f"{_share_excluded(rows):.1%}"
    return (name, *(cells.get(split, "-") for split in splits), share, reasons)


def _share_excluded(rows: Sequence[ExclusionRow]) -> float:
    return sum(row["images_excluded"] for row in rows) / sum(row["images"] for row in rows)


def _label_values(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """The value of each image for each finding, as text; in `class`, the name of the class."""
    if CLASS in rows:
        return {CLASS: rows[CLASS].where(rows[CLASS] != "", NOT_ASSESSED).astype(object)}
    columns = {}
    for column in rows:
        if str(column).startswith("label:"):
            text = pd.Series(NOT_ASSESSED, index=rows.index, dtype=object)
            for value, number in _VALUES.items():
                text[rows[column] == number] = value
            columns[str(column).removeprefix("label:")] = text
    return columns


def _in_order(values: pd.Series) -> list[str]:
    known = [*_VALUES, *sorted(set(values) - {*_VALUES, NOT_ASSESSED}), NOT_ASSESSED]
    return [value for value in known if (values == value).any()]


def _row(part: pd.DataFrame, finding: str, value: str, split: str) -> ExclusionRow:
    excluded = part[part["reason"] != ""]
    return {
        "finding": finding,
        "value": value,
        "split": split,
        "patients": int(part["patient"].nunique()),
        "patients_excluded": int(excluded["patient"].nunique()),
        "images": len(part),
        "images_excluded": len(excluded),
        "codes": dict(sorted(Counter(excluded["reason"]).items())),
    }


def _patient_counts(rows: pd.DataFrame, positive: pd.Series) -> list[PatientCounts]:
    excluded = rows["reason"] != ""
    columns = {
        "positive": positive,
        "negative": ~positive,
        "positive_excluded": positive & excluded,
        "negative_excluded": ~positive & excluded,
    }
    sums = pd.DataFrame(columns, dtype=int).groupby(rows["patient"]).sum()
    return [PatientCounts(*values) for values in sums.itertuples(index=False)]


def _shares_and_p(
    patients: Sequence[PatientCounts], seed: int
) -> tuple[float | None, float | None, float | None]:
    """The shares with and without the finding, and p; None where one value has no patient."""
    positive = [p.positive_excluded > 0 for p in patients if p.positive]
    negative = [p.negative_excluded > 0 for p in patients if p.negative]
    shares = [sum(side) / len(side) if side else None for side in (positive, negative)]
    p_value = association_p(patients, seed=seed) if positive and negative else None
    return shares[0], shares[1], p_value


def _test(
    finding: str,
    share_positive: float | None,
    share_negative: float | None,
    p_value: float | None,
    p_adjusted: float | None,
) -> ExclusionTest:
    associated = (
        p_adjusted is not None
        and share_positive is not None
        and share_negative is not None
        and p_adjusted < MAX_ADJUSTED_P
        and abs(share_positive - share_negative) > MAX_SHARE_DIFFERENCE
    )
    return {
        "finding": finding,
        "p_value": p_value,
        "p_adjusted": p_adjusted,
        "share_positive": share_positive,
        "share_negative": share_negative,
        "associated": associated,
    }


def _any_excluded(patient: PatientCounts) -> bool:
    return patient.positive_excluded + patient.negative_excluded > 0


def _margins(patient: PatientCounts) -> tuple[int, int, int]:
    """Images with the finding, images without it, and excluded images."""
    n_excluded = patient.positive_excluded + patient.negative_excluded
    return patient.positive, patient.negative, n_excluded


def _side_probabilities(positive: int, negative: int, excluded: int) -> list[float]:
    """The probabilities, when the labels of one patient's images are permuted, that the excluded
    ones lie on the positive side only, the negative side only, both sides, or that there are none.
    """
    if not excluded:
        return [0.0, 0.0, 0.0, 1.0]
    from scipy.stats import hypergeom

    drawn = hypergeom(positive + negative, excluded, positive)
    only_positive, only_negative = float(drawn.pmf(excluded)), float(drawn.pmf(0))
    both = max(0.0, 1.0 - only_positive - only_negative)
    total = only_positive + only_negative + both
    return [only_positive / total, only_negative / total, both / total, 0.0]
