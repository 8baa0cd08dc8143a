"""From a folder of files to a manifest: index, label, weed, order, split, give pseudonyms, write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd

from data_pipelines.doors import PICTURE_SUFFIXES, Units
from data_pipelines.duplicates import MESSAGES, find_duplicates
from data_pipelines.errors import InputError, ManifestError
from data_pipelines.files import require_new, staged_folder, write_atomic
from data_pipelines.indexing import Index, Rejected, index_sources
from data_pipelines.joining import join
from data_pipelines.labels import Labels, read_labels
from data_pipelines.leaks import leaking, refuse_leaks
from data_pipelines.manifest import COLUMNS, Manifest, check_table
from data_pipelines.own_labels import array_labels, folder_labels
from data_pipelines.pseudonyms import KEY_NAME, PseudonymKey, find_key
from data_pipelines.series import group_planes, series_verdict
from data_pipelines.splits import (
    FRACTIONS,
    check_fractions,
    check_no_overlap,
    draw_tune,
    link_groups,
    row_strata,
    split_patients,
)
from data_pipelines.summary import require_two_classes, summarise
from data_pipelines.workers import Progress

OnLeak = Literal["error", "drop"]


def ingest(
    source: Path | str | Sequence[Path | str],
    labels: Path | str | None = None,
    out: Path | str | None = None,
    *,
    findings: Sequence[str] = (),
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    key_file: Path | str | None = None,
    max_bad: float | None = None,
    for_processing: bool = False,
    units: Units | None = None,
    class_folders: bool = False,
    on_leak: OnLeak = "error",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Index the DICOM files below `source` (a path or several) and write the new folder `out` (None: memory alone).

    labels: a CSV (see read_labels); findings: its finding columns. seed, fractions: of the split by patient (train,
    tune, test), unless the CSV gives one. key_file: key of the pseudonyms; else MEDRES_KEY; else one is made in `out`.
    max_bad: greatest share (0..1) of quarantined files among the DICOM files. for_processing: accept raw radiographs.
    units: let PNG, JPEG and .npz in as well, and say what their values are (HU: int16 arrays alone). class_folders: the folder
    of each file is its class; see folder_labels. Labels and splits inside an .npz hold unless `labels` is given.
    on_leak: what becomes of a patient or equal pixels in two given splits: an error, or "drop" them from the lesser split.
    progress: called with (done, total) files.

    Raises InputError and its kin, before anything is written: an `out` in use, labels that cannot be read or meet no
    image (LabelError), a patient or equal pixels in two given splits (SplitError; the list is written beside `out` as
    <out>.leaks.csv), no image at all (ManifestError).
    """
    sources = [source] if isinstance(source, Path | str) else list(source)
    if out is not None:
        require_new(Path(out), what="a manifest")
    if max_bad is not None and not 0 <= max_bad <= 1:
        raise InputError(f"max_bad {max_bad}: give a share from 0 to 1.", code="max_bad")
    check_fractions(fractions)
    if labels is not None and class_folders:
        raise InputError("Both a labels table and class_folders are given: choose one.", code="labels")
    table = None if labels is None else read_labels(labels, findings=findings)
    key = find_key(None if key_file is None else Path(key_file))
    index = index_sources(
        sources,
        exclude=() if labels is None else (Path(labels),),
        for_processing=for_processing,
        units=units,
        workers=workers,
        progress=progress,
    )
    if table is None and not index.rows.empty:
        table = own_labels(index.rows, findings, class_folders=class_folders)
    work = None if out is None else Path(out)
    leaks = None if work is None else work.with_name(f"{work.name}.leaks.csv")
    manifest = build(index, table, key, seed=seed, fractions=fractions, max_bad=max_bad, on_leak=on_leak, leaks=leaks)
    if work is None:
        return manifest
    with staged_folder(work, what="a manifest") as folder:
        if key.origin == "made":
            write_atomic(folder / KEY_NAME, key.secret, mode=0o600)
        manifest.save(folder)
    return Manifest.load(work)


