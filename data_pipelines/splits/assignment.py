"""Which split each patient goes to: as given, as an earlier work folder had it, by a keyed hash, or
drawn by label.

Whole groups of patients move together (see identity.patient_groups). The external test set and the
folds are drawn here too.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

EXTERNAL_COLUMNS = ("site", "manufacturer", "model")


@dataclass(frozen=True, eq=False)
class SplitOptions:
    """How splits are made.

    fractions: train, tune, test. mode: "stratified" draws by label from `seed`; "hash" follows from
        each patient and the pseudonym key alone, so that patients who come later move nobody.
        earlier: table of an earlier manifest, whose patients and pictures keep their split;
        newcomers are drawn. external: (column, value): the images whose site, manufacturer, model
        or meta:* is that value are the test split. folds: number of folds of the train and tune
        splits, 0 for none.
    """

    seed: int = 0
    fractions: Sequence[float] = FRACTIONS
    mode: Literal["stratified", "hash"] = "stratified"
    earlier: pd.DataFrame | None = None
    external: tuple[str, str] | None = None
    folds: int = 0

    def check(self) -> None:
        """Raise SplitError where the plan contradicts itself."""
        check_fractions(self.fractions)
        if self.folds < 0 or self.folds == 1:
            raise SplitError(f"folds {self.folds}: give 2 or more, or 0 for none.")
        ways = {"split_mode hash": self.mode == "hash", "splits_from": self.earlier is not None}
        ways["external_site"] = self.external is not None
        if sum(ways.values()) > 1:
            raise SplitError(
                f"{' and '.join(k for k, v in ways.items() if v)} exclude each other: choose one."
            )


def apply_external_site(rows: pd.DataFrame, plan: SplitOptions) -> pd.DataFrame:
    """Give the rows of the external site the split test, and exclude other rows of the same groups
    of patients.

    Raises SplitError where no row, or every row, is of that site.
    """
    if plan.external is None:
        return rows
    column, value = plan.external
    if column not in rows or not (column in EXTERNAL_COLUMNS or column.startswith("meta:")):
        known = [*EXTERNAL_COLUMNS, *(str(name) for name in rows if str(name).startswith("meta:"))]
        raise SplitError(
            f"external_site: there is no column {column}. Choose one of {', '.join(known)}."
        )
    outside = rows[column].map(_plain) == _plain(value)
    if outside.all() or not outside.any():
        raise SplitError(
            f"external_site: {int(outside.sum())} of {len(rows)} images have the value given in "
            f"column {column}, "
            f"which has {rows[column].map(_plain).nunique()} values. Some must have it, and some "
            f"must not."
        )
    seen = outside.groupby(rows["group"]).transform("any")
    excluded = rows["excluded"].mask(seen & ~outside & (rows["excluded"] == ""), "both_sites")
    return rows.assign(split=rows["split"].mask(outside, "test"), excluded=excluded)


def assign(
    rows: pd.DataFrame, plan: SplitOptions, key: PseudonymKey, *, given: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """The split of each row, and what ingest.json says about it. `given`: the labels table or the
    files give splits.

    Raises SplitError where there are too few patients, or the plan does not fit.
    """
    groups, strata = pd.factorize(rows["group"])[0], row_strata(rows)
    if given:
        if plan.mode == "hash" or plan.earlier is not None or plan.external is not None:
            raise SplitError(
                "Splits are given with the labels: leave split_mode, splits_from and "
                "external_site out."
            )
        splits = sample_tune_split(
            groups, strata, list(rows["split"]), seed=plan.seed, fractions=plan.fractions
        )
        return splits, {"split_origin": "given"}
    if plan.external is not None:
        return _external(rows, groups, strata, plan), {
            "split_origin": "external",
            "external": plan.external[0],
        }
    if plan.mode == "hash":
        return _hashed(rows, groups, plan, key), {"split_origin": "hash"}
    if plan.earlier is not None:
        return _extend_earlier_split(rows, groups, strata, plan, plan.earlier)
    return split_patients(groups, strata, seed=plan.seed, fractions=plan.fractions), {
        "split_origin": "drawn"
    }


def folds_of(rows: pd.DataFrame, plan: SplitOptions) -> np.ndarray:
    """A fold 0..folds-1 for each row of train and tune, by whole groups and stratified; -1 for the
    rows of test.
    """
    inside = np.flatnonzero(rows["split"] != "test")
    part = rows.iloc[inside]
    folds = np.full(len(rows), -1, np.int32)
    folds[inside] = assign_folds(
        pd.factorize(part["group"])[0], row_strata(part), plan.folds, plan.seed
    )
    return folds


def _external(
    rows: pd.DataFrame, groups: np.ndarray, strata: list[str], plan: SplitOptions
) -> np.ndarray:
    splits = np.array(rows["split"], object)
    inside = np.flatnonzero(splits != "test")
    train, tune, _ = plan.fractions
    within = pd.factorize(groups[inside])[0]
    shares = (train / (train + tune), tune / (train + tune), 0.0)
    splits[inside] = split_patients(
        within, [strata[n] for n in inside], seed=plan.seed, fractions=shares
    )
    return splits


def _hashed(
    rows: pd.DataFrame, groups: np.ndarray, plan: SplitOptions, key: PseudonymKey
) -> np.ndarray:
    """Each group by the least of its patients' keyed hashes: a number from 0 to 1 that no other
    patient changes.
    """
    first = rows.groupby(groups)["patient"].min()
    train, tune, _ = plan.fractions

    def split(patient: str) -> str:
        digest = hmac.new(
            key.secret, f"split\x1f{plan.seed}\x1f{patient}".encode(), "sha256"
        ).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return SPLITS[0] if place < train else SPLITS[1] if place < train + tune else SPLITS[2]

    splits = first.map(split).to_numpy(object)[groups]
    if "train" not in splits:
        raise SplitError(
            f"{len(first)} patients are too few for a split by hash: none falls to train. Add "
            f"patients."
        )
    return splits


def _extend_earlier_split(
    rows: pd.DataFrame,
    groups: np.ndarray,
    strata: list[str],
    plan: SplitOptions,
    earlier: pd.DataFrame,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Groups with a patient or a picture of the earlier table stay; the others fill up what the
    fractions ask for.
    """
    known: list[set[str]] = [set() for _ in range(int(groups.max()) + 1)]
    for column in ("patient", "pixel_sha256"):
        before = earlier.drop_duplicates(column).set_index(column)["split"]
        for group, split in zip(groups, rows[column].map(before), strict=True):
            if isinstance(split, str):
                known[group].add(split)
    if not any(known):
        raise SplitError(
            "No patient and no picture of the earlier work folder is among these files. Is it the "
            "same cohort, with the same "
            "pseudonym key (--key-file EARLIER/pseudonym.key)?"
        )
    torn = sum(len(splits) > 1 for splits in known)
    if torn:
        raise SplitError(
            f"{torn} groups of patients lie in two splits of the earlier work folder: new files "
            f"show that they belong "
            "together (the same patient or the same pixels). Leave those files out, or draw new "
            "splits."
        )
    place = {name: number for number, name in enumerate(SPLITS)}
    parts = np.array([place[next(iter(splits))] if splits else -1 for splits in known])
    new = np.flatnonzero(parts < 0)
    by_group = group_strata(groups, strata)
    for stratum in sorted({by_group[n] for n in new}):
        same = np.array([name == stratum for name in by_group])
        fresh = np.flatnonzero(same & (parts < 0))
        held = np.bincount(parts[same & (parts >= 0)], minlength=len(SPLITS))
        parts[fresh] = allocate([stratum] * len(fresh), plan.fractions, plan.seed, held=held)
    count = Counter(bool(splits) for splits in known)
    return np.array(SPLITS, object)[parts[groups]], {
        "split_origin": "earlier",
        "splits_kept": {"patient_groups": count[True], "new_patient_groups": count[False]},
    }


def _plain(text: object) -> str:
    return " ".join(str(text).split()).casefold()
