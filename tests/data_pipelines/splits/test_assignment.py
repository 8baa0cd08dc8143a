from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import raises_code

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import ManifestError, SplitError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.pseudonyms import PseudonymKey
from data_pipelines.splits.assignment import SplitOptions, apply_external_site, assign, folds_of

KEY = PseudonymKey(b"k" * 64, "file")
pytestmark = pytest.mark.usefixtures("in_process")


def rows_of(
    patients: int, *, positive: float = 0.5, images: int = 2, first: int = 0
) -> pd.DataFrame:
    """Two images a patient; the first share of them positive; pixels of their own."""
    number = np.repeat(np.arange(first, first + patients), images)
    label = (number - first < positive * patients).astype(float)
    return pd.DataFrame(
        {
            "patient": [f"p{n:05d}" for n in number],
            "group": number,
            "pixel_sha256": [f"x{n}-{k}" for k, n in enumerate(number)],
            "kind": "radiograph",
            "split": "",
            "excluded": "",
            "site": np.where(number % 4 == 0, "North ", "south"),
            "label:a": label,
        }
    )


def by_patient(rows: pd.DataFrame, splits: np.ndarray) -> dict[str, str]:
    assert rows.assign(split=splits).groupby("patient")["split"].nunique().max() == 1
    return dict(zip(rows["patient"], splits, strict=True))


def test_a_hash_moves_nobody_when_patients_are_added() -> None:
    few, many = rows_of(100), rows_of(1000)
    options = SplitOptions(mode="hash")
    first, record = assign(few, options, KEY, splits_given=False)
    later, _ = assign(many, options, KEY, splits_given=False)
    assert record == {"split_origin": "hash"}
    before, after = by_patient(few, first), by_patient(many, later)
    assert {p: after[p] for p in before} == before
    shares = pd.Series(after).value_counts(normalize=True)
    for split, share in zip(("train", "tune", "test"), options.fractions, strict=True):
        assert shares[split] == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1000))
    assert (
        by_patient(
            many, assign(many, SplitOptions(mode="hash", seed=1), KEY, splits_given=False)[0]
        )
        != after
    )
    other = PseudonymKey(b"o" * 64, "file")
    assert by_patient(many, assign(many, options, other, splits_given=False)[0]) != after


def test_a_hash_keeps_linked_patients_together() -> None:
    rows = rows_of(40)
    rows["group"] //= 4
    splits = rows.assign(split=assign(rows, SplitOptions(mode="hash"), KEY, splits_given=False)[0])
    assert splits.groupby("group")["split"].nunique().max() == 1


def test_an_earlier_split_is_frozen_and_newcomers_keep_the_shares_of_each_label() -> None:
    rows = rows_of(40, positive=0.25)
    splits = assign(rows, SplitOptions(), KEY, splits_given=False)[0]
    before = by_patient(rows, splits)
    table = rows.assign(split=splits)
    for step in range(1, 41):  # one patient at a time
        options = SplitOptions(earlier=table, seed=step)
        grown = pd.concat(
            [table, rows_of(1, positive=step % 2, first=100 + step)], ignore_index=True
        )
        new, record = assign(grown.assign(split=""), options, KEY, splits_given=False)
        assert record["splits_kept"] == {"patient_groups": 39 + step, "new_patient_groups": 1}
        table = grown.assign(split=new)
    after = by_patient(table, table["split"].to_numpy())
    assert {p: after[p] for p in before} == before
    for _, part in table.drop_duplicates("patient").groupby("label:a"):
        counts = part["split"].value_counts()
        expected = np.array([0.7, 0.15, 0.15]) * len(part)
        assert np.abs(counts[["train", "tune", "test"]].to_numpy() - expected).max() <= 1.5


def test_an_earlier_split_is_found_by_pixels_where_patients_have_no_name() -> None:
    table = rows_of(20).assign(split="test")
    renamed = table.assign(patient="other" + table["patient"], split="")
    splits, _ = assign(renamed, SplitOptions(earlier=table), KEY, splits_given=False)
    assert set(splits) == {"test"}


def test_an_earlier_split_that_does_not_fit_is_refused() -> None:
    table = rows_of(20)
    table["split"] = np.where(table["group"] < 10, "train", "test")
    with raises_code(SplitError, "earlier_split"):
        assign(
            rows_of(5, first=500).assign(pixel_sha256="y"),
            SplitOptions(earlier=table),
            KEY,
            splits_given=False,
        )
    linked = table.assign(split="", group=table["group"].replace(15, 3))
    with raises_code(SplitError, "split_leak", "1 groups"):
        assign(linked, SplitOptions(earlier=table), KEY, splits_given=False)


