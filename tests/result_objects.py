"""Made-up images and predictions for tests of result objects, and the validator of their files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import derived_uid, new_dataset, set_pixels
from medres.inference.prediction import Prediction
from medres.results import ModelIdentity

MODEL = ModelIdentity("resnet18-small", "2026-11-30", "ab" * 32, "cd" * 32)


class Box(NamedTuple):
    label: str
    score: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    sop_instance_uid: str
    frame: int = 0


def radiograph(number: int = 0, *, shape: tuple[int, int] = (20, 30), **elements: Any) -> Dataset:
    """One radiograph without a birth date. Radiographs of all numbers are of one study."""
    dataset = _dataset("CR", number)
    pixels = np.random.default_rng(number).integers(0, 4096, shape).astype(np.uint16)
    set_pixels(dataset, pixels, bits=12)
    return _with(dataset, elements)


def ct_slice(
    number: int,
    *,
    shape: tuple[int, int] = (9, 13),
    spacing: tuple[float, float] = (0.7, 0.8),
    step: tuple[float, float, float] = (0.0, 0.0, 2.5),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    **elements: Any,
) -> Dataset:
    """Slice `number` of a CT. step: from one slice to the next, in mm; orthogonal to the slice, or
    not for a tilted gantry.
    """
    dataset = _dataset("CT", number)
    pixels = np.random.default_rng(number).integers(0, 2000, shape).astype(np.uint16)
    set_pixels(dataset, pixels, bits=12)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.FrameOfReferenceUID = derived_uid("frame of reference")
    dataset.ImagePositionPatient = [round(5.0 + number * value, 6) for value in step]
    dataset.ImageOrientationPatient = list(orientation)
    dataset.PixelSpacing, dataset.SliceThickness = list(spacing), 2.5
    return _with(dataset, elements)


def _dataset(modality: str, number: int) -> Dataset:
    uids = {
        "study": derived_uid("study", modality),
        "series": derived_uid("series", modality),
        "sop": derived_uid("sop", modality, number),
    }
    dataset = new_dataset(
        modality, ExplicitVRLittleEndian, patient_id="P1", patient="Doe^J", **uids
    )
    del dataset.PatientBirthDate
    dataset.InstanceNumber = number + 1
    return dataset


def _with(dataset: Dataset, elements: dict[str, Any]) -> Dataset:
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def prediction(*datasets: Dataset, **fields: Any) -> Prediction:
    """A prediction of two findings, the first one uncertain, with one value per image."""
    uids = [str(dataset.SOPInstanceUID) for dataset in datasets]
    values: dict[str, Any] = {
        "probabilities": {"nodule": 0.8125431, "effusion": 0.0625},
        "decisions": {"nodule": True, "effusion": False},
        "thresholds": {"nodule": 0.5, "effusion": 0.25},
        "sets": {"nodule": [0, 1], "effusion": [0]},
        "conformal": {"alpha": 0.1, "sets": {}, "uncertain": ["nodule"], "atypical": []},
        "images": tuple({"nodule": 0.1 * (n + 1), "effusion": 0.01} for n in range(len(uids))),
        "slices": tuple(((uid, 0),) for uid in uids),
        "novelty": 1.5,
        "sop_instance_uids": tuple(uids),
        "model_sha256": MODEL.sha256,
    }
    return Prediction(**values | fields)


def refusal(code: str = "modality", sentence: str = "the study is an MR") -> Prediction:
    return Prediction({}, {}, refused=sentence, code=code, model_sha256=MODEL.sha256)


def written(dataset: Dataset, folder: Path) -> Path:
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def validation_errors(path: Path) -> list[str]:
    """The lines of dciodvfy that begin with Error; none where it is not installed, which one test
    reports.
    """
    program = shutil.which("dciodvfy")
    if program is None:
        return []
    done = subprocess.run([program, str(path)], capture_output=True, text=True, check=False)
    lines = (done.stderr + done.stdout).splitlines()
    return [line for line in lines if line.startswith("Error")]
