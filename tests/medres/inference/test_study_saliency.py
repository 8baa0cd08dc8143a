from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code
from PIL import Image as Pillow

import medres
import medres.explain
from data_pipelines import read_image
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.preprocessing.preparation import prepare, resize_axes, to_model_units
from data_pipelines.preprocessing.resize import AxisResize
from data_pipelines.preprocessing.spec import spec_from
from medres.errors import ModelError
from medres.explain import METHODS
from medres.explain.overlay import onto_original, overlay_png
from medres.inference import explain_study, pictures


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


def study_of(work: Path) -> list[Path]:
    table = Manifest.load(work).table
    rows = table[table["study"] == table[table["label:square"] == 1]["study"].iloc[0]]
    return [Path(r.source) / r.path for r in rows.itertuples()]


@pytest.mark.parametrize("shape", [(40, 40), (30, 90), (91, 47)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_map_comes_back_to_the_pixels_it_was_made_from(
    tmp_path: Path, shape: tuple[int, int], fit: str
) -> None:
    """A spot that `prepare` puts somewhere comes back to within two pixels of the model's grid."""
    from conftest import write_cr

    spec = spec_from({"kind": "radiograph", "rows": 32, "cols": 32, "fit": fit})
    for position in ((5, 6), (shape[0] - 8, shape[1] - 5)):
        pixels = np.zeros(shape)
        row, column = position
        pixels[row - 3 : row + 3, column - 3 : column + 3] = 4000
        write_cr(tmp_path / "a.dcm", pixels, patient="P", study="1")
        image = read_image(tmp_path / "a.dcm")
        grid = to_model_units(prepare(image, spec), spec)[..., 0]
        back = onto_original(grid, resize_axes(image, spec))
        assert back.shape == shape
        center = np.array([(back * axis).sum() / back.sum() for axis in np.indices(shape)])
        assert center == pytest.approx(np.array(position) - 0.5, abs=2 * max(shape) / 32)


def test_what_a_crop_left_out_is_empty() -> None:
    back = onto_original(
        np.ones((4, 4)), [AxisResize(size=16, inner=8, out=4), AxisResize(size=4, inner=2, out=4)]
    )
    assert back.shape == (16, 4)
    assert back[6:10] == pytest.approx(1)
    assert (back[[0, 1, 14, 15]] == 0).all()


def test_the_overlay_is_the_image_pixel_for_pixel_where_nothing_is_salient() -> None:
    picture = np.linspace(0, 1, 200 * 150).reshape(200, 150)
    values = np.zeros((200, 150))
    values[50:60, 70:80] = 3.0
    drawn = np.asarray(
        Pillow.open(io.BytesIO(overlay_png(picture, values, title="nodule", unit="relative")))
    )
    assert drawn.shape[0] == 200
    assert drawn.shape[1] > 150 + 14
    gray = np.repeat(np.rint(255 * picture).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    changed = (drawn[:, :150] != gray).any(axis=2)
    assert (changed == (values > 0)).all()
    bar = drawn[60:-10, 160]
    assert bar[0].astype(int).sum() > bar[-1].astype(int).sum() + 300  # bright above, black below
    flat = overlay_png(picture, np.zeros((200, 150)), title="nodule", unit="relative")
    assert (np.asarray(Pillow.open(io.BytesIO(flat)))[:, :150] == gray).all()


@pytest.mark.parametrize("method", [*METHODS])
def test_a_prediction_explains_the_image_with_the_highest_probability(
    predictor, tiny_work: Path, tmp_path: Path, method: str
) -> None:
    files = study_of(tiny_work)
    prediction = predictor.predict(files)
    saliency = prediction.saliency(method=method)
    singles = [predictor.predict(file).probabilities["square"] for file in files]
    assert saliency.probability == pytest.approx(prediction.probabilities["square"], abs=1e-6)
    assert saliency.index == int(np.argmax(singles))
    assert (saliency.finding, saliency.method) == ("square", method)
    assert saliency.values.shape == saliency.picture.shape == (40, 40)
    assert saliency.values.dtype == np.float32
    assert np.array_equal(saliency.picture, read_image(files[saliency.index]).pixels)
    saliency.save(tmp_path / "a.png")
    with Pillow.open(tmp_path / "a.png") as drawn:
        assert drawn.size[1] == 120
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["values"], saliency.values)


def test_bytes_can_be_explained_and_unknown_findings_cannot(predictor, tiny_work: Path) -> None:
    data = study_of(tiny_work)[0].read_bytes()
    assert predictor.predict(data).saliency("square").values.shape == (40, 40)
    with raises_code(ModelError, "unknown_finding", "square"):
        explain_study(predictor, [data], "circle")


def test_pictures_for_a_report_are_those_of_the_unit(predictor, tiny_work: Path) -> None:
    table = Manifest.load(tiny_work).table
    row, draw = table.iloc[3], pictures(predictor, tiny_work)
    want = predictor.predict(Path(row["source"]) / row["path"]).saliency("square").png()
    assert draw("positive", "image", row["image"]) == want
    assert draw("positive", "patient", row["patient"]).startswith(b"\x89PNG")
    assert draw("positive", "patient", "nobody") is None


def test_the_old_names_in_explain_work_and_say_where_to_go() -> None:
    with pytest.warns(DeprecationWarning, match=r"medres\.inference"):
        assert medres.explain.explain_study is explain_study
