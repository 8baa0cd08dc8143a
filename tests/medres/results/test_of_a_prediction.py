"""From a model file and a study to the objects of its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from result_objects import validation_errors

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.results import Overlay, content_of, model_identity, results_of, write_results

hd = pytest.importorskip("highdicom", reason="the extra medres[results] is not installed")


def test_a_study_of_two_images(tiny_run: Path, tiny_work: Path, tmp_path: Path) -> None:
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    paths = [source / f"TINY001-{view}.dcm" for view in range(2)]
    predictor = medres.load(tiny_run / "model.keras", isolate=False)
    prediction = predictor.predict(paths)
    model = model_identity(predictor.card, prediction.model_sha256, name="resnet10")
    datasets = [dcmread(path) for path in paths]
    result = results_of(prediction, datasets, model, contents=map(content_of, paths))
    assert result.key == results_of(prediction, datasets, model).key
    saliency = prediction.saliency()
    uid = prediction.slices[saliency.index][0][0]
    overlay = Overlay(saliency.picture, uid, heat=saliency.values)
    files = write_results(tmp_path, result, overlays=[overlay])
    assert [validation_errors(path) for path in files.values() if path.suffix == ".dcm"] == [[], []]
    report = hd.sr.Comprehensive3DSR.from_dataset(dcmread(files["report"]))
    group, *images = report.content.get_image_measurement_groups()
    values = {m.name.value: float(m.value) for m in group.get_measurements()}
    assert values["probability"] == pytest.approx(prediction.probabilities["square"], abs=1e-12)
    assert values["threshold"] == pytest.approx(prediction.thresholds["square"], abs=1e-12)
    assert len(images) == 2
    document = json.loads(files["result"].read_text())
    assert document["probabilities"] == prediction.probabilities
    assert document["study_uid"] == prediction.study_uid
    height = datasets[0].Rows
    drawn = dcmread(files["overlay 1"]).pixel_array[-height:, : datasets[0].Columns]
    plain = np.rint(255 * saliency.picture).astype(int)
    np.testing.assert_array_equal(
        (drawn != plain[..., np.newaxis]).any(axis=2)[saliency.values <= 0], False
    )
