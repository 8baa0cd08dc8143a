"""Writes folders of PNG and JPEG images as DICOM files: derived CR or secondary capture objects,
with the history of lossy compression.

A wrapped image has no attribute that is unknown: no pixel spacing, no date, no laterality.
PS3.3 C.7.6.1 (image), C.8.2 (CR), C.8.6 (SC), C.11.2 (window).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import InputError, LabelError, RasterError
from data_pipelines.kinds import ColorRule
from data_pipelines.labels.csv_reader import read_csv
from data_pipelines.labels.table import metadata_columns, normalise_key
from data_pipelines.runtime.atomic_files import csv_bytes, staged_folder
from data_pipelines.runtime.walk import walk_files
from data_pipelines.sources.raster import RasterImage, read_raster

SUFFIXES = (".png", ".jpg", ".jpeg")
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class WrapOptions:
    """What the caller knows about all images. burned_in: None where it is unknown."""

    modality: str
    body_part: str
    burned_in: Literal["YES", "NO"] | None
    color: ColorRule = "refuse"


@dataclass(frozen=True)
class _Written:
    patient: str
    lossy: bool
    luminance: bool


def wrap(
    source: Path | str,
    out: Path | str,
    *,
    labels: Path | str | None = None,
    modality: str = "CR",
    body_part: str = "",
    burned_in: Literal["YES", "NO"] | None = None,
    color: ColorRule = "refuse",
    progress: ProgressCallback | None = None,
) -> dict[str, object]:
    """Write each PNG or JPEG below `source` as a DICOM file below `out`; return the counts.

    out: a new or empty folder. labels: a labels table keyed by `path` (relative to `source`). Its
    `patient` (or `patient_id`) becomes PatientID; its age, sex and view go into the header; and
    `out/labels.csv` is the same table with the new paths. An image without a patient gets a patient
    ID of its own, and the notes report it. modality: "CR", or "SC" for secondary capture objects of
    radiographs. burned_in: whether text is burned into the images; ingest excludes a secondary
    capture unless it is "NO". color: "luminance" takes the luminance of an image that is truly in
    color, see read_raster.

    Images that cannot be read as one grayscale image are skipped and counted under `reasons`. On
    failure nothing is written. Raises InputError for folders and arguments (`wrap_modality`,
    `body_part`, `no_pictures`) and LabelError for the table (`no_path_column`, `duplicate_key`,
    `invalid_patient_id`).
    """
    if modality not in ("CR", "SC"):
        raise InputError(
            f"The modality is {modality!r}: give CR, or SC for secondary capture objects.",
            code="wrap_modality",
        )
    if not re.fullmatch(r"[A-Z0-9 _]{0,16}", body_part):
        raise InputError(
            "body_part must be a DICOM code of up to 16 capital letters, digits and spaces, for "
            "example CHEST.",
            code="body_part",
        )
    table = None if labels is None else _read_table(Path(labels))
    rows = {} if table is None else {str(row["path"]): row for row in table.to_dict("records")}
    walk = walk_files(source)
    files = [f for f in walk.files if labels is None or walk.root / f != Path(labels).resolve()]
    targets = _targets(files)
    options = WrapOptions(modality, body_part, burned_in, color)
    outcomes: dict[str, _Written | str] = dict(walk.others)
    with staged_folder(Path(out), what="the wrapped folder") as folder:
        for number, path in enumerate(files):
            outcomes[path] = _wrap_file(
                walk.root, path, folder / targets[path], rows.get(path, {}), options
            )
            if progress is not None:
                progress(number + 1, len(files))
        if not any(isinstance(outcome, _Written) for outcome in outcomes.values()):
            raise InputError(
                f"{source} has no PNG or JPEG that can be wrapped.", code="no_pictures"
            )
        if table is not None:
            renamed: Iterable[dict] = (
                {**row, "path": targets.get(path, path)} for path, row in rows.items()
            )
            (folder / "labels.csv").write_bytes(csv_bytes(renamed, list(table.columns)))
    return _summary(outcomes, rows, modality, burned_in)


def _read_table(path: Path) -> pd.DataFrame:
    table = read_csv(path)
    if "path" not in table:
        raise LabelError(
            f"{path} has no column path: add it, with paths relative to the folder of the images.",
            code="no_path_column",
        )
    table["path"] = table["path"].map(lambda cell: normalise_key("path", cell))
    metadata = metadata_columns(table, path)
    repeated = table["path"].duplicated()
    if repeated.any():
        raise LabelError(
            f"{path}, column path, row {repeated.idxmax()}: an earlier row has the same path.",
            code="duplicate_key",
        )
    column = "patient" if "patient" in metadata else "patient_id"
    if column in metadata:
        invalid = metadata[column].map(
            lambda cell: len(cell) > 64 or "\\" in cell or not cell.isprintable()
        )
        if invalid.any():
            raise LabelError(
                f"{path}, column {column}, row {invalid.idxmax()}: the cell is not a valid "
                f"PatientID (at most 64 printable characters, no backslash).",
                code="invalid_patient_id",
            )
    return table


def _targets(files: Iterable[str]) -> dict[str, str]:
    """The new path of each image: .dcm replaces its suffix. It is appended where two new paths
    would be equal.
    """
    files = list(files)
    new_paths = {path: str(PurePosixPath(path).with_suffix(".dcm")) for path in files}
    count = Counter(new_paths.values())
    return {
        path: new if count[new] == 1 and new not in files else f"{path}.dcm"
        for path, new in new_paths.items()
    }


def _wrap_file(
    root: Path, path: str, target: Path, row: Mapping, options: WrapOptions
) -> _Written | str:
    """Write one image, or return the reason code why it is skipped."""
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        return "not_a_picture"
    data = (root / path).read_bytes()
    try:
        image = read_raster(data, color=options.color)
    except RasterError as error:
        return error.code
    dataset = _dataset(image, path, data, row, options)
    save(dataset, target)
    return _Written(str(dataset.PatientID), image.lossy, image.luminance)


def _dataset(
    image: RasterImage, path: str, data: bytes, row: Mapping, options: WrapOptions
) -> Dataset:
    identity = (hashlib.sha256(data).hexdigest(), path)
    own_id = f"picture-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    dataset = new_dataset(
        options.modality,
        ExplicitVRLittleEndian,
        patient_id=_patient(row) or own_id,
        patient="",
        study=derived_uid("wrap", "study", *identity),
        series=derived_uid("wrap", "series", *identity),
        sop=derived_uid("wrap", "image", *identity),
    )
    dataset.Modality = "CR"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BodyPartExamined = options.body_part
    if options.modality == "SC":
        dataset.ConversionType = "WSD"
    if options.burned_in is not None:
        dataset.BurnedInAnnotation = options.burned_in
    _describe_patient(dataset, row)
    dataset.DerivationDescription = "; ".join(
        ("wrapped from a picture file by medres", *image.changes)
    )
    dataset.LossyImageCompression = "01" if image.lossy else "00"
    if image.lossy:
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        dataset.LossyImageCompressionRatio = f"{image.pixels.nbytes / len(data):.4g}"
    bits = image.pixels.dtype.itemsize * 8
    if bits == 8:  # displayed from 0 to 255; the range of a 16-bit image is unknown
        dataset.WindowCenter, dataset.WindowWidth = 128, 256
    set_pixels(dataset, image.pixels, bits=bits)
    return dataset


def _patient(row: Mapping) -> str:
    return str(row["patient"] if "patient" in row else row.get("patient_id", ""))


def _describe_patient(dataset: Dataset, row: Mapping) -> None:
    sex, view = str(row.get("sex", ""))[:1].upper(), str(row.get("view", "")).upper()
    dataset.PatientSex = sex if sex in ("M", "F", "O") else ""
    dataset.ViewPosition = view if re.fullmatch(r"[A-Z0-9 _]{1,16}", view) else ""
    if row.get("age"):
        years = float(row["age"])
        dataset.PatientAge = f"{int(years):03d}Y" if years >= 2 else f"{int(years * 12):03d}M"


def _summary(
    outcomes: Mapping[str, _Written | str], rows: Mapping, modality: str, burned_in: str | None
) -> dict[str, object]:
    written = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, _Written)}
    reasons = Counter(outcome for outcome in outcomes.values() if isinstance(outcome, str))
    unnamed = sum(not _patient(rows.get(path, {})) for path in written)
    luminance = sum(outcome.luminance for outcome in written.values())
    notes = {
        f"{unnamed} images have no patient ID in the labels: each image is treated as its own "
        "patient; leakage is possible.": unnamed,
        f"{luminance} images have color and were converted to luminance.": luminance,
        "Ingest will exclude these secondary captures unless burned_in is NO.": modality == "SC"
        and burned_in != "NO",
    }
    return {
        "given": len(outcomes),
        "written": len(written),
        "skipped": reasons.total(),
        "reasons": dict(sorted(reasons.items())),
        "lossy": sum(outcome.lossy for outcome in written.values()),
        "patients": len({outcome.patient for outcome in written.values()}),
        "label_rows_without_picture": len(set(rows) - set(written)),
        "notes": [note for note, applies in notes.items() if applies],
    }
