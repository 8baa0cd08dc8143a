"""A NIfTI file in prediction: answered by a model that was trained on NIfTI, refused by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import fails, raises_code
from helpers import medres as medres_command

import medres
from data_pipelines import ingest
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.spec import spec_from
from medres.errors import RefusedInput
from medres.inference.scoring import score_split
from medres.inference.study_reader import read_study

nib = pytest.importorskip("nibabel")

N_PATIENTS = 12


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT volumes as NIfTI; half of them hold a dense cube."""
    folder, rng = tmp_path_factory.mktemp("nifti"), np.random.default_rng(2)
    lines = ["path,square,patient"]
    for number in range(N_PATIENTS):
        voxels = rng.integers(-100, 100, (34, 34, 4)).astype(np.int16)
        if number % 2:
            voxels[8:24, 8:24] += 1000
        affine = np.diag([-0.8, -0.8, 3.0, 1.0])
        nib.save(nib.Nifti1Image(voxels, affine), folder / f"{number}.nii.gz")
        lines.append(f"{number}.nii.gz,{number % 2},P{number}")
    labels = folder / "labels.csv"
    labels.write_text("\n".join(lines) + "\n")
    out = folder.with_name(f"{folder.name}-work")
    result = medres_command(
        "ingest", folder, "--labels", labels, "--nifti-units", "HU", "--out", out
    )
    assert result.exit_code == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def model(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    medres.train(
        work, model="resnet10", preset="ct-32", width=8, epochs=1, batch_size=8, seed=3, out=out
    )
    return out / "model.keras"


def test_a_model_trained_on_nifti_answers(model: Path, work: Path) -> None:
    predictor = medres.load(model)
    assert predictor.card.domain is not None
    assert set(predictor.card.domain.formats or {}) == {"nifti"}
    scores, _ = score_split(model, work, "test")
    table = Manifest.load(work).table.set_index("image").loc[scores["image"]]
    for path, rows in table.reset_index().groupby("path"):
        file = Path(rows["source"].iloc[0]) / path
        prediction = predictor.predict(file)
        assert prediction.refused is None
        assert prediction.n_images == len(rows) == 4
        best = scores.set_index("image").loc[rows["image"], "score"].max()
        assert prediction.probabilities["square"] == pytest.approx(best, abs=1e-6)
        assert predictor.predict(file.read_bytes()).probabilities == prediction.probabilities
    (one,) = predictor.predict_many([file])
    assert one.probabilities == prediction.probabilities


def test_a_damaged_file_is_refused_by_its_code(model: Path, work: Path, tmp_path: Path) -> None:
    row = Manifest.load(work).table.iloc[0]
    data = (Path(row["source"]) / row["path"]).read_bytes()
    (tmp_path / "x.nii.gz").write_bytes(data[: len(data) // 2])
    prediction = medres.load(model).predict(tmp_path / "x.nii.gz")
    assert (prediction.code, prediction.probabilities) == ("truncated_pixels", {})


def test_a_model_trained_on_dicom_refuses(tiny_run: Path, work: Path, model: Path) -> None:
    row = Manifest.load(work).table.iloc[0]
    file = Path(row["source"]) / row["path"]
    predictor = medres.load(tiny_run / "model.keras")
    assert predictor.predict(file).code == "other_format"
    (prediction,) = predictor.predict_many([file])
    assert prediction.code == "other_format"
    card = medres.load(model).card
    assert card.domain is not None
    of_dicom = card.domain.model_copy(update={"formats": {"dicom": 9}})
    of_earlier_versions = card.domain.model_copy(update={"formats": {}})
    for domain in (of_dicom, of_earlier_versions, None):
        with raises_code(RefusedInput, "other_format"):
            read_study([file], card.model_copy(update={"domain": domain}))
    volumes = card.model_copy(update={"preprocess": spec_from("ctvol-16")})
    assert read_study([file], volumes).pixels.shape == (1, 16, 16, 16)


def test_ingest_names_the_option(work: Path, tmp_path: Path) -> None:
    source = Manifest.load(work).table["source"].iloc[0]
    message = fails(medres_command("ingest", source, "--out", tmp_path / "w"))
    assert "--nifti-units" in message
    assert ingest(source, nifti_units="HU", no_split=True).summary["images"] == 4 * N_PATIENTS
