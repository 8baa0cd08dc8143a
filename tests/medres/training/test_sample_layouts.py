"""The predictor with the other forms of input: 2.5D stacks and volumes of a CT series, through a
saved, untrained model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

import medres
from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.preprocessing.study import prepared_study
from medres.artefact.archive import save as save_artefact
from medres.artefact.card import Card, OperatingPoint
from medres.artefact.feature_distance import fit_novelty

SLICES = 6


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regular CT series of six slices of 24 x 20 with a bright spot in the third, and a
    radiograph's worth of noise elsewhere.
    """
    folder = tmp_path_factory.mktemp("ct")
    for number in range(SLICES):
        uids = {
            "study": derived_uid("forms"),
            "series": derived_uid("forms", "s"),
            "sop": derived_uid("forms", number),
        }
        dataset = new_dataset("CT", ExplicitVRLittleEndian, patient_id="FORMS", patient="", **uids)
        dataset.ImageType, dataset.RescaleSlope, dataset.RescaleIntercept = (
            ["ORIGINAL", "PRIMARY", "AXIAL"],
            1,
            -1024,
        )
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [2.0, 2.0]
        dataset.ImagePositionPatient = [0, 0, 5.0 * number]
        pixels = np.random.default_rng(number).integers(900, 1250, (24, 20)).astype(np.uint16)
        if number == 2:
            pixels[8:12, 6:10] = 2000
        set_pixels(dataset, pixels, bits=12)
        save(dataset, folder / f"{number}.dcm")
    return folder


@pytest.fixture(scope="module", params=["ct25d-16", "ctvol-16"])
def predictor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> medres.Predictor:
    import keras

    spec = spec_from(request.param)
    keras.utils.set_random_seed(1)
    model = medres.classifier(
        "resnet10",
        spec.shape,
        1,
        windows=["soft_tissue"],
        stem="small",
        width=8,
        activation="sigmoid",
    )
    point = OperatingPoint(
        finding="spot",
        name="default",
        threshold=0.5,
        criterion="youden",
        unit="study",
        split="tune",
        n_patients=9,
        sha256="",
    )
    card = Card(
        task="binary", names=["spot"], preprocess=spec, unit="study", pooling="max", calibration={},
        operating_points=[point], training={}, versions={}, windows=[(50.0, 350.0)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp(request.param) / "model.keras"
    save_artefact(
        path, model, card, fit_novelty(np.random.default_rng(0).random((9, 64)).astype(np.float32))
    )
    return medres.load(path)


def test_a_series_is_answered_as_its_records_are_scored(
    predictor: medres.Predictor, series: Path
) -> None:
    spec = predictor.card.preprocess
    records = prepared_study(sorted(series.iterdir()), spec).pixels
    assert len(records) == (SLICES if spec.form == "stack" else 1)
    want = np.asarray(predictor.artefact.model(to_model_units(records, spec)))
    found = predictor.predict(series)
    assert found.refused is None
    assert found.n_images == len(records)
    assert found.probabilities["spot"] == pytest.approx(want.max(), abs=1e-5)
    assert found.novelty > 0


def test_its_saliency_is_on_the_middle_slice_or_on_the_grid_of_the_volume(
    predictor: medres.Predictor, series: Path
) -> None:
    found = predictor.predict(series).saliency("spot", method="integrated_gradients")
    shape = (24, 20) if predictor.card.preprocess.form == "stack" else (16, 16)
    assert found.values.shape == found.picture.shape == shape
    assert np.ptp(found.values) > 0
    assert 0 <= found.picture.min() < found.picture.max() <= 1
    assert found.png().startswith(b"\x89PNG")


def test_two_series_and_a_radiograph_are_refused(
    predictor: medres.Predictor, series: Path, tmp_path: Path
) -> None:
    import pydicom

    for file in series.iterdir():
        dataset = pydicom.dcmread(file)
        save(dataset, tmp_path / file.name)
        dataset.SeriesInstanceUID = derived_uid("forms", "other")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid(
            "forms", "other", file.name
        )
        save(dataset, tmp_path / f"other-{file.name}")
    assert "more than one series" in predictor.predict(tmp_path).refused
    dataset.Modality, dataset.SOPClassUID = "CR", "1.2.840.10008.5.1.4.1.1.1"
    assert "another kind" in predictor.predict(dataset).refused
