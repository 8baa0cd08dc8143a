"""From a folder of files to a manifest: index, label, weed, order, split, give pseudonyms,
write.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd

from data_pipelines.errors import InputError, ManifestError
from data_pipelines.ingestion.decoder_agreement import cross_checked
from data_pipelines.ingestion.exclusions import excluded_files, exclusion_reasons
from data_pipelines.ingestion.index import FileIndex, RejectedFile, index_sources
from data_pipelines.ingestion.leakage_audit import audit, audit_warnings
from data_pipelines.ingestion.manifest import COLUMNS, Manifest, check_table
from data_pipelines.ingestion.patient_identity import identify, patient_groups, similar_ids
from data_pipelines.ingestion.summary import require_two_classes, summarise
from data_pipelines.kinds import UnitName
from data_pipelines.labels.embedded import array_labels, folder_labels
from data_pipelines.labels.join import join_labels
from data_pipelines.labels.raters import Readers
from data_pipelines.labels.table import Labels, read_labels
from data_pipelines.pseudonyms import ENVIRONMENT, KEY_NAME, PseudonymKey, find_key
from data_pipelines.runtime.atomic_files import require_new, staged_folder, write_atomic
from data_pipelines.runtime.worker_pool import ProgressCallback
from data_pipelines.sources.image_source import RASTER_SUFFIXES
from data_pipelines.splits.assignment import SplitOptions, apply_external_site, assign, folds_of
from data_pipelines.splits.leakage import crosses_splits, refuse_leaks
from data_pipelines.splits.stratified import FRACTIONS, check_no_overlap
from data_pipelines.volumes.series import group_planes, series_verdict

OnLeak = Literal["error", "drop"]


def ingest(
    source: Path | str | Sequence[Path | str],
    labels: Path | str | None = None,
    out: Path | str | None = None,
    *,
    findings: Sequence[str] = (),
    readers: Readers = "error",
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    split_mode: Literal["stratified", "hash"] = "stratified",
    splits_from: Path | str | None = None,
    external_site: tuple[str, str] | None = None,
    folds: int = 0,
    key_file: Path | str | None = None,
    max_bad: float | None = None,
    for_processing: bool = False,
    units: UnitName | None = None,
    class_folders: bool = False,
    on_leak: OnLeak = "error",
    workers: int | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Index the DICOM files below `source` (a path or several) and write the new folder `out`
    (None: memory alone).

    labels: a CSV (see read_labels); findings: its finding columns; readers: what becomes of rows
        with one key. seed, fractions, split_mode, external_site (column, value), folds: of the
        split by patient (train, tune, test), unless the CSV gives one; see SplitPlan. splits_from:
        an earlier work folder, whose patients keep their split.
    key_file: key of the pseudonyms; else MEDRES_KEY, else that of `splits_from`, else one is made
        in `out`.
    max_bad: greatest share (0..1) of quarantined files among the DICOM files. for_processing:
        accept raw radiographs.
    units: let PNG, JPEG and .npz in as well, and say what their values are (HU: int16 arrays
        alone). class_folders: the folder of each file is its class; see folder_labels. Labels and
        splits inside an .npz hold unless `labels` is given.
    on_leak: what becomes of a patient or equal pixels in two given splits: an error, or "drop" them
        from the lesser split.
    progress: called with (done, total) files.

    Raises InputError and its kin, before anything is written: an `out` in use, labels that cannot
    be read or meet no image (LabelError), a patient or equal pixels in two given splits
    (SplitError; the list is written beside `out` as <out>.leaks.csv), no image at all
    (ManifestError).
    """
    sources = [source] if isinstance(source, Path | str) else list(source)
    if out is not None:
        require_new(Path(out), what="a manifest")
    if max_bad is not None and not 0 <= max_bad <= 1:
        raise InputError(f"max_bad {max_bad}: give a share from 0 to 1.", code="max_bad")
    earlier = None if splits_from is None else Manifest.load(splits_from)
    plan = SplitOptions(
        seed,
        fractions,
        split_mode,
        None if earlier is None else earlier.table,
        external_site,
        folds,
    )
    plan.check()
    if labels is not None and class_folders:
        raise InputError(
            "Both a labels table and class_folders are given: choose one.", code="labels"
        )
    table = None if labels is None else read_labels(labels, findings=findings, readers=readers)
    key = find_key(_key_file(key_file, splits_from))
    index = index_sources(
        sources,
        exclude=() if labels is None else (Path(labels),),
        for_processing=for_processing,
        units=units,
        workers=workers,
        progress=progress,
    )
    index = cross_checked(index, workers)
    if table is None and not index.rows.empty:
        table = own_labels(index.rows, findings, class_folders=class_folders)
    work = None if out is None else Path(out)
    leaks = None if work is None else work.with_name(f"{work.name}.leaks.csv")
    manifest = build(index, table, key, plan=plan, max_bad=max_bad, on_leak=on_leak, leaks=leaks)
    if work is None:
        return manifest
    with staged_folder(work, what="a manifest") as folder:
        if key.origin == "made":
            write_atomic(folder / KEY_NAME, key.secret, mode=0o600)
        manifest.save(folder)
    return Manifest.load(work)


