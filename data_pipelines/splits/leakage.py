"""What lies on both sides of a given split: refused with a list, or taken out of the side that
counts less.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_pipelines.errors import SplitError
from data_pipelines.runtime.atomic_files import csv_bytes, write_atomic
from data_pipelines.runtime.csv_cells import escape_formula
from data_pipelines.splits.stratified import SPLITS, check_no_overlap, overlap

COLUMNS = ("path", "split", "same", "number", "source")
_GO_ON = (
    "Go on with --leaks drop, which takes such images out of train and tune and leaves test as it "
    "is; or give no "
    "splits, and one by patient is drawn."
)


def refuse_leaks(rows: pd.DataFrame, listed: Path | None) -> None:
    """Raise SplitError where a patient or equal pixels lie in two given splits, with the rows in
    the CSV `listed`.
    """
    named = rows[(rows["patient"] != "") & (rows["split"] != "")]
    try:
        check_no_overlap(named)
    except SplitError as error:
        if listed is None:
            raise
        found = []
        for what in ("patient", "pixel_sha256"):
            crossing = overlap(named, what)
            for row, number in zip(
                named.loc[crossing.index].itertuples(), pd.factorize(crossing)[0], strict=True
            ):
                found.append((row.path, row.split, what, number + 1, row.source))
        table = (
            dict(zip(COLUMNS, (escape_formula(str(v)) for v in row), strict=True)) for row in found
        )
        write_atomic(listed, csv_bytes(table, COLUMNS))
        raise SplitError(f"{error} They are listed in {listed}. {_GO_ON}") from None


def crosses_splits(rows: pd.DataFrame) -> pd.Series:
    """Whether each row's group (patients linked by identity or pixels; see link_groups) also lies
    in a split that counts more than the row's own: test before tune before train. Columns read:
    group, split; '' counts nowhere.
    """
    rank = rows["split"].map({name: place for place, name in enumerate(SPLITS)})
    return rank < rank.groupby(rows["group"]).transform("max")
