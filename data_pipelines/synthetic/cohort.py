"""A synthetic cohort of DICOM files, marked as synthetic in every header, for the demo and tests.

Five of six patients have radiographs (CR or DX, several visits), the sixth has a CT series. The
finding is a soft nodule, whose contrast goes down to nearly nothing. Manufacturer, gain, view, age,
sex and site do not depend on it. As in real folders, there are also a localizer, a truncated file,
an exact duplicate and a text file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypedDict

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import InputError
from data_pipelines.kinds import CT, RADIOGRAPH, KindName, image_kind
from data_pipelines.labels.task import DETECTION, SEGMENTATION
from data_pipelines.runtime.atomic_files import csv_bytes, staged_folder
from data_pipelines.synthetic.anatomy import (
    Anatomy,
    Nodule,
    ct_labels,
    ct_slice,
    draw_anatomy,
    radiograph,
    radiograph_labels,
)

MAKERS = ("medres phantom A", "medres phantom B")
NOTICE = "Synthetic image drawn by medres. Not a patient."
_XRAY_SYNTAXES = (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_CT_SYNTAXES = (
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
_VISITS, _VIEWS = 3, ("PA", "AP")
_SLICES, _SLICE_STEP_MM = 10, 12.0
_LUT_BITS = 10
TASKS = ("classification", SEGMENTATION, DETECTION)
_NODULE = 2  # in the label maps


class BoxRow(NamedTuple):
    """A row of boxes.csv: edges in pixels; all empty where an image has no nodule."""

    path: str
    x_min: int | str
    y_min: int | str
    x_max: int | str
    y_max: int | str
    # the name of the column is a keyword of Python
    class_: str


class LabelRow(TypedDict):
    """A row of labels.csv."""

    path: str
    nodule: int
    age: int
    sex: str
    site: str


@dataclass(frozen=True)
class _Patient:
    number: int
    seed: int
    age: int
    sex: str
    maker: int  # index into MAKERS
    anatomy: Anatomy
    nodule: Nodule | None

    @property
    def id(self) -> str:
        return f"PHANTOM-{self.number:04d}"

    def uid(self, *parts: object) -> UID:
        return derived_uid("phantom", self.seed, self.number, *parts)


def make_cohort(
    folder: Path | str,
    patients: int = 60,
    seed: int = 0,
    *,
    only: KindName | None = None,
    task: str = "classification",
) -> Path:
    """Write a synthetic cohort to `folder`, which must be new or empty, and return its path.

    patients: 6 or more. only: the kind of image of every patient; None mixes both kinds. task:
    "segmentation" adds a label map of each image, `folder/masks/PATH.png` (1 lung, 2 nodule), and
    "detection" the box of each nodule in `folder/boxes.csv`, with an empty row for an image without
    one; nothing else changes.

    `folder/labels.csv` has the columns path, nodule (0 or 1), age (years), sex and site. Equal
    arguments give equal bytes; after a failure nothing is left. Raises InputError: output_exists
    when the folder is in use, too_few_patients when `patients` is below 6.
    """
    if patients < 6:
        raise InputError(
            f"patients={patients}: a cohort needs at least 6 patients.", code="too_few_patients"
        )
    if task not in TASKS:
        raise InputError(f"task={task!r}: choose one of {', '.join(TASKS)}.", code="unknown_task")
    folder = Path(folder)
    with staged_folder(folder, what="the synthetic cohort") as stage:
        rows: list[LabelRow] = []
        annotate = _ANNOTATORS[task](stage)
        for number in range(1, patients + 1):
            patient = _draw_patient(number, seed)
            mixed_kind = CT if number % 6 == 0 else RADIOGRAPH
            kind = mixed_kind if only is None else image_kind(only)
            write = _write_ct if kind.has_series else _write_radiographs
            rows += write(stage, patient, annotate)
        rows += _write_odd_files(stage, rows, seed)
        annotate.finish()
        (stage / "labels.csv").write_bytes(csv_bytes(rows, list(rows[0])))
        (stage / "SYNTHETIC.txt").write_text(
            f"{NOTICE} Seed {seed}, {patients} made-up patients.\n", encoding="ascii"
        )
    return folder


def _draw_patient(number: int, seed: int) -> _Patient:
    rng = np.random.default_rng([seed, number])
    nodule = None
    if rng.random() < 0.55:
        nodule = Nodule(
            side=int(rng.choice([-1, 1])),
            u=rng.uniform(-0.55, 0.55),
            v=rng.uniform(-0.6, 0.6),
            radius=rng.uniform(0.09, 0.14),
            contrast=rng.uniform(0.25, 1.5),
        )
    return _Patient(
        number=number,
        seed=seed,
        age=int(rng.integers(24, 94)),
        sex=str(rng.choice(["F", "M"])),
        maker=int(rng.integers(0, 2)),
        anatomy=draw_anatomy(rng),
        nodule=nodule,
    )


class _NoAnnotations:
    """What is written beside the images: nothing. folder: of the cohort."""

    needs_labels = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[BoxRow] = []

    def add(self, path: str, labels: np.ndarray) -> None:
        """An image, by its path, with its label map."""

    def finish(self) -> None:
        """After the last image."""


class _Masks(_NoAnnotations):
    needs_labels = True

    def add(self, path: str, labels: np.ndarray) -> None:
        file = (self.folder / "masks" / path).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(file)


class _Boxes(_NoAnnotations):
    needs_labels = True

    def add(self, path: str, labels: np.ndarray) -> None:
        y, x = np.nonzero(labels == _NODULE)
        if not len(x):
            self.rows.append(BoxRow(path, "", "", "", "", ""))
            return
        low, high = (int(x.min()), int(y.min())), (int(x.max()) + 1, int(y.max()) + 1)
        self.rows.append(BoxRow(path, *low, *high, "nodule"))

    def finish(self) -> None:
        names = [name.rstrip("_") for name in BoxRow._fields]
        rows = [dict(zip(names, row, strict=True)) for row in self.rows]
        (self.folder / "boxes.csv").write_bytes(csv_bytes(rows, names))


_ANNOTATORS: dict[str, type[_NoAnnotations]] = dict(
    zip(TASKS, (_NoAnnotations, _Masks, _Boxes), strict=True)
)


def _write_radiographs(
    folder: Path, patient: _Patient, annotate: _NoAnnotations
) -> Iterator[LabelRow]:
    """Two views at each of three visits. The nodule is there from one visit on, and its contrast
    varies between images.
    """
    rng = np.random.default_rng([patient.seed, patient.number, 1])
    onset = int(rng.choice([0, 0, 1]))
    for visit in range(_VISITS):
        for view_index, view in enumerate(_VIEWS):
            nodule = patient.nodule if visit >= onset else None
            if nodule is not None:
                nodule = replace(nodule, contrast=nodule.contrast * rng.uniform(0.6, 1.0))
            size, drawn = ((160, 144)[patient.maker], 144), copy.deepcopy(rng)
            values = radiograph(patient.anatomy, rng, *size, nodule)
            syntax = _XRAY_SYNTAXES[(patient.number + 2 * visit + view_index) % len(_XRAY_SYNTAXES)]
            dataset = _radiograph_dataset(patient, values, visit, view, syntax)
            path = f"{patient.id}/visit{visit + 1}_{view}.dcm"
            save(dataset, folder / path)
            if annotate.needs_labels:
                annotate.add(path, radiograph_labels(patient.anatomy, drawn, *size, nodule))
            yield _row(path, nodule is not None, patient)


def _radiograph_dataset(
    patient: _Patient, values: np.ndarray, visit: int, view: str, syntax: UID
) -> Dataset:
    modality = ("CR", "DX")[patient.maker]
    dataset = _dataset(patient, modality, syntax, study=visit, series=view, instance=1)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = view
    dataset.PatientOrientation = ["L", "F"]
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1 if patient.maker else 1
    dataset.ImagerPixelSpacing = [2.5, 2.5]
    if modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.ImageLaterality = "U"
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
        _store_with_lut(dataset, values**1.15)
    else:
        gain = 0.9 + 0.1 * np.cos(patient.number)
        dataset.WindowCenter, dataset.WindowWidth = 1850.5, 3301  # shows 200..3500
        set_pixels(dataset, np.round(200 + 3300 * gain * values).astype(np.uint16), bits=12)
    return dataset


def _store_with_lut(dataset: Dataset, values: np.ndarray) -> None:
    """Store MONOCHROME1 pixels from which the VOI LUT (PS3.3 C.11.2) and the inversion of the
    polarity give back `values` (0..1).
    """
    top = 2**_LUT_BITS - 1
    ramp = np.arange(top + 1) / top
    curve = 0.5 * ramp + 0.5 * (3 * ramp**2 - 2 * ramp**3)
    stored = np.interp(1 - values, curve, np.arange(top + 1))
    lut = Dataset()
    lut.LUTDescriptor = [top + 1, 0, 12]
    lut.LUTExplanation = "synthetic"
    lut.add_new("LUTData", "US", [int(v) for v in np.round(4095 * curve)])
    dataset.VOILUTSequence = [lut]
    dataset.PresentationLUTShape = "INVERSE"
    set_pixels(
        dataset, np.round(stored).astype(np.uint16), bits=_LUT_BITS, photometric="MONOCHROME1"
    )


def _write_ct(folder: Path, patient: _Patient, annotate: _NoAnnotations) -> Iterator[LabelRow]:
    """One series, whose file names and instance numbers do not follow the slice positions."""
    rng = np.random.default_rng([patient.seed, patient.number, 2])
    names = rng.permutation(_SLICES)
    for index in range(_SLICES):
        z = (index + 0.5) / _SLICES * 2 - 1
        hu = ct_slice(patient.anatomy, rng, 128, z, patient.nodule)
        dataset = _ct_dataset(patient, hu, index, _CT_SYNTAXES[patient.number // 6 % 5])
        path = f"{patient.id}/ct_{names[index]:03d}.dcm"
        save(dataset, folder / path)
        nodule = patient.nodule
        if annotate.needs_labels:
            annotate.add(path, ct_labels(patient.anatomy, 128, z, nodule))
        yield _row(
            path, nodule is not None and abs(z - nodule.v) / 2 < 0.8 * nodule.radius, patient
        )


def _ct_dataset(patient: _Patient, hu: np.ndarray, index: int, syntax: UID) -> Dataset:
    dataset = _dataset(patient, "CT", syntax, study=0, series="CT", instance=_SLICES - index)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.BodyPartExamined = "CHEST"
    dataset.FrameOfReferenceUID = patient.uid("frame")
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-190.5, -190.5, _SLICE_STEP_MM * index]
    dataset.PixelSpacing = [3.0, 3.0]
    dataset.SliceThickness = _SLICE_STEP_MM
    dataset.KVP = 120
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.RescaleSlope, dataset.RescaleType = 1, "HU"
    if patient.maker == 0:
        dataset.RescaleIntercept = -1024
        stored = np.round(hu + 1024).clip(0, 4095).astype(np.uint16)
    else:  # outside the reconstruction circle there is only padding
        dataset.RescaleIntercept = 0
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        stored = np.round(hu).clip(-1024, 3071).astype(np.int16)
        y, x = np.mgrid[-1 : 1 : stored.shape[0] * 1j, -1 : 1 : stored.shape[1] * 1j]
        stored[x**2 + y**2 > 1] = -2000
    set_pixels(dataset, stored, bits=16)
    return dataset


def _dataset(
    patient: _Patient, modality: str, syntax: UID, *, study: int, series: str, instance: int
) -> Dataset:
    dataset = new_dataset(
        modality,
        syntax,
        patient_id=patient.id,
        patient=f"PHANTOM^{patient.number:04d}",
        study=patient.uid("study", study),
        series=patient.uid("series", study, series),
        sop=patient.uid("image", study, series, instance),
    )
    dataset.IssuerOfPatientID = "medres phantom"
    dataset.PatientSex = patient.sex
    dataset.PatientAge = f"{patient.age:03d}Y"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "synthetic: there is no patient"
    dataset.Manufacturer = MAKERS[patient.maker]
    dataset.ManufacturerModelName = f"drawing {modality}"
    dataset.SeriesDescription = "synthetic phantom"
    dataset.ImageComments, dataset.BurnedInAnnotation = NOTICE, "NO"
    dataset.LossyImageCompression, dataset.InstanceNumber = "00", instance
    return dataset


def _write_odd_files(folder: Path, rows: list[LabelRow], seed: int) -> list[LabelRow]:
    """Write a localizer, a truncated radiograph and a byte-for-byte copy; return the label rows of
    the last two.
    """
    patient = _draw_patient(6, seed)
    hu = ct_slice(patient.anatomy, np.random.default_rng(seed), 128, 0.0)
    localizer = _ct_dataset(patient, hu, 0, _CT_SYNTAXES[0])
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    localizer.SeriesInstanceUID = patient.uid("series", 0, "localizer")
    localizer.SOPInstanceUID = patient.uid("image", 0, "localizer")
    localizer.file_meta.MediaStorageSOPInstanceUID = localizer.SOPInstanceUID
    save(localizer, folder / patient.id / "localizer.dcm")
    copies: list[LabelRow] = []
    for row, name, share in ((rows[0], "cut_short.dcm", 0.6), (rows[1], "copy.dcm", 1.0)):
        data = (folder / row["path"]).read_bytes()
        path = PurePosixPath(row["path"]).with_name(name)
        (folder / path).write_bytes(data[: int(len(data) * share)])
        copies.append({**row, "path": str(path)})
    return copies


def _row(path: str, positive: bool, patient: _Patient) -> LabelRow:
    site = ("north", "south")[patient.number % 2]
    return {
        "path": path,
        "nodule": int(positive),
        "age": patient.age,
        "sex": patient.sex,
        "site": site,
    }
