"""From a folder of files to a manifest. `ingest` reads and writes files; `build` takes the steps in
between, one line per step.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from data_pipelines.annotations.boxes.finding import BoxOptions, find_boxes
from data_pipelines.annotations.boxes.joining import BOXES, annotate_boxes
from data_pipelines.annotations.boxes.readers.mask_boxes import MaskObjects
from data_pipelines.annotations.joining import (
    VOXELS,
    Annotations,
    MaskOptions,
    annotate,
    find_masks,
)
from data_pipelines.errors import CodedError, InputError, LabelError, ManifestError
from data_pipelines.ingestion.decoder_agreement import cross_checked
from data_pipelines.ingestion.exclusions import (
    copies_of_kept,
    excluded_files,
    exclusion_reasons,
    with_rejected,
)
from data_pipelines.ingestion.hierarchy_audit import identity_notes
from data_pipelines.ingestion.index.entries import FileIndex, RejectedFile
from data_pipelines.ingestion.index.files import index_sources
from data_pipelines.ingestion.leakage_audit import audit, audit_warnings
from data_pipelines.ingestion.manifest import (
    COLUMNS,
    LATER_COLUMNS,
    QUARANTINE_COLUMNS,
    Manifest,
    check_table,
)
from data_pipelines.ingestion.patient_identity import identify, link_patients
from data_pipelines.ingestion.refusal import RECORDED, clear_refusal, write_refusal
from data_pipelines.ingestion.series_order import (
    STANDARD_COLUMNS,
    VOLUME_COLUMNS,
    gap_warnings,
    in_series_order,
    volume_counts,
)
from data_pipelines.ingestion.summary import (
    describe_skipped,
    exclusion_summary,
    kinds_of_skipped,
    require_two_classes,
    summarise,
    summary_of_rejected,
)
from data_pipelines.kinds import (
    ARRAY_FORMATS,
    ColorRule,
    KindName,
    NiftiUnitName,
    UnitName,
    image_kind,
)
from data_pipelines.labels.class_names import read_class_names, with_class_names
from data_pipelines.labels.combination import read_label_tables, with_classes
from data_pipelines.labels.embedded import array_labels, folder_labels
from data_pipelines.labels.exclusion_bias import NO_LOSS
from data_pipelines.labels.join import Joined, join_labels
from data_pipelines.labels.path_patients import compiled_pattern, patients_of_paths
from data_pipelines.labels.raters import Readers
from data_pipelines.labels.table import Labels
from data_pipelines.pseudonyms import (
    ENVIRONMENT,
    KEY_NAME,
    PseudonymKey,
    find_key,
    key_of_parts,
)
from data_pipelines.runtime.atomic_files import require_new, staged_folder, write_atomic
from data_pipelines.runtime.engines.engine import LOCAL, Engine
from data_pipelines.runtime.object_stores import is_url, local_path, require_local
from data_pipelines.runtime.progress import Bars
from data_pipelines.runtime.worker_pool import ProgressCallback, StageCallback, stage
from data_pipelines.sources.image_source import RASTER_FORMATS
from data_pipelines.sources.nifti import declared_units
from data_pipelines.sources.nifti_header import require_nibabel
from data_pipelines.splits.assignment import (
    MAX_PATIENTS,
    SplitOptions,
    apply_external_site,
    folds_of,
)
from data_pipelines.splits.before_exclusion import assign_before_exclusion
from data_pipelines.splits.leakage import crosses_splits, refuse_leaks
from data_pipelines.splits.stratified import FRACTIONS, check_no_overlap

OnLeak = Literal["error", "drop"]
#: reads the annotations of the accepted images
Annotator = Callable[..., Annotations]
_STATES = ("mask_state", "mask_classes", "box_state", "box_classes")
AFTER_EXCLUSION = (
    "so many images are excluded that the splits were assigned among the images that are left: "
    "they depend on what was excluded"
)


class _Reading(NamedTuple):
    """How many files are read at the same time, where, and the folder of the finished parts."""

    workers: int | None
    stages: StageCallback | None
    engine: Engine
    parts: Path | None


def ingest(
    source: Path | str | Sequence[Path | str],
    labels: Path | str | Sequence[Path | str] | None = None,
    out: Path | str | None = None,
    *,
    findings: Sequence[str] = (),
    drop_classes: Sequence[str] = (),
    merge_classes: Mapping[str, str] | None = None,
    class_names: Path | str | None = None,
    readers: Readers = "error",
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    split_mode: Literal["stratified", "hash"] = "stratified",
    splits_from: Path | str | None = None,
    external_site: tuple[str, str] | None = None,
    folds: int = 0,
    patients_per_uid: int = MAX_PATIENTS,
    no_split: bool = False,
    key_file: Path | str | None = None,
    max_bad: float | None = None,
    for_processing: bool = False,
    units: UnitName | None = None,
    nifti_units: NiftiUnitName | None = None,
    kind: KindName | None = None,
    class_folders: bool = False,
    patient_pattern: str | None = None,
    follow_links: bool = False,
    color: ColorRule = "refuse",
    on_leak: OnLeak = "error",
    masks: Path | str | None = None,
    resample_masks: bool = False,
    label_order: str | None = None,
    mask_classes: Mapping[str, str] | None = None,
    boxes: Path | str | None = None,
    box_classes: Mapping[str, str] | None = None,
    mask_objects: MaskObjects | None = None,
    workers: int | None = None,
    engine: Engine = LOCAL,
    progress: ProgressCallback | None = None,
    stages: StageCallback | None = None,
) -> Manifest:
    """Index the DICOM files below `source` and write the manifest to the new folder `out`.

    source: a folder or file, or several; also URLs of object stores (s3://, gs://). out: None
        keeps the manifest in memory.
    labels: a CSV, see read_labels, or several; with masks or boxes it needs no finding and may give
        only patients and splits. findings: their finding columns. drop_classes,
        merge_classes (old name -> new name): see with_classes. readers: how several rows of one
        key are combined.
    class_names: a text file with names for the classes, see read_class_names; they are given before
        classes are dropped or merged.
    seed, fractions (train, tune, test), split_mode, external_site (column, value), folds: the split
        by patient, see SplitOptions; the labels may give splits instead. splits_from: an earlier
        work folder, whose patients keep their split.
    patients_per_uid: number of patients whom a study or series UID may link; one of more patients
        is no identifier. no_split: make no splits, for those who only look or predict; all images
        are then in `test`.
    key_file: key of the pseudonyms; else MEDRES_KEY, else that of `splits_from`, else a new key in
        `out`.
    max_bad: largest allowed share (0..1) of quarantined files among the DICOM files.
    for_processing: also accept raw radiographs.
    units: also accept PNG, JPEG and .npz, with values in these units (HU: int16 arrays only).
        Labels and splits inside an .npz are used if `labels` is None.
    nifti_units: also accept .nii and .nii.gz (with the extra `nifti`); each is one CT volume, whose
        values are in these units. A file is its own patient unless `labels` name the patient.
    kind: read files of this kind only, in all its formats; units and nifti_units follow from it.
        The kinds rgb (color pictures) and mr are read only where they are declared here.
    class_folders: the folder of each file is its class, see folder_labels.
    patient_pattern: a regular expression that finds the patient, or another group that one split
        must hold, in the path of each file, see `patients_of_paths`.
    follow_links: also read what symbolic links out of `source` lead to.
    color: "luminance" also accepts radiographs that are truly in color, as their luminance (repair
        code color_to_luminance). The cache, the model and its predictions then do the same.
    on_leak: what happens when a patient or equal pixels lie in two given splits: "error", or "drop"
        them from the split of lower rank (train, then tune).
    masks: a folder of masks, or a masks.csv (docs/how-to/segmentation-masks.md); `out` then has
        annotations/ and annotations.csv. Files below it are no images. resample_masks: masks on
        another grid than their image are resampled, else rejected. label_order: "a<b<c", which
        class wins where classes overlap. mask_classes: label -> class; "*" stands for all labels
        that are not listed, and the class "" is background.
    boxes: a file or folder of boxes (docs/how-to/detection-boxes.md); `out` then has boxes/ and
        annotations.csv. box_classes: label -> class, as mask_classes; the class "" is left out.
        mask_objects: where `boxes` are masks, what one object is: "labels" (each label) or
        "components" (each connected component of a label).
    workers: decode workers, or tasks at the same time. engine: where the files, masks and boxes are
        read, see `opened_engine`; the manifest is the same.
    progress: called with (done, total) files. stages: called with the name of each long step,
        returns a context manager with a progress callback for it. Without both, long steps show
        progress bars on a terminal, and lines with the time left in a notebook or a log.

    The same call after a crash reads only the files that are not in a finished part of the index;
    so it is with masks and boxes. Parts are kept beside `out`, in .<out>.parts, until `out` is
    complete; they hold identifiers of patients and a new key, and only their owner may read them.

    Where no image is left, patients are too few for the splits, or there is one class only (codes
    no_image_left, too_few_patients and one_class), `out` has ingest.json and quarantine.csv alone.
    Raises other subclasses of InputError before `out` is written: `out` is in use (output_exists),
    labels that cannot be read or match no image (LabelError), a patient or equal pixels in two
    given splits (SplitError, code split_leak; they are listed in <out>.leaks.csv), no DICOM file at
    all (ManifestError, code no_dicom).
    """
    stages = stages or (Bars().task if progress is None else None)
    sources = [source] if isinstance(source, Path | str) else list(source)
    work = None if out is None else Path(out)
    if out is not None and work is not None:
        require_local(out, "the work folder")
        clear_refusal(work)
        require_new(work, what="a manifest")
    if max_bad is not None and not 0 <= max_bad <= 1:
        raise InputError(f"max_bad {max_bad}: give a share from 0 to 1.", code="max_bad")
    units, declared_nifti = _declared(kind, units, nifti_units)
    if nifti_units is not None:
        declared_units(nifti_units)
        require_nibabel()
    if labels is not None and class_folders:
        raise InputError(
            "Both a labels table and class_folders are given: choose one.", code="labels"
        )
    pattern = None if patient_pattern is None else compiled_pattern(patient_pattern)
    earlier = None if splits_from is None else Manifest.load(splits_from).table
    split_options = SplitOptions(
        seed, fractions, split_mode, earlier, external_site, folds, patients_per_uid, no_split
    )
    split_options.check()
    label_files = _label_files(labels)
    tables = read_label_tables(
        label_files,
        findings=findings,
        readers=readers,
        require_finding=masks is None and boxes is None,
    )
    names = {} if class_names is None else read_class_names(class_names)
    key = find_key(_key_file(key_file, splits_from))
    mask_options = _mask_options(masks, resample_masks, label_order, mask_classes)
    box_options = _box_options(boxes, box_classes, mask_objects)
    with _parts(work) as parts:
        key = key_of_parts(key, parts)
        not_images, annotators = _annotators(
            mask_options, box_options, sources, _Reading(workers, stages, engine, parts)
        )
        with stage(stages, "ingest") as update:
            index = index_sources(
                sources,
                exclude=[
                    *label_files,
                    *not_images,
                    *([] if class_names is None else [Path(class_names)]),
                ],
                for_processing=for_processing,
                units=units,
                nifti_units=declared_nifti,
                declared=kind,
                workers=workers,
                progress=progress or update,
                follow_links=follow_links,
                color=color,
                parts=parts,
                engine=engine,
            )
        with stage(stages, "cross-check decoders") as update:
            index = cross_checked(index, workers, update, engine)
        more_tables = None
        if not tables:
            tables = _embedded_labels(index.rows, findings, class_folders=class_folders)
            more_tables = _embedded_labels_of_all(
                index, findings, tables, class_folders=class_folders
            )
            more_tables = tuple(
                with_classes(with_class_names(t, names), drop_classes, merge_classes or {})
                for t in more_tables
            )
        tables = tuple(
            with_classes(with_class_names(table, names), drop_classes, merge_classes or {})
            for table in tables
        )
        if pattern is not None and not index.rows.empty:
            quarantined = [file.path for file in index.rejected if not file.skipped]
            of_rejected = tables if more_tables is None else more_tables
            tables = (*tables, patients_of_paths(index.rows["path"], pattern))
            more_tables = (
                *of_rejected,
                patients_of_paths([*index.rows["path"], *quarantined], pattern, require_all=False),
            )
        with _scratch(work) as scratch:
            manifest = build(
                index,
                tables,
                key,
                rejected_tables=more_tables,
                color=color,
                kind=kind,
                split_options=split_options,
                max_bad=max_bad,
                on_leak=on_leak,
                leaks=None if work is None else work.with_name(f"{work.name}.leaks.csv"),
                work=work,
                annotators={
                    block: functools.partial(run, folder=scratch)
                    for block, run in annotators.items()
                },
                stages=stages,
            )
            if work is None:
                return manifest
            return _written(manifest, work, key, scratch)


def build(
    index: FileIndex,
    tables: Labels | Sequence[Labels] | None,
    key: PseudonymKey,
    *,
    rejected_tables: Sequence[Labels] | None = None,
    color: ColorRule = "refuse",
    kind: KindName | None = None,
    split_options: SplitOptions | None = None,
    max_bad: float | None = None,
    on_leak: OnLeak = "error",
    leaks: Path | None = None,
    work: Path | None = None,
    annotators: Mapping[str, Annotator] | None = None,
    stages: StageCallback | None = None,
) -> Manifest:
    """Return the manifest of indexed files, in memory.

    Arguments and errors are those of `ingest`. rejected_tables: the labels of the rejected files,
    where `tables` does not have them. color, kind: what ingest.json records. annotators: what reads
    the masks and boxes of the accepted images, by the block of ingest.json.

    Without annotators nothing is read, and nothing is written except `leaks`, the list of the
    rows that lie in two given splits, and into the new folder `work` what was learned where
    patients or classes are too few (see write_refusal).
    """
    split_options = split_options or SplitOptions()
    _require_images(index.rows, index.rejected, work)
    joined = join_labels(index.rows, tables)
    labels = joined.labels
    splits_given = labels is not None and "split" in labels.columns
    more_tables = tables if rejected_tables is None else rejected_tables
    everything = _identified(joined, index.rejected, more_tables, key, split_options)
    added = [name for name in everything if name not in joined.rows]
    rows = joined.rows.assign(**{str(name): everything[name] for name in added})

    if on_leak == "error":
        refuse_leaks(rows, leaks)
    else:
        everything.loc[rows.index, "excluded"] = _dropped_leaks(rows)
    if not splits_given:
        everything = apply_external_site(everything, split_options)
    rows = rows.assign(split=everything["split"], excluded=everything["excluded"])
    rows = rows.assign(reason=exclusion_reasons(rows, splits_given=splits_given))
    everything["reason"] = rows["reason"].reindex(everything.index).fillna(everything["excluded"])
    excluded, excluded_frames = excluded_files(rows)
    rejected = sorted((*index.rejected, *excluded), key=lambda file: (file.source, file.path))

    images = rows[rows["reason"] == ""]
    _require_images(images, rejected, work)
    _require_few_bad(images, rejected, max_bad)
    images = in_series_order(images)
    summary = functools.partial(
        _summary,
        rejected=rejected,
        joined=joined,
        excluded_frames=excluded_frames,
        rows=rows,
        everything=everything,
    )
    try:
        if labels is not None and labels.has_labels and not split_options.no_split:
            require_two_classes(images, labels)
        splits, split_record = assign_before_exclusion(
            everything, split_options, key, splits_given=splits_given, no_loss=NO_LOSS
        )
    except InputError as error:
        if work is None or error.code not in RECORDED:
            raise
        everything["split"] = ""
        learned = summary(images.assign(split=""), options=split_options)
        raise write_refusal(work, error, learned, _quarantine_table(rejected)) from None
    everything["split"] = splits
    images = images.assign(split=splits)
    if split_options.folds:
        images = images.assign(fold=folds_of(images, split_options))
    check_no_overlap(images)
    final_split = images["split"].reindex(rows.index, fill_value="")
    with stage(stages, "search near-duplicates") as update:
        audit_table, audit_counts = audit(rows.assign(split=final_split), update)
    content = {
        **summary(images, options=split_options, more_warnings=audit_warnings(audit_counts)),
        **split_record,
        "seed": split_options.seed,
        "fractions": [float(share) for share in split_options.fractions],
        "folds": split_options.folds,
        "audit": audit_counts,
        "color": color,
        **({} if kind is None else {"kind": kind}),
        "pseudonym_key": key.origin,
    }
    if split_record["splits_assigned"] == "after_exclusion":
        content["warnings"].append(AFTER_EXCLUSION)
    if annotators:
        images = images.assign(copies=copies_of_kept(rows).reindex(images.index))
    for block, run in (annotators or {}).items():
        annotations = run(images)
        images = images.join(annotations.columns)
        content[block] = annotations.summary
        content["warnings"] += annotations.warnings
    table = _manifest_table(images)
    return Manifest(table, content, _quarantine_table(rejected), audit=audit_table)


def _identified(
    joined: Joined,
    rejected: Sequence[RejectedFile],
    tables: Labels | Sequence[Labels] | None,
    key: PseudonymKey,
    options: SplitOptions,
) -> pd.DataFrame:
    """The rows of all images, also of quarantined files, with the identity of their patients."""
    tables = [tables] if isinstance(tables, Labels) else list(tables or ())
    everything = with_rejected(joined.rows, rejected, tables)
    return link_patients(identify(everything, key), options.patients_per_uid)


def _summary(
    images: pd.DataFrame,
    *,
    rows: pd.DataFrame,
    everything: pd.DataFrame,
    rejected: Sequence[RejectedFile],
    joined: Joined,
    excluded_frames: int,
    options: SplitOptions,
    more_warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """What ingest.json says about the files, the labels and the identity of the patients."""
    identity_warnings, doubts = identity_notes(rows, options.patients_per_uid)
    exclusions, exclusion_notes = exclusion_summary(everything)
    if options.no_split:
        identity_warnings = ["no splits were made: all images are in test", *identity_warnings]
    return {
        **summarise(
            images,
            rejected,
            joined.labels,
            unmatched_rows=joined.unmatched_rows,
            unlabeled_images=int((~images["labeled"].astype(bool)).sum()),
            excluded_frames=excluded_frames,
            no_split=options.no_split,
            images_without_patient=int(((images["person"] == "") & ~images["by_study"]).sum()),
            audit_warnings=[
                *exclusion_notes,
                *identity_warnings,
                *gap_warnings(images),
                *more_warnings,
            ],
        ),
        **exclusions,
        "volumes": volume_counts(images),
        "skipped_by_kind": kinds_of_skipped(rejected),
        "leak_attestation": {"attested": not doubts, "reasons": doubts},
    }


def _declared(
    kind: KindName | None, units: UnitName | None, nifti_units: UnitName | None
) -> tuple[UnitName | None, UnitName | None]:
    """The units of PNG, JPEG and arrays, and those of NIfTI files, that are declared by a kind or
    by themselves. Raises InputError (code kind_and_units) where both are given.
    """
    if kind is None:
        return units, nifti_units
    if units is not None or nifti_units is not None:
        raise InputError(
            "Both the kind and units are given: the units follow from the kind. Leave them out.",
            code="kind_and_units",
        )
    name, formats = image_kind(kind).units.name, {*image_kind(kind).file_formats}
    return name if formats & {*RASTER_FORMATS, *ARRAY_FORMATS} else None, (
        name if "nifti" in formats else None
    )


def _key_file(key_file: Path | str | None, splits_from: Path | str | None) -> Path | None:
    """The given key file; else, unless the environment has a key, that of the earlier folder."""
    if key_file is not None:
        return Path(key_file)
    if splits_from is None or os.environ.get(ENVIRONMENT):
        return None
    earlier = Path(splits_from) / KEY_NAME
    return earlier if earlier.is_file() else None


def _embedded_labels(
    rows: pd.DataFrame, findings: Sequence[str], *, class_folders: bool
) -> tuple[Labels, ...]:
    """Labels that come with the files: of class folders if requested, else inside an .npz."""
    if rows.empty:
        return ()
    if class_folders:
        return (folder_labels(rows, findings),)
    labels = array_labels(rows, findings) if "own_labels" in rows else None
    return () if labels is None else (labels,)


def _embedded_labels_of_all(
    index: FileIndex, findings: Sequence[str], tables: Sequence[Labels], *, class_folders: bool
) -> tuple[Labels, ...]:
    """As `_embedded_labels`, also of the quarantined files; () where those have other labels, so
    that they stay unlabeled.
    """
    quarantined = [
        {"source": file.source, "path": file.path, **(file.columns or {})}
        for file in index.rejected
        if not file.skipped and (class_folders or "own_labels" in (file.columns or {}))
    ]
    if not tables or not quarantined:
        return ()
    rows = pd.concat([index.rows, pd.DataFrame(quarantined)], ignore_index=True)
    try:
        of_all = _embedded_labels(rows, findings, class_folders=class_folders)
    except LabelError:  # a file lies outside of the folders: which class it has is unknown
        return ()
    is_same = all(
        table.columns == other.columns and set(table.classes or ()) <= set(other.classes or ())
        for table, other in zip(tables, of_all, strict=True)
    )
    return of_all if is_same else ()


def _label_files(labels: Path | str | Sequence[Path | str] | None) -> tuple[Path, ...]:
    if labels is None:
        return ()
    return tuple(map(Path, [labels] if isinstance(labels, Path | str) else labels))


def _require_images(
    rows: pd.DataFrame, rejected: Sequence[RejectedFile], work: Path | None
) -> None:
    """Raise ManifestError when no image is left: no_dicom without any DICOM file, else
    no_image_left, after the list of the files was written into `work`.
    """
    if not rows.empty:
        return
    n_quarantined = sum(not file.skipped for file in rejected)
    if not n_quarantined:
        raise ManifestError(
            f"No DICOM file among {len(rejected)} files: {describe_skipped(rejected)}",
            code="no_dicom",
        )
    error = ManifestError(
        f"No image is left of {n_quarantined} DICOM files. Reasons: {_reasons(rejected)}.",
        code="no_image_left",
    )
    if work is None:
        raise error
    raise write_refusal(work, error, summary_of_rejected(rejected), _quarantine_table(rejected))


def _require_few_bad(
    rows: pd.DataFrame, rejected: Sequence[RejectedFile], max_bad: float | None
) -> None:
    """Raise InputError (code max_bad) when the share of quarantined files is above `max_bad`."""
    n_quarantined = sum(not file.skipped for file in rejected)
    n_files = n_quarantined + len(rows.drop_duplicates(["source", "path"]))
    if max_bad is not None and n_quarantined > max_bad * n_files:
        raise InputError(
            f"{n_quarantined} of {n_files} DICOM files are quarantined, more than --max-bad "
            f"{max_bad:g} allows. Reasons: {_reasons(rejected)}. Nothing was written; without "
            f"--max-bad the run completes and lists these files in quarantine.csv.",
            code="max_bad",
        )


def _reasons(rejected: Sequence[RejectedFile]) -> str:
    counts = Counter(file.reason for file in rejected if not file.skipped)
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))


def _dropped_leaks(rows: pd.DataFrame) -> pd.Series:
    """The exclusion reason split_leak for the rows to drop, '' for the others."""
    return crosses_splits(rows).map({True: "split_leak", False: ""}).astype(object)


def _manifest_table(images: pd.DataFrame) -> pd.DataFrame:
    more_columns = [
        str(name)
        for name in images
        if str(name).startswith(("label:", "meta:", VOXELS, BOXES))
        or name in ("class", "fold", "group", *_STATES, *VOLUME_COLUMNS, *STANDARD_COLUMNS)
    ]
    dtypes = COLUMNS | LATER_COLUMNS
    table = images[[*dtypes, *more_columns]].astype(dtypes).reset_index(drop=True)
    return check_table(table, where="ingest")


def _quarantine_table(rejected: Sequence[RejectedFile]) -> pd.DataFrame:
    entries = [(file.path, file.reason, file.message, file.source) for file in rejected]
    return pd.DataFrame(entries, columns=list(QUARANTINE_COLUMNS))


def _mask_options(
    masks: Path | str | None,
    resample: bool,
    label_order: str | None,
    names: Mapping[str, str] | None,
) -> MaskOptions | None:
    if masks is not None:
        return MaskOptions(Path(masks), resample, label_order, dict(names or {}))
    if resample or label_order is not None or names:
        raise InputError(
            "resample_masks, label_order and mask_classes are about masks: give them too.",
            code="no_masks",
        )
    return None


def _box_options(
    boxes: Path | str | None, names: Mapping[str, str] | None, objects: MaskObjects | None
) -> BoxOptions | None:
    if boxes is not None:
        return BoxOptions(Path(boxes), dict(names or {}), objects)
    if names or objects is not None:
        raise InputError(
            "box_classes and mask_objects are about boxes: give them too.", code="no_boxes"
        )
    return None


def _annotators(
    masks: MaskOptions | None,
    boxes: BoxOptions | None,
    sources: Sequence[Path | str],
    reading: _Reading,
) -> tuple[list[Path], dict[str, Annotator]]:
    """The files that are annotations and no images, and what reads them for the accepted images,
    by the block of ingest.json.
    """
    workers, stages, engine, parts = reading
    not_images: list[Path] = []
    annotators: dict[str, Annotator] = {}
    paths = [Path(source) for source in map(local_path, sources) if not is_url(source)]
    if masks is not None:
        with stage(stages, "find masks") as update:
            found = find_masks(masks, paths, workers, update, engine=engine, parts=parts)
        not_images += found.paths()

        def run(images: pd.DataFrame, folder: Path) -> Annotations:
            with stage(stages, "masks") as update:
                return annotate(
                    images, found, masks, folder, workers, update, engine=engine, parts=parts
                )

        annotators["annotations"] = run
    if boxes is not None:
        with stage(stages, "read boxes") as update:
            found_boxes = find_boxes(boxes, paths, workers, update, engine=engine, parts=parts)
        not_images += found_boxes.paths()
        annotators["boxes"] = functools.partial(annotate_boxes, found=found_boxes, options=boxes)
    return not_images, annotators


@contextlib.contextmanager
def _parts(work: Path | None) -> Iterator[Path | None]:
    """The folder of the finished parts of the index, beside the work folder. It holds identifiers,
    so it stays only where the same command can go on: after a crash, an interruption, or on a full
    disk. It is removed when the manifest is written, and after a refusal.
    """
    if work is None:
        yield None
        return
    folder = work.with_name(f".{work.name}.parts")
    try:
        yield folder
    except CodedError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _scratch(work: Path | None) -> Iterator[Path]:
    """A folder for the label maps until the work folder is written: beside it, so that they need
    not be copied.
    """
    if work is not None:
        work.parent.mkdir(parents=True, exist_ok=True)
    parent = None if work is None else work.parent
    prefix = None if work is None else f".{work.name}."
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix, suffix=".partial") as folder:
        yield Path(folder)


def _written(manifest: Manifest, work: Path, key: PseudonymKey, scratch: Path) -> Manifest:
    """Write the work folder as a whole or not at all, and open it. scratch: files that become part
    of it.
    """
    with staged_folder(work, what="a manifest") as folder:
        for path in scratch.iterdir():
            path.rename(folder / path.name)
        if key.origin == "made":
            write_atomic(folder / KEY_NAME, key.secret, mode=0o600)
        manifest.save(folder)
    return Manifest.load(work)