def test_an_external_site_is_the_test_split() -> None:
    rows = rows_of(40)
    rows.loc[rows.index[3], "site"] = "NORTH"  # patient 1 was seen at both
    marked = apply_external_site(rows, SplitOptions(external=("site", "north")))
    assert marked["excluded"].tolist() == ["", "", "both_sites", ""] + [""] * 76
    included = marked[marked["excluded"] == ""]
    splits, record = assign(
        included, SplitOptions(external=("site", "north")), KEY, splits_given=False
    )
    assert record["split_origin"] == "external"
    assert ((splits == "test") == included["site"].str.strip().str.lower().eq("north")).all()
    counts = included.assign(split=splits).groupby("split")["patient"].nunique()
    assert counts["tune"] / (counts["train"] + counts["tune"]) == pytest.approx(
        0.15 / 0.85, abs=0.05
    )
    assert included.assign(split=splits).groupby("patient")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("external", "mentioned"),
    [
        (("site", "CANARY"), "0 of 80 images"),
        (("kind", "radiograph"), "kind"),
        (("meta:x", "1"), "meta:x"),
    ],
)
def test_external_sites_that_do_not_fit(external: tuple[str, str], mentioned: str) -> None:
    with raises_code(SplitError, "external_site", mentioned) as caught:
        apply_external_site(rows_of(40), SplitOptions(external=external))
    assert "CANARY" not in str(caught.value)


def test_folds_hold_whole_groups_every_label_and_no_test_image() -> None:
    rows = rows_of(60)
    rows["group"] //= 2
    rows = rows.assign(split=assign(rows, SplitOptions(), KEY, splits_given=False)[0])
    folds = folds_of(rows, SplitOptions(folds=4))
    assert ((folds == -1) == (rows["split"] == "test")).all()
    inside = rows.assign(fold=folds)[folds >= 0]
    assert inside.groupby("group")["fold"].nunique().max() == 1
    table = inside.drop_duplicates("group").groupby(["fold", "label:a"]).size().unstack()
    assert (table.max() - table.min()).max() <= 1
    with raises_code(SplitError, "folds", "40 folds"):
        folds_of(rows, SplitOptions(folds=40))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (SplitOptions(folds=1), "folds"),
        (SplitOptions(fractions=(0.5, 0.5, 0.5)), "fractions"),
        (SplitOptions(mode="hash", external=("site", "x")), "split_options"),
    ],
)
def test_options_that_exclude_each_other(options: SplitOptions, code: str) -> None:
    with raises_code(SplitError, code):
        options.check()


def test_given_splits_exclude_other_options() -> None:
    with raises_code(SplitError, "split_options", "split_mode hash"):
        assign(rows_of(9).assign(split="train"), SplitOptions(mode="hash"), KEY, splits_given=True)


def cohort(folder: Path, numbers: range) -> Path:
    lines = ["patient_id,x,site"]
    for number in numbers:
        uids = {name: derived_uid(name, number) for name in ("study", "series", "sop")}
        dataset = new_dataset(
            "CR", "1.2.840.10008.1.2.1", patient_id=f"P{number}", patient="", **uids
        )
        pixels = np.random.default_rng(number).integers(0, 4096, (12, 12)).astype(np.uint16)
        set_pixels(dataset, pixels, bits=12)
        save(dataset, folder / "in" / f"{number}.dcm")
        lines.append(f"P{number},{number % 2},{'north' if number % 3 == 0 else 'south'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "in"


def test_a_second_ingest_keeps_the_first_ones_splits_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MEDRES_KEY", raising=False)
    first = ingest(cohort(tmp_path, range(20)), tmp_path / "labels.csv", tmp_path / "one", seed=3)
    again = ingest(
        cohort(tmp_path, range(30)),
        tmp_path / "labels.csv",
        tmp_path / "two",
        splits_from=tmp_path / "one",
        folds=3,
    )
    before, after = (m.table.set_index("image")["split"] for m in (first, again))
    assert (after[before.index] == before).all()
    assert again.summary["split_origin"] == "earlier"
    assert again.summary["splits_kept"] == {"patient_groups": 20, "new_patient_groups": 10}
    assert set(Manifest.load(tmp_path / "two").table["fold"]) == {-1, 0, 1, 2}
    with raises_code(ManifestError, "no_manifest"):
        ingest(tmp_path / "in", splits_from=tmp_path / "in")


def test_an_external_site_through_ingest(tmp_path: Path) -> None:
    manifest = ingest(
        cohort(tmp_path, range(20)), tmp_path / "labels.csv", external_site=("site", "north")
    )
    table = manifest.table
    assert ((table["split"] == "test") == (table["site"] == "north")).all()
    assert manifest.summary["external"] == "site"
