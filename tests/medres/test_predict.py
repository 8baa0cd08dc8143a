from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import rewrite
from PIL import Image

import medres
from data_pipelines.manifest import Manifest
from data_pipelines.openings import read_openings
from data_pipelines.wrapping import wrap
from medres.errors import ArtefactError
from medres.scoring import score_split


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


def test_predict_gives_the_probability_of_the_training_pipeline(predictor, tiny_run: Path, tiny_work: Path) -> None:
    scores, context = score_split(tiny_run / "model.keras", tiny_work, "test")
    table = Manifest.load(tiny_work).table.set_index("image").loc[scores["image"]]
    for (_, row), score in zip(table.iterrows(), scores["score"], strict=True):
        got = predictor.predict(Path(row["source"]) / row["path"])
        assert got.refused is None
        assert got.probabilities["square"] == pytest.approx(score, abs=1e-6)
    assert context["provenance"]["test_openings"]["times"] == len(read_openings(tiny_work)) >= 1
    assert [(p["finding"], p["unit"]) for p in context["frozen"]] == [("positive", "patient"), ("positive", "study")]


def test_a_study_is_pooled_by_its_largest_score(predictor, tiny_work: Path) -> None:
    table = Manifest.load(tiny_work).table
    rows = table[table["study"] == table["study"].iloc[0]]
    files = [Path(r.source) / r.path for r in rows.itertuples()]
    single = [predictor.predict(f).probabilities["square"] for f in files]
    together = predictor.predict(files)
    assert len(files) == 2
    assert together.probabilities["square"] == pytest.approx(max(single), abs=1e-6)
    threshold = predictor.card.threshold("square", unit="study")
    assert together.decisions["square"] == (together.probabilities["square"] >= threshold)


def test_path_bytes_and_data_set_give_the_same(predictor, tiny_work: Path) -> None:
    row = Manifest.load(tiny_work).table.iloc[0]
    path = Path(row["source"]) / row["path"]
    want = predictor.predict(path).probabilities
    assert predictor.predict(str(path)).probabilities == want
    assert predictor.predict(path.read_bytes()).probabilities == want
    assert predictor.predict(pydicom.dcmread(path)).probabilities == want


def test_predict_many_yields_one_prediction_a_study(predictor, tiny_work: Path) -> None:
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    assert len(list(predictor.predict_many([source]))) == 30


def test_two_studies_at_once_are_refused(predictor, tiny_work: Path) -> None:
    table = Manifest.load(tiny_work).table.drop_duplicates("study")
    files = [Path(r.source) / r.path for r in table.head(2).itertuples()]
    assert "more than one study" in predictor.predict(files).refused


def test_what_the_model_cannot_read_is_refused_with_a_reason(predictor, tiny_work: Path, tmp_path: Path) -> None:
    row = Manifest.load(tiny_work).table.iloc[0]
    data = (Path(row["source"]) / row["path"]).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[:-500])
    (tmp_path / "note.dcm").write_text("no DICOM")
    dataset = pydicom.dcmread(Path(row["source"]) / row["path"])
    dataset.Modality, dataset.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    for source in (tmp_path / "cut.dcm", tmp_path / "note.dcm", dataset, tmp_path / "absent.dcm"):
        found = predictor.predict(source)
        assert found.refused
        assert found.probabilities == found.decisions == {}
        assert "TINY" not in found.refused


def test_a_split_of_other_labels_is_refused(tiny_run: Path, tiny_work: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table.rename(columns={"label:square": "label:circle"})
    rewrite(work, table, findings=["circle"])
    with pytest.raises(ArtefactError, match="square"):
        score_split(tiny_run / "model.keras", work)


def test_scores_keep_ids_labels_and_subgroups(tiny_run: Path, tiny_work: Path) -> None:
    scores, context = score_split(tiny_run / "model.keras", tiny_work, "tune")
    assert "test_openings" not in context["provenance"]
    assert {"image", "series", "study", "patient", "label", "score", "status", "site"} <= {*scores.columns}
    assert scores["image"].is_unique
    assert np.isfinite(scores["score"]).all()
    assert context["unit"] == "patient"


def test_a_picture_is_a_study_of_its_own_and_equals_its_wrapped_twin(predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(2):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{n}.png")
    wrap(tmp_path / "in", tmp_path / "dicom")
    pictures, twins = (list(predictor.predict_many([tmp_path / name])) for name in ("in", "dicom"))
    assert [p.refused for p in pictures] == [None, None]
    for picture, twin in zip(pictures, twins, strict=True):
        assert picture.probabilities == pytest.approx(twin.probabilities)
    data = (tmp_path / "in" / "1.png").read_bytes()
    assert predictor.predict(data).probabilities == pictures[1].probabilities
    assert "more than one study" in str(predictor.predict(tmp_path / "in").refused)
