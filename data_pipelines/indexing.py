"""Looking at every file once: walk, read the header, decode every frame in an isolated worker, give a reason or a row."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_pipelines.doors import Units, array_image, array_members, form_of, picture_image
from data_pipelines.errors import DicomError, Ineligible, InputError, NotDicom
from data_pipelines.files import file_sha256
from data_pipelines.headers import Header, Kind, eligibility, header_of
from data_pipelines.images import Image, image_of
from data_pipelines.limits import current
from data_pipelines.looks import perceptual_hash
from data_pipelines.parsing import Source, parse
from data_pipelines.planes import Plane, plane_of, planes_of
from data_pipelines.preprocess import UNITS
from data_pipelines.walking import walk
from data_pipelines.workers import Progress, map_files

#: Raw identifiers that the rows hold besides the manifest's columns; they never leave the process.
IDENTIFIERS = ("sop_uid", "series_uid", "study_uid", "patient_id", "issuer")


_ARRAY_BYTES = 1 << 20  # of an .npz, which may take the time of one file


@dataclass(frozen=True)
class Rejected:
    """A file without a row. `skipped`: it is not DICOM at all."""

    source: str
    path: str
    reason: str
    message: str
    skipped: bool


@dataclass(frozen=True, eq=False)
class Index:
    """`rows`: one a frame of each sound file, sorted by source (as given) and path; `rejected`: all other files."""

    rows: pd.DataFrame
    rejected: tuple[Rejected, ...]


def index_sources(
    sources: Sequence[Path | str],
    *,
    exclude: Sequence[Path] = (),
    for_processing: bool = False,
    units: Units | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Index:
    """Look at every file below `sources` but those in `exclude`. Raises InputError where a source is missing or inside
    another one. `for_processing` accepts raw radiographs; `units` lets PNG, JPEG and .npz in and says what their values
    are; `progress` is called with (done, total) files.

    Row columns: the technical ones of the manifest, IDENTIFIERS, look and plane; of an .npz also own_split and own_labels. Its
    images count as files, by the path FILE.npz#SPLIT/NUMBER.
    """
    walks = [walk(source) for source in sources]
    _require_apart([w.root / w.files[0] if Path(s).is_file() else w.root for s, w in zip(sources, walks, strict=True)])
    left_out = {str(Path(path).resolve()) for path in exclude}
    places = [(str(w.root), path) for w in walks for path in w.files]
    places = [(root, path) for root, path in places if os.path.join(root, path) not in left_out]  # noqa: PTH118
    rejected = [
        Rejected(str(w.root), path, reason, "Not a regular file: it is not opened.", skipped=True)
        for w in walks
        for path, reason in w.others
    ]
    items = [os.path.join(root, path) for root, path in places]  # noqa: PTH118
    rows: list[dict[str, Any]] = []
    look = functools.partial(look_at, for_processing=for_processing, units=units)
    answers = _answers(look, items, workers, progress)
    for (root, path), answer in zip(places, answers, strict=True):
        for name, found in [("", answer)] if isinstance(answer, DicomError) else answer:
            if isinstance(found, DicomError):
                skipped = isinstance(found, NotDicom)
                rejected.append(Rejected(root, path + name, found.code, str(found), skipped))
            else:
                rows.append({"source": root, "path": path + name, **found})
    return Index(pd.DataFrame(rows), tuple(rejected))


def _answers(look: Callable[[str], Any], items: list[str], workers: int | None, progress: Progress | None) -> list[Any]:
    """What each file gives, or the reason, in order. An .npz holds many images: its limit of time grows with its size."""
    arrays = {n for n, path in enumerate(items) if path.lower().endswith(".npz")}
    others = [path for n, path in enumerate(items) if n not in arrays]
    found = iter([answer for _, answer in map_files(look, others, workers=workers, progress=progress)])
    return [_answer_of_array(look, path) if n in arrays else next(found) for n, path in enumerate(items)]


def _answer_of_array(look: Callable[[str], Any], path: str) -> Any:
    seconds = current().seconds * max(1.0, Path(path).stat().st_size / _ARRAY_BYTES)
    ((_, answer),) = map_files(look, [path], workers=1, timeout_s=seconds)
    return answer


def look_at(path: str, *, for_processing: bool, units: Units | None) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """What one file gives: (what to add to its path, row or reason), one a frame or image. Raises DicomError for a file
    of which nothing can be used. Runs in a worker."""
    if units is not None and form_of(path) == "npz":
        return [(f"#{name}", found) for name, found in inspect_array(path, units)]
    return [("", row) for row in inspect_file(path, for_processing=for_processing, units=units)]


def inspect_file(path: str, *, for_processing: bool = False, units: Units | None = None) -> list[dict[str, Any]]:
    """Read, decode and describe each frame of a file. Raises DicomError."""
    digest = file_sha256(path)
    form = "dicom" if units is None else form_of(path)
    usable = usable_images(path, for_processing=for_processing, units=units)
    return [{"file_sha256": digest, "form": form, **_row(*one)} for one in usable]


def inspect_array(path: str, units: Units) -> list[tuple[str, dict[str, Any] | DicomError]]:
    """Describe each image of an .npz, or say why it is of no use. Raises DicomError for the whole file."""
    digest = file_sha256(path)
    found: list[tuple[str, dict[str, Any] | DicomError]] = []
    for name, member in array_members(path, digest).items():
        try:
            row = _row(*_with_plane(array_image(member, units)))
            own = {"own_split": member.split, "own_labels": member.labels}
            found.append((name, {"file_sha256": digest, "form": "npz", **own, **row}))
        except DicomError as error:
            found.append((name, error))
    return found


def usable_images(
    source: Source, *, for_processing: bool = False, units: Units | None = None, digest: bool = True
) -> list[tuple[Image, Kind, Plane]]:
    """Every frame of a file that a model may learn from or be asked about: ingest and prediction share this gate.

    `units` lets a PNG or JPEG in; without `digest`, a DICOM image's `pixel_sha256` is ''. Raises DicomError; Ineligible says what
    makes a sound file no picture to learn from.
    """
    if units is not None and form_of(source) in ("png", "jpeg"):
        data = bytes(source) if isinstance(source, bytes | bytearray) else Path(str(source)).read_bytes()
        return [_with_plane(picture_image(data, units))]
    parsed = parse(source, pixels=True)
    header = header_of(parsed)
    kind = eligibility(header, for_processing=for_processing)
    planes = planes_of(parsed.dataset, header, 0)
    if any(plane.not_a_slice for plane in planes):
        code = next(plane.not_a_slice for plane in planes if plane.not_a_slice)
        raise Ineligible("A frame of it is no slice of intensities.", code=code)
    images = [image_of(parsed.dataset, header, plane.frame, digest=digest) for plane in planes]
    for image in images:
        if image.units != UNITS[kind]:
            raise Ineligible("A CT without a rescale to HU: its values have no known unit.", code="not_hu")
        _refuse_constant(image)
    return [(image, kind, plane) for image, plane in zip(images, planes, strict=True)]


def _with_plane(image: Image) -> tuple[Image, Kind, Plane]:
    _refuse_constant(image)
    return image, "ct" if image.units == "HU" else "radiograph", plane_of(image.header, 0)


def _refuse_constant(image: Image) -> None:
    if image.pixels.min() == image.pixels.max():
        raise Ineligible("All pixels are equal: there is nothing to see.", code="constant_pixels")


def _row(image: Image, kind: Kind, plane: Plane) -> dict[str, Any]:
    header = image.header
    spacing = image.spacing_mm or (float("nan"), float("nan"))
    return {
        "frame": image.frame,
        "status": "repaired" if image.repairs else "ok",
        "repairs": ";".join(dict.fromkeys(image.repairs)),
        "kind": kind,
        **_technical(header),
        "rows": image.pixels.shape[0],
        "cols": image.pixels.shape[1],
        "row_spacing": spacing[0],
        "col_spacing": spacing[1],
        "pixel_sha256": image.pixel_sha256,
        "look": perceptual_hash(image.pixels),
        "sop_uid": header.identifiers.sop_instance_uid,
        "series_uid": header.identifiers.series_instance_uid,
        "study_uid": header.identifiers.study_instance_uid,
        "patient_id": header.identifiers.patient_id,
        "issuer": header.identifiers.issuer_of_patient_id,
        "plane": plane,
    }


def _technical(header: Header) -> dict[str, Any]:
    return {
        "modality": header.modality,
        "photometric": header.photometric,
        "transfer_syntax": header.transfer_syntax,
        "manufacturer": header.manufacturer,
        "model": header.model_name,
        "body_part": header.body_part,
        "view": header.view_position,
        "laterality": header.laterality,
        "site": "",
        "sex": header.patient_sex,
        "age": float("nan") if header.patient_age_years is None else header.patient_age_years,
    }


def _require_apart(places: Sequence[Path]) -> None:
    for a, b in itertools.permutations(places, 2):
        if a.is_relative_to(b):
            raise InputError(
                f"SOURCE {a} is given twice or lies inside SOURCE {b}. Give each file once.", code="sources"
            )
