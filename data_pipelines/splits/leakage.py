"""Given splits that share a patient or equal pixels: an error with a list, or rows to drop."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_pipelines.errors import SplitError
from data_pipelines.runtime.atomic_files import csv_bytes, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.splits.stratified import SPLITS, check_no_overlap, overlap

COLUMNS = ("path", "split", "same", "number", "source")
_FIX = (
    "Either use --leaks drop, which removes such images from train and tune and keeps test as it "
    "is, or leave the splits out of the table, and medres will split by patient."
)


def refuse_leaks(rows: pd.DataFrame, listing: Path | None) -> None:
    """Raise SplitError (code split_leak) when a patient or equal pixels lie in two given splits.

    The rows concerned are written to the CSV `listing` with the columns COLUMNS; `same` is patient
    or pixel_sha256, and rows of one number share it.
    """
    assigned = rows[(rows["patient"] != "") & (rows["split"] != "")]
    try:
        check_no_overlap(assigned)
    except SplitError as error:
        if listing is None:
            raise
        write_atomic(listing, csv_bytes(_crossing_rows(assigned), COLUMNS))
        raise SplitError(f"{error} They are listed in {listing}. {_FIX}", code=error.code) from None


def crosses_splits(rows: pd.DataFrame) -> pd.Series:
    """Whether the group of each row also lies in a split of higher rank than the row's own.

    Test ranks above tune, and tune above train. Columns read: group (a number per group of linked
    patients, see connected_groups) and split ('' has no rank).
    """
    rank = rows["split"].map({name: number for number, name in enumerate(SPLITS)})
    return rank < rank.groupby(rows["group"]).transform("max")


def _crossing_rows(rows: pd.DataFrame) -> list[dict[str, str]]:
    listed = []
    for column in ("patient", "pixel_sha256"):
        crossing = overlap(rows, column)
        part = rows.loc[crossing.index]
        numbers = pd.factorize(crossing)[0] + 1
        cells = zip(part["path"], part["split"], numbers, part["source"], strict=True)
        listed += [(path, split, column, number, source) for path, split, number, source in cells]
    return [
        dict(zip(COLUMNS, (escape_formula(str(cell)) for cell in row), strict=True))
        for row in listed
    ]