def build(
    index: Index,
    labels: Labels | None,
    key: PseudonymKey,
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    max_bad: float | None = None,
    on_leak: OnLeak = "error",
    leaks: Path | None = None,
) -> Manifest:
    """Return the manifest of indexed files, in memory; nothing is read and, but for `leaks`, nothing written.

    Arguments and errors are those of `ingest`; `leaks` is where the rows that cross given splits are listed.
    """
    _require_enough(index.rows, index.rejected, None)
    joined = join(index.rows, labels)
    rows = identify(joined.rows, key)
    if on_leak == "error":
        refuse_leaks(rows, leaks)
    rows = rows.assign(group=link_groups(list(rows["patient"]), [list(rows["pixel_sha256"]), list(_bare_ids(rows))]))
    if on_leak == "drop":
        rows = rows.assign(leaking=leaking(rows))
    rejected, rows, lost_frames = _weed(index, rows, labels)
    _require_enough(rows, rejected, max_bad)
    rows = _in_series_order(rows)
    if labels is not None:
        require_two_classes(rows, labels)
    rows = rows.assign(split=_split(rows, seed, fractions))
    check_no_overlap(rows)
    kept = [str(name) for name in rows if str(name).startswith(("label:", "meta:")) or name == "class"]
    table = check_table(rows[[*COLUMNS, *kept]].astype(dict(COLUMNS)).reset_index(drop=True), where="ingest")
    summary = summarise(
        table,
        rejected,
        labels,
        unmatched_rows=joined.unmatched_rows,
        unlabelled=int((~rows["labelled"].astype(bool)).sum()),
        lost_frames=lost_frames,
        unnamed=int((rows["person"] == "").sum()),
        seed=seed,
        fractions=fractions,
        key_origin=key.origin,
    )
    entries = [(r.path, r.reason, r.message, r.source) for r in rejected]
    return Manifest(table, summary, pd.DataFrame(entries, columns=["path", "reason", "message", "source"]))


def own_labels(rows: pd.DataFrame, findings: Sequence[str], *, class_folders: bool) -> Labels | None:
    """The labels that come with the files, where no table is given: of class folders if asked for, else inside an .npz."""
    if class_folders:
        return folder_labels(rows, findings)
    return array_labels(rows, findings) if "own_labels" in rows else None


def identify(rows: pd.DataFrame, key: PseudonymKey) -> pd.DataFrame:
    """Add the pseudonyms image, series, study and patient ('' for a patient who is not named).

    What lacks a UID is identified by its file: a series or study of one file, and where it is no DICOM at all, a patient.
    """
    own = rows["source"] + "\n" + rows["path"]

    def pseudonyms(kind: str, column: str) -> list[str]:
        known = zip(rows[column], own, strict=True)
        return [key.pseudonym(kind, uid) if uid else key.pseudonym(f"{kind} of file", file) for uid, file in known]

    images = [
        key.pseudonym("frame", image, str(n))
        for image, n in zip(pseudonyms("image", "sop_uid"), rows["frame"], strict=True)
    ]

    def patient(issuer: str, person: str, form: str, file: str) -> str:
        if person:
            return key.pseudonym("patient", issuer, person)
        return "" if form == "dicom" else key.pseudonym("patient of file", file)

    people = zip(rows["issuer"], rows["person"], rows["form"], own, strict=True)
    return rows.assign(
        image=images,
        series=pseudonyms("series", "series_uid"),
        study=pseudonyms("study", "study_uid"),
        patient=[patient(*one) for one in people],
    )


def _bare_ids(rows: pd.DataFrame) -> pd.Series:
    """Identifiers that occur with an issuer and without one: two patients by rule, perhaps one in truth."""
    bare = rows.groupby("person")["issuer"].transform(lambda issuers: (issuers == "").any() and (issuers != "").any())
    return rows["person"].where(bare.astype(bool), "")