def build(
    index: FileIndex,
    labels: Labels | None,
    key: PseudonymKey,
    *,
    plan: SplitOptions | None = None,
    max_bad: float | None = None,
    on_leak: OnLeak = "error",
    leaks: Path | None = None,
) -> Manifest:
    """Return the manifest of indexed files, in memory; nothing is read and, but for `leaks`,
    nothing written.

    Arguments and errors are those of `ingest`; `leaks` is where the rows that cross given splits
    are listed.
    """
    plan = plan or SplitOptions()
    _require_enough(index.rows, index.rejected, None)
    joined = join_labels(index.rows, labels)
    given = labels is not None and "split" in labels.columns
    rows = _decided(identify(joined.rows, key), labels, plan, on_leak, leaks, given=given)
    lost, lost_frames = excluded_files(rows, rows["reason"])
    rejected = tuple(sorted((*index.rejected, *lost), key=lambda r: (r.source, r.path)))
    kept = rows[rows["reason"] == ""]
    _require_enough(kept, rejected, max_bad)
    kept = _in_series_order(kept)
    if labels is not None:
        require_two_classes(kept, labels)
    splits, said = assign(kept, plan, key, given=given)
    kept = kept.assign(split=splits)
    if plan.folds:
        kept = kept.assign(fold=folds_of(kept, plan))
    check_no_overlap(kept)
    findings, counts = audit(rows.assign(split=kept["split"].reindex(rows.index, fill_value="")))
    table = _table(kept)
    summary = summarise(
        table,
        rejected,
        labels,
        unmatched_rows=joined.unmatched_rows,
        unlabelled=int((~kept["labelled"].astype(bool)).sum()),
        lost_frames=lost_frames,
        unnamed=int((kept["person"] == "").sum()),
        more_warnings=audit_warnings(counts),
    )
    summary |= {
        **said,
        "seed": plan.seed,
        "fractions": [float(f) for f in plan.fractions],
        "folds": plan.folds,
    }
    summary |= {"audit": counts, "pseudonym_key": key.origin}
    entries = [(r.path, r.reason, r.message, r.source) for r in rejected]
    quarantine = pd.DataFrame(entries, columns=["path", "reason", "message", "source"])
    return Manifest(table, summary, quarantine, audit=findings)


def _decided(
    rows: pd.DataFrame,
    labels: Labels | None,
    plan: SplitOptions,
    on_leak: OnLeak,
    leaks: Path | None,
    *,
    given: bool,
) -> pd.DataFrame:
    """The rows with their group of patients, and the reason why each cannot stay ('' where it
    can).
    """
    if on_leak == "error":
        refuse_leaks(rows, leaks)
    rows = rows.assign(group=patient_groups(rows), alike=similar_ids(rows), excluded="")
    if on_leak == "drop":
        rows = rows.assign(excluded=np.where(crosses_splits(rows), "split_leak", ""))
    if not given:
        rows = apply_external_site(rows, plan)
    return rows.assign(reason=exclusion_reasons(rows, labels))


def _table(kept: pd.DataFrame) -> pd.DataFrame:
    extra = [
        str(name)
        for name in kept
        if str(name).startswith(("label:", "meta:")) or name in ("class", "fold")
    ]
    return check_table(
        kept[[*COLUMNS, *extra]].astype(dict(COLUMNS)).reset_index(drop=True), where="ingest"
    )


def own_labels(
    rows: pd.DataFrame, findings: Sequence[str], *, class_folders: bool
) -> Labels | None:
    """The labels that come with the files, where no table is given: of class folders if asked for,
    else inside an .npz.
    """
    if class_folders:
        return folder_labels(rows, findings)
    return array_labels(rows, findings) if "own_labels" in rows else None


def _key_file(key_file: Path | str | None, splits_from: Path | str | None) -> Path | None:
    """The key file that is named, else the one inside the earlier work folder, unless the
    environment holds a key.
    """
    if key_file is not None or splits_from is None or os.environ.get(ENVIRONMENT):
        return None if key_file is None else Path(key_file)
    inside = Path(splits_from) / KEY_NAME
    return inside if inside.is_file() else None


def _in_series_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the place of each CT slice in its series along the normal, and the verdict on the
    series.
    """
    order, verdict = (
        pd.Series(0, index=rows.index),
        pd.Series("SINGLE", index=rows.index, dtype=object),
    )
    for _, series in rows[rows["kind"] == "ct"].groupby("series"):
        groups = group_planes(
            [replace(plane, source_index=n) for n, plane in enumerate(series["plane"])]
        )
        members = series.index[[plane.source_index for group in groups for plane in group.planes]]
        order[members] = np.arange(len(members))
        verdict[members] = series_verdict(groups)
    return rows.assign(order=order, verdict=verdict)


def _require_enough(
    rows: pd.DataFrame, rejected: Sequence[RejectedFile], max_bad: float | None
) -> None:
    """Raise ManifestError where no image is left, InputError where the share of quarantined files
    is over `max_bad`.
    """
    bad = [r.reason for r in rejected if not r.skipped]
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(Counter(bad).items()))
    if rows.empty and not bad:
        pictures = sum(PurePosixPath(r.path).suffix.lower() in RASTER_SUFFIXES for r in rejected)
        said = (
            f" {pictures} look like pictures or arrays: declare what their values are with --units."
            if pictures
            else ""
        )
        raise ManifestError(
            f"No DICOM file among the {len(rejected)} files given.{said or ' Check SOURCE.'}"
        )
    if rows.empty:
        raise ManifestError(f"No image is left of {len(bad)} DICOM files: {reasons}.")
    files = len(bad) + len(rows.drop_duplicates(["source", "path"]))
    if max_bad is not None and len(bad) > max_bad * files:
        raise InputError(
            f"{len(bad)} of {files} DICOM files are quarantined, more than --max-bad {max_bad:g} "
            f"allows: {reasons}. "
            "Nothing was written; without --max-bad the run completes and lists them in "
            "quarantine.csv.",
            code="max_bad",
        )
