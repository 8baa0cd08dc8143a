"""Which split each patient goes to: as given, as in an earlier work folder, by a keyed hash, or
drawn by label.

Linked patients move together (see ingestion.patient_identity.link_patients). The external test set
and the folds are made here too.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import pandas as pd

from data_pipelines.errors import SplitError
from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.stratified import (
    FRACTIONS,
    SPLITS,
    allocate,
    assign_folds,
    check_fractions,
    group_strata,
    row_strata,
    sample_tune_split,
    split_patients,
)

#: so many patients may share a study or series UID; a UID of more patients is no identifier
MAX_PATIENTS = 2
EXTERNAL_COLUMNS = ("site", "manufacturer", "model")


@dataclass(frozen=True, eq=False)
class SplitOptions:
    """How splits are made.

    fractions: shares of train, tune and test.
    mode: "stratified" draws by label from `seed`; "hash" depends on each patient and the pseudonym
        key only, so that patients who are added later do not move the others.
    earlier: table of an earlier manifest. Its patients and images keep their split; new ones are
        drawn.
    external: (column, value). The images with this site, manufacturer, model or meta:* are the test
        split.
    folds: number of folds of the train and tune splits, 0 for none.
    patients_per_uid: number of patients whom a study or series UID may link; above it, the UID is
        no identifier.
    no_split: make no splits; all images are then in `test`.
    """

    seed: int = 0
    fractions: Sequence[float] = FRACTIONS
    mode: Literal["stratified", "hash"] = "stratified"
    earlier: pd.DataFrame | None = None
    external: tuple[str, str] | None = None
    folds: int = 0
    patients_per_uid: int = MAX_PATIENTS
    no_split: bool = False

    def check(self) -> None:
        """Raise SplitError (codes fractions, folds, split_options) unless the options agree."""
        check_fractions(self.fractions)
        if self.folds < 0 or self.folds == 1:
            raise SplitError(
                f"folds {self.folds}: give 2 or more, or 0 for no folds.", code="folds"
            )
        if self.patients_per_uid < 1:
            raise SplitError(
                f"patients_per_uid {self.patients_per_uid}: give 1 or more.", code="split_options"
            )
        if len(self.methods) > 1:
            raise SplitError(
                f"{' and '.join(self.methods)} exclude each other: choose one.",
                code="split_options",
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The options that are used instead of a draw by label."""
        used = {
            "split_mode hash": self.mode == "hash",
            "splits_from": self.earlier is not None,
            "external_site": self.external is not None,
            "no_split": self.no_split,
        }
        return tuple(name for name, is_used in used.items() if is_used)


class SplitRecord(TypedDict, total=False):
    """What ingest.json says about the splits. external: the column; splits_kept: counts of groups
    of patients.
    """

    split_origin: Literal["given", "external", "hash", "earlier", "drawn", "none"]
    external: str
    splits_kept: dict[str, int]


def apply_external_site(rows: pd.DataFrame, options: SplitOptions) -> pd.DataFrame:
    """Give the rows of the external site the split test, and exclude the other rows of the same
    groups of patients (reason both_sites).

    Raises SplitError (code external_site) when there is no such column, or when no row or every row
    is of that site.
    """
    if options.external is None:
        return rows
    column, value = options.external
    if column not in rows or not (column in EXTERNAL_COLUMNS or column.startswith("meta:")):
        columns = [*EXTERNAL_COLUMNS, *(str(n) for n in rows if str(n).startswith("meta:"))]
        raise SplitError(
            f"external_site: there is no column {column}. Choose one of {', '.join(columns)}.",
            code="external_site",
        )
    values = rows[column].map(_normal_text)
    external = values == _normal_text(value)
    if external.all() or not external.any():
        raise SplitError(
            f"external_site: {int(external.sum())} of {len(rows)} images have the given value in "
            f"column {column}, which has {values.nunique()} different values. Choose a value that "
            f"some images have and others do not.",
            code="external_site",
        )
    seen_there = external.groupby(rows["group"]).transform("any")
    both = seen_there & ~external & (rows["excluded"] == "")
    return rows.assign(
        split=rows["split"].mask(external, "test"),
        excluded=rows["excluded"].mask(both, "both_sites"),
    )


def assign(
    rows: pd.DataFrame, options: SplitOptions, key: PseudonymKey, *, splits_given: bool
) -> tuple[np.ndarray, SplitRecord]:
    """Return the split of each row, and what ingest.json says about it.

    splits_given: the labels table or the files give splits. Columns read: group, split, patient,
    pixel_sha256, kind and the labels. Raises SplitError: too_few_patients, split_options, or
    earlier_split when the rows do not fit the earlier work folder.
    """
    groups, strata = pd.factorize(rows["group"])[0], row_strata(rows)
    seed, fractions = options.seed, options.fractions
    if splits_given:
        if options.methods:
            raise SplitError(
                f"The labels give splits: leave {' and '.join(options.methods)} out.",
                code="split_options",
            )
        given = list(rows["split"])
        splits = sample_tune_split(groups, strata, given, seed=seed, fractions=fractions)
        return splits, {"split_origin": "given"}
    if options.no_split:
        return np.full(len(rows), SPLITS[-1], object), {"split_origin": "none"}
    if options.external is not None:
        splits = _external(rows, groups, strata, options)
        return splits, {"split_origin": "external", "external": options.external[0]}
    if options.mode == "hash":
        return _hashed(rows, groups, options, key), {"split_origin": "hash"}
    if options.earlier is not None:
        return _extend_earlier_split(rows, groups, strata, options, options.earlier)
    splits = split_patients(groups, strata, seed=seed, fractions=fractions)
    return splits, {"split_origin": "drawn"}