def _weed(index: Index, rows: pd.DataFrame, labels: Labels | None) -> tuple[tuple[Rejected, ...], pd.DataFrame, int]:
    """Take out rows without a patient, without a given split, and copies; a file without a row left is rejected.

    Returns all rejected files, the rows kept, and how many frames were taken out of files that stay.
    """
    messages = {
        "no_patient_id": "PatientID is empty: name the patient in a column patient of the labels table.",
        "no_split": "The labels table gives splits, and this image none.",
        "split_leak": "Its patient, or a copy of it, lies in a split that counts more (test, then tune, then train).",
        **MESSAGES,
    }
    reason = pd.Series("", index=rows.index, dtype=object)
    if labels is not None and "split" in labels.columns:
        reason[rows["split"] == ""] = "no_split"
    if "leaking" in rows:
        reason[rows["leaking"]] = "split_leak"
    reason[rows["patient"] == ""] = "no_patient_id"
    copies = find_duplicates(rows[reason == ""])
    reason[copies.index] = copies
    kept = rows[reason == ""]
    files = pd.MultiIndex.from_frame(rows[["source", "path"]])
    gone = rows.assign(reason=reason)[~files.isin(pd.MultiIndex.from_frame(kept[["source", "path"]]))]
    lost_frames = len(rows) - len(kept) - len(gone)
    gone = gone.drop_duplicates(["source", "path"])
    rejected = [
        Rejected(source, path, code, messages[code], skipped=False)
        for source, path, code in zip(gone["source"], gone["path"], gone["reason"], strict=True)
    ]
    return tuple(sorted((*index.rejected, *rejected), key=lambda r: (r.source, r.path))), kept, lost_frames


def _in_series_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the place of each CT slice in its series along the normal, and the verdict on the series."""
    order, verdict = pd.Series(0, index=rows.index), pd.Series("SINGLE", index=rows.index, dtype=object)
    for _, series in rows[rows["kind"] == "ct"].groupby("series"):
        groups = group_planes([replace(plane, member=n) for n, plane in enumerate(series["plane"])])
        members = series.index[[plane.member for group in groups for plane in group.planes]]
        order[members] = np.arange(len(members))
        verdict[members] = series_verdict(groups)
    return rows.assign(order=order, verdict=verdict)


def _split(rows: pd.DataFrame, seed: int, fractions: Sequence[float]) -> Any:
    groups, strata = pd.factorize(rows["group"])[0], row_strata(rows)
    if (rows["split"] != "").all():
        return draw_tune(groups, strata, list(rows["split"]), seed=seed, fractions=fractions)
    return split_patients(groups, strata, seed=seed, fractions=fractions)


def _require_enough(rows: pd.DataFrame, rejected: Sequence[Rejected], max_bad: float | None) -> None:
    """Raise ManifestError where no image is left, InputError where the share of quarantined files is over `max_bad`."""
    bad = [r.reason for r in rejected if not r.skipped]
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(bad).items()))
    if rows.empty and not bad:
        pictures = sum(PurePosixPath(r.path).suffix.lower() in PICTURE_SUFFIXES for r in rejected)
        said = (
            f" {pictures} look like pictures or arrays: declare what their values are with --units." if pictures else ""
        )
        raise ManifestError(f"No DICOM file among the {len(rejected)} files given.{said or ' Check SOURCE.'}")
    if rows.empty:
        raise ManifestError(f"No image is left of {len(bad)} DICOM files: {reasons}.")
    files = len(bad) + len(rows.drop_duplicates(["source", "path"]))
    if max_bad is not None and len(bad) > max_bad * files:
        raise InputError(
            f"{len(bad)} of {files} DICOM files are quarantined, more than --max-bad {max_bad:g} allows: {reasons}. "
            "Nothing was written; without --max-bad the run completes and lists them in quarantine.csv.",
            code="max_bad",
        )
