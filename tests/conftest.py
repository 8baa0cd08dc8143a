"""Tiny made-up cohorts that many tests share. No test needs data from elsewhere; those that can use
them look at MEDRES_DATA.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import PreprocessSpec

# The machine may be busy; how long an example takes says nothing about its truth.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

SIDE = 40


@pytest.fixture(scope="session", autouse=True)
def _plain_keras_in_this_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`medres.artefact.archive.save` asks a fresh process each time; test_artefact does so once,
    the others open the file here. What was opened is not remembered in the user's own cache.
    """
    from medres.artefact import golden_vectors

    def here(
        path: Path, prepared: np.ndarray, spec: PreprocessSpec, limits: object = None
    ) -> np.ndarray:
        import keras

        return golden_vectors.outputs_of(keras.saving.load_model(path), prepared, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden_vectors, "outputs_in_plain_keras", here)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def medres_data() -> Path:
    """The folder of real data, where there is one."""
    folder = os.environ.get("MEDRES_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDRES_DATA names no folder: real images are not here")
    return Path(folder)


def write_cr(
    path: Path, pixels: np.ndarray, *, patient: str, study: str, photometric: str = "MONOCHROME2"
) -> None:
    """A small CR image, 12 bits stored; UIDs follow from the names."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name, patient, study])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Modality, dataset.PatientID, dataset.BodyPartExamined = "CR", patient, "CHEST"
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[patient, study])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, study, "series"])
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = (
        1,
        photometric,
        0,
    )
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def make_tiny_cohort(folder: Path, patients: int = 30, seed: int = 0) -> Path:
    """Two images a patient, one study; a bright square in both images of every second patient.
    Returns the labels CSV.
    """
    rng = np.random.default_rng(seed)
    lines = ["patient_id,square,site"]
    for number in range(patients):
        positive, patient = number % 2, f"TINY{number:03d}"
        for view in range(2):
            pixels = rng.integers(500, 1500, (SIDE, SIDE))
            if positive:
                top, left = rng.integers(4, SIDE - 16, 2)
                pixels[top : top + 12, left : left + 12] += 2200
            inverted = view == 1
            stored = 4095 - pixels if inverted else pixels
            path = folder / "images" / f"{patient}-{view}.dcm"
            write_cr(
                path,
                stored,
                patient=patient,
                study="1",
                photometric=f"MONOCHROME{1 if inverted else 2}",
            )
        lines.append(f"{patient},{positive},{'north' if number % 3 else 'south'}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    return labels


def rewrite(work: Path, table: pd.DataFrame, **summary: object) -> None:
    """Change the table and the summary of an ingested folder, with its checksum."""
    manifest = Manifest.load(work)
    dataclasses.replace(manifest, table=table, summary={**manifest.summary, **summary}).save(work)


@pytest.fixture(scope="session")
def tiny_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ingested work folder of the tiny cohort: 30 patients, 60 images, finding `square`. Read
    only: copy it to change it.
    """
    from data_pipelines import ingest

    folder = tmp_path_factory.mktemp("tiny")
    labels = make_tiny_cohort(folder)
    ingest(folder / "images", labels, folder / "work", seed=1)
    return folder / "work"


def make_mask_cohort(folder: Path, patients: int = 18, seed: int = 0) -> None:
    """One image a patient with a bright square (label 1) and a dark one (label 2), and its label
    map; patient 1 has no mask, and the mask of patient 2 has another size.
    """
    from mask_writers import write_png

    rng = np.random.default_rng(seed)
    for number in range(patients):
        pixels = rng.integers(1800, 2200, (SIDE, SIDE))
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for label, value in ((1, 1500), (2, -1500)):
            top, left = rng.integers(2, SIDE - 12, 2)
            labels[top : top + 10, left : left + 10] = label
            pixels[top : top + 10, left : left + 10] = 2000 + value
        write_cr(folder / "images" / f"m{number:02d}.dcm", pixels, patient=f"M{number}", study="1")
        if number != 1:
            size = SIDE - 1 if number == 2 else SIDE
            write_png(folder / "masks" / f"m{number:02d}.png", labels[:size])


@pytest.fixture(scope="session")
def mask_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ingested work folder of 18 images with two classes, `bright` and `dark`; two images have
    no usable mask. Read only.
    """
    from data_pipelines import ingest

    folder = tmp_path_factory.mktemp("masks")
    make_mask_cohort(folder)
    ingest(
        folder / "images",
        None,
        folder / "work",
        masks=folder / "masks",
        mask_classes={"1": "bright", "2": "dark"},
        seed=2,
    )
    return folder / "work"


def make_box_cohort(folder: Path, patients: int = 18, seed: int = 0) -> None:
    """One image a patient with one bright square or more (class `bright`) and perhaps a dark one
    (class `dark`), and boxes.csv; in every sixth image is nothing, patient 1 is not listed, and a
    box of patient 2 has reversed corners.
    """
    rng = np.random.default_rng(seed)
    lines = ["path,x_min,y_min,x_max,y_max,class"]
    for number in range(patients):
        pixels = rng.integers(1800, 2200, (SIDE, SIDE))
        path = f"b{number:02d}.dcm"
        drawn = [("bright", 1500), ("dark", -1500)][: number % 6 and 2]
        for half, (name, value) in enumerate(drawn):
            top, left = rng.integers(2, 7) + 20 * half, rng.integers(2, SIDE - 12)
            pixels[top : top + 12, left : left + 10] = 2000 + value
            corners = [left, top, left + 10, top + 12]
            if number == 2:
                corners = corners[::-1]
            if number != 1:
                lines.append(f"{path},{','.join(map(str, corners))},{name}")
        if not drawn:
            lines.append(f"{path},,,,,")
        write_cr(folder / "images" / path, pixels, patient=f"B{number}", study="1")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def box_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ingested work folder of 18 images with boxes of the classes `bright` and `dark`; two
    images have no usable boxes, three have none at all. Read only.
    """
    from data_pipelines import ingest

    folder = tmp_path_factory.mktemp("boxes")
    make_box_cohort(folder)
    ingest(folder / "images", None, folder / "work", boxes=folder / "boxes.csv", seed=2)
    return folder / "work"


@pytest.fixture(scope="session")
def tiny_run(tiny_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a narrow ResNet-10 trained for six epochs on the tiny cohort. Read only."""
    import medres

    out = tmp_path_factory.mktemp("runs") / "run"
    medres.train(
        tiny_work,
        model="resnet10",
        preset="xray-32",
        width=8,
        epochs=6,
        batch_size=8,
        seed=3,
        out=out,
    )
    return out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files at the top (notebooks, README, documentation) take longest and come first, so that
    two workers end together.
    """
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