def folds_of(rows: pd.DataFrame, options: SplitOptions) -> np.ndarray:
    """Return a fold 0..folds-1 for each row of train and tune, by whole groups and stratified, and
    -1 for each row of test: int32 (rows,).
    """
    inside = np.flatnonzero(rows["split"] != "test")
    part = rows.iloc[inside]
    folds = np.full(len(rows), -1, np.int32)
    folds[inside] = assign_folds(
        pd.factorize(part["group"])[0], row_strata(part), options.folds, options.seed
    )
    return folds


def _external(
    rows: pd.DataFrame, groups: np.ndarray, strata: list[str], options: SplitOptions
) -> np.ndarray:
    """Train and tune of the rows that are not of the external site."""
    splits = np.array(rows["split"], object)
    inside = np.flatnonzero(splits != "test")
    train, tune, _ = options.fractions
    splits[inside] = split_patients(
        pd.factorize(groups[inside])[0],
        [strata[n] for n in inside],
        seed=options.seed,
        fractions=(train / (train + tune), tune / (train + tune), 0.0),
    )
    return splits


def _hashed(
    rows: pd.DataFrame, groups: np.ndarray, options: SplitOptions, key: PseudonymKey
) -> np.ndarray:
    """Each group by the first of its pseudonyms in sorted order: HMAC-SHA256 turns it into a number
    from 0 to 1, which no other patient changes.
    """
    first = rows.groupby(groups)["patient"].min()
    train, tune, _ = options.fractions

    def split(patient: str) -> str:
        message = f"split\x1f{options.seed}\x1f{patient}".encode()
        digest = hmac.new(key.secret, message, "sha256").digest()
        position = int.from_bytes(digest[:8], "big") / 2**64
        return (
            SPLITS[0] if position < train else SPLITS[1] if position < train + tune else SPLITS[2]
        )

    splits = first.map(split).to_numpy(object)[groups]
    if "train" not in splits:
        raise SplitError(
            f"{len(first)} patients are too few for a split by hash: no patient falls into train. "
            f"Add patients.",
            code="too_few_patients",
        )
    return splits


def _extend_earlier_split(
    rows: pd.DataFrame,
    groups: np.ndarray,
    strata: list[str],
    options: SplitOptions,
    earlier: pd.DataFrame,
) -> tuple[np.ndarray, SplitRecord]:
    """Groups with a patient or an image of the earlier table keep their split; new groups are drawn
    so that the totals approach the fractions.
    """
    parts = _earlier_parts(rows, groups, earlier)
    n_new = int((parts < 0).sum())
    group_stratum = np.array(group_strata(groups, strata), object)
    for stratum in sorted(set(group_stratum[parts < 0])):
        same = group_stratum == stratum
        new = np.flatnonzero(same & (parts < 0))
        existing = np.bincount(parts[same & (parts >= 0)], minlength=len(SPLITS))
        parts[new] = allocate(
            [stratum] * len(new), options.fractions, options.seed, existing=existing
        )
    return np.array(SPLITS, object)[parts[groups]], {
        "split_origin": "earlier",
        "splits_kept": {"patient_groups": len(parts) - n_new, "new_patient_groups": n_new},
    }


def _earlier_parts(rows: pd.DataFrame, groups: np.ndarray, earlier: pd.DataFrame) -> np.ndarray:
    """The index into SPLITS of each group in the earlier table, -1 for a new group."""
    splits_of: list[set[str]] = [set() for _ in range(int(groups.max()) + 1)]
    for column in ("patient", "pixel_sha256"):
        split_of_value = earlier.drop_duplicates(column).set_index(column)["split"]
        for group, split in zip(groups, rows[column].map(split_of_value), strict=True):
            if isinstance(split, str):
                splits_of[group].add(split)
    if not any(splits_of):
        raise SplitError(
            "No patient and no image of the earlier work folder is among these files. Check that "
            "it is the same cohort, ingested with the same pseudonym key (--key-file "
            "EARLIER/pseudonym.key).",
            code="earlier_split",
        )
    n_crossing = sum(len(splits) > 1 for splits in splits_of)
    if n_crossing:
        raise SplitError(
            f"{n_crossing} groups of patients lie in two splits of the earlier work folder: new "
            f"files show that they belong together (the same patient or the same pixels). Leave "
            f"those files out, or draw new splits.",
            code="split_leak",
        )
    return np.array([SPLITS.index(next(iter(s))) if s else -1 for s in splits_of])


def _normal_text(text: object) -> str:
    return " ".join(str(text).split()).casefold()
