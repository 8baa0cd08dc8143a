from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import rewrite
from helpers import fails, raises_code
from helpers import medres as medres_command
from PIL import Image

import medres
from data_pipelines.errors import Ineligible
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.test_access_log import read_openings
from data_pipelines.pixels.image import read_image
from data_pipelines.sources.acceptance import accepted_images
from data_pipelines.sources.dicom_wrapper import wrap
from medres.artefact.card import Card, ConformalQuantile
from medres.errors import ArtefactError, RefusedInput
from medres.inference.scoring import score_split


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> medres.Predictor:
    return medres.load(tiny_run / "model.keras")


def test_predict_gives_the_probability_of_the_training_pipeline(
    predictor, tiny_run: Path, tiny_work: Path
) -> None:
    scores, context = score_split(tiny_run / "model.keras", tiny_work, "test")
    table = Manifest.load(tiny_work).table.set_index("image").loc[scores["image"]]
    for (_, row), score in zip(table.iterrows(), scores["score"], strict=True):
        got = predictor.predict(Path(row["source"]) / row["path"])
        assert got.refused is None
        assert got.probabilities["square"] == pytest.approx(score, abs=1e-6)
    assert context["provenance"]["test_openings"]["times"] == len(read_openings(tiny_work)) >= 1
    assert [(p["finding"], p["unit"]) for p in context["frozen"]] == [
        ("positive", "patient"),
        ("positive", "study"),
    ]


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
    assert predictor.predict(memoryview(bytearray(path.read_bytes()))).probabilities == want
    assert predictor.predict(pydicom.dcmread(path)).probabilities == want


def test_predict_many_yields_one_prediction_a_study(predictor, tiny_work: Path) -> None:
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    predictions = list(predictor.predict_many([source]))
    assert len(predictions) == 30
    assert all(p.refused is None and p.n_images == 2 == len(p.images) for p in predictions)


def test_a_value_that_is_no_source_is_a_type_error_with_its_fix(predictor, tiny_work: Path) -> None:
    for value, received in (
        (io.BytesIO(b"CANARY"), "BytesIO"),
        (None, "NoneType"),
        (3, "int"),
        ([None], "NoneType"),
    ):
        with pytest.raises(TypeError) as caught:
            predictor.predict(value)
        assert received in str(caught.value)
        assert "CANARY" not in str(caught.value)


def test_paths_of_many_studies_are_paths(predictor, tiny_work: Path) -> None:
    """A text is one path, not its letters; the bytes of a file never become a path in a result."""
    file = Path(Manifest.load(tiny_work).table["source"].iloc[0]) / "TINY000-0.dcm"
    (one,) = predictor.predict_many(str(file))
    assert (one.path, one.code) == (str(file), None)
    assert list(predictor.predict_many([])) == []
    assert len(list(predictor.predict_many(path for path in [file, file]))) == 2
    dataset = pydicom.dcmread(file)
    for wrong in (file.read_bytes(), [file.read_bytes()], dataset, [dataset], [None], None, 1):
        with pytest.raises(TypeError) as caught:
            list(predictor.predict_many(wrong))
        assert "TINY000" not in str(caught.value)


def test_what_is_no_file_is_refused_by_its_reason(predictor, tiny_work, tmp_path: Path) -> None:
    """A study without the slice that a link names is not the study."""
    source = Path(Manifest.load(tiny_work).table["source"].iloc[0])
    folder = tmp_path / "in"
    folder.mkdir()
    assert predictor.predict(folder).code == "no_file"
    assert predictor.predict([]).code == "no_file"
    (folder / "link.dcm").symlink_to(source / "TINY000-0.dcm")
    assert [p.code for p in predictor.predict_many(folder)] == ["symbolic_link"]
    (folder / "a.dcm").write_bytes((source / "TINY000-1.dcm").read_bytes())
    os.mkfifo(folder / "pipe")
    assert predictor.predict(folder).code == "symbolic_link"
    codes = {Path(p.path).name: p.code for p in predictor.predict_many(folder)}
    assert codes == {"in": None, "link.dcm": "symbolic_link", "pipe": "special_file"}
    assert predictor.predict(folder / "link.dcm").refused is None


def test_buffers_of_images_are_studies_of_their_own(predictor, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "png")
    one, other = bytearray(picture.getvalue()), memoryview(picture.getvalue() + b"\0")
    assert predictor.predict([one, other]).code == "several_studies"


def test_two_studies_at_once_are_refused(predictor, tiny_work: Path) -> None:
    table = Manifest.load(tiny_work).table.drop_duplicates("study")
    files = [Path(r.source) / r.path for r in table.head(2).itertuples()]
    assert predictor.predict(files).code == "several_studies"


def test_what_the_model_cannot_read_is_refused_with_a_reason(
    predictor, tiny_work: Path, tmp_path: Path
) -> None:
    row = Manifest.load(tiny_work).table.iloc[0]
    data = (Path(row["source"]) / row["path"]).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[:-500])
    (tmp_path / "note.dcm").write_text("no DICOM")
    dataset = pydicom.dcmread(Path(row["source"]) / row["path"])
    dataset.Modality, dataset.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    for source in (tmp_path / "cut.dcm", tmp_path / "note.dcm", dataset, tmp_path / "absent.dcm"):
        prediction = predictor.predict(source)
        assert prediction.refused
        assert prediction.code
        assert prediction.probabilities == prediction.decisions == {}
        assert "TINY" not in prediction.refused


def test_a_split_of_other_labels_is_refused(
    tiny_run: Path, tiny_work: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    table = Manifest.load(work).table.rename(columns={"label:square": "label:circle"})
    rewrite(work, table, findings=["circle"])
    with raises_code(ArtefactError, "other_labels", "square", "circle"):
        score_split(tiny_run / "model.keras", work)


def test_scores_keep_ids_labels_and_subgroups(tiny_run: Path, tiny_work: Path) -> None:
    scores, context = score_split(tiny_run / "model.keras", tiny_work, "tune")
    assert "test_openings" not in context["provenance"]
    assert {"image", "series", "study", "patient", "label", "score", "status", "site"} <= {
        *scores.columns
    }
    assert scores["image"].is_unique
    assert np.isfinite(scores["score"]).all()
    assert context["unit"] == "patient"


def test_an_image_has_the_same_digits_alone_and_beside_others(predictor) -> None:
    images = np.random.default_rng(0).random((37, 32, 32, 1)).astype(np.float32)
    together, distances = predictor.scored(images)
    alone = [predictor.scored(images[i : i + 1]) for i in range(len(images))]
    assert np.array_equal(together, np.concatenate([p for p, _ in alone]))
    assert distances == pytest.approx(np.concatenate([d for _, d in alone]), rel=1e-9)
    assert together == pytest.approx(np.asarray(predictor.artefact.model(images)), abs=1e-5)


def dataset_of(work: Path) -> pydicom.Dataset:
    row = Manifest.load(work).table.iloc[0]
    return pydicom.dcmread(Path(row["source"]) / row["path"])


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"Modality": "MG"}, "other_modality"),
        (
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "BurnedInAnnotation": "NO"},
            "other_sop_class",
        ),
        ({"Rows": 20, "Columns": 20, "PixelData": b"\0\1" * 400}, "other_size"),
        ({"BodyPartExamined": "HAND"}, "other_body_part"),
        (
            {
                "PhotometricInterpretation": "RGB",
                "SamplesPerPixel": 3,
                "PixelData": bytes(n % 251 for n in range(9600)),
            },
            "no_image",
        ),
        ({"PhotometricInterpretation": None}, "no_image"),
        ({"PresentationLUTShape": "INVERSE"}, "polarity"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "no_image"),
        ({"PixelData": b"\0" * 3200}, "no_image"),
    ],
)
def test_what_the_model_was_not_trained_on_is_refused_by_name(
    predictor, tiny_work, elements, code
) -> None:
    dataset = dataset_of(tiny_work)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    prediction = predictor.predict(dataset)
    assert prediction.code == code, prediction.refused
    if code == "no_image":  # the refusal quotes why the file was not accepted
        with pytest.raises(Ineligible) as caught:
            accepted_images(dataset, units="display")
        assert str(caught.value) in prediction.refused
    assert prediction.probabilities == prediction.decisions == prediction.sets == {}
    with raises_code(RefusedInput, "nothing_to_explain"):
        prediction.saliency()


def test_an_image_of_something_else_is_refused_by_its_features(predictor, tiny_work) -> None:
    dataset = dataset_of(tiny_work)
    stripes = np.zeros((40, 40), "<u2")
    stripes[::2] = 4095
    dataset.PixelData = stripes.tobytes()
    prediction = predictor.predict(dataset)
    assert prediction.code == "out_of_distribution"
    assert "1 of 1 images" in prediction.refused
    assert prediction.novelty > predictor.card.novelty_threshold
    usual = predictor.predict(dataset_of(tiny_work))
    assert usual.novelty <= predictor.card.novelty_threshold


def test_a_model_that_gives_no_number_refuses(predictor, tiny_work: Path) -> None:
    images = np.zeros((2, *predictor.card.preprocess.prepared_shape), np.uint16)
    broken = medres.Predictor(
        predictor.artefact, scorer=lambda x: (np.array([[0.5], [np.nan]]), np.zeros(2))
    )
    assert broken.decide(images).code == "not_finite"


def test_color_is_treated_as_it_was_at_ingest(predictor, tiny_work: Path) -> None:
    from medres.inference.study_reader import read_study

    dataset = dataset_of(tiny_work)
    gray = (read_image(dataset).pixels * 255).astype(np.uint8)
    rgb = np.stack([gray, gray // 2, gray // 3], axis=-1)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.PixelData = rgb.tobytes() + b"\0" * (rgb.size % 2)
    assert predictor.card.color == "refuse"
    with raises_code(Ineligible, "no_image"):
        read_study([dataset], predictor.card)
    domain = predictor.card.domain.model_copy(update={"color": "luminance"})
    card = predictor.card.model_copy(update={"domain": domain})
    assert read_study([dataset], card).pixels.shape[0] == 1


def test_two_ct_series_at_once_are_refused(predictor, tiny_work: Path) -> None:
    from data_pipelines.preprocessing.spec import spec_from
    from medres.inference.study_reader import read_study

    slices = [dataset_of(tiny_work) for _ in range(2)]
    for number, dataset in enumerate(slices):
        dataset.Modality, dataset.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.SeriesInstanceUID = f"1.2.{number}"
    card = predictor.card.model_copy(update={"preprocess": spec_from("ct-32"), "domain": None})
    assert read_study(slices[:1], card).pixels.shape == (1, 32, 32)
    with raises_code(RefusedInput, "several_series"):
        read_study(slices, card)


@pytest.mark.parametrize("requests", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_many_threads_each_get_their_own_answer(predictor, tiny_work: Path, requests: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    table = Manifest.load(tiny_work).table.head(8)
    files = [(Path(r.source) / r.path).read_bytes() for r in table.itertuples()]
    want = [predictor.predict(file) for file in files]
    assert len({p.probabilities["square"] for p in want}) == len(files)
    order = np.random.default_rng(0).integers(0, len(files), requests)
    with ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(lambda i: predictor.predict(files[i]), order))
    assert all(predictions[n] == want[i] for n, i in enumerate(order))


def test_a_conformal_set_of_two_labels_is_an_abstention(predictor, tiny_work: Path) -> None:
    quantiles = [
        ConformalQuantile(finding="square", label=label, alpha=0.1, quantile=q, n_patients=9)
        for label, q in ((0, 1.0), (1, 1.0))
    ]
    card = predictor.card.model_copy(update={"conformal": quantiles})
    other = medres.Predictor(replace(predictor.artefact, card=card))
    prediction = other.predict(dataset_of(tiny_work))
    assert prediction.sets == {"square": [0, 1]}
    assert prediction.abstained == ["square"]
    assert prediction.as_dict()["abstained"] == ["square"]
    assert prediction.as_dict()["conformal"] == {
        "alpha": 0.1,
        "sets": {"square": [0, 1]},
        "uncertain": ["square"],
        "atypical": [],
    }
    assert prediction.decisions == predictor.predict(dataset_of(tiny_work)).decisions
    assert prediction.as_dict()["code"] is None


def test_the_header_is_checked_before_anything_is_decoded(
    predictor, tiny_work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipelines.sources import acceptance

    def decoded(*arguments: object, **options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(acceptance, "image_of", decoded)
    monkeypatch.setattr(acceptance, "raster_image", decoded)
    dataset = dataset_of(tiny_work)
    dataset.Rows = dataset.Columns = 11_000
    assert read_refusal(dataset, predictor.card) == "other_size"
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, "png")
    assert read_refusal(picture.getvalue(), predictor.card) == "other_format"


def read_refusal(source: object, card: Card) -> str | None:
    from medres.inference.study_reader import read_study

    with pytest.raises(RefusedInput) as caught:
        read_study([source], card)
    return caught.value.code


def test_a_raster_image_is_a_study_of_its_own_and_equals_its_wrapped_twin(
    predictor, tmp_path: Path
) -> None:
    domain = predictor.card.domain
    assert {*domain.formats} == {"dicom"}
    card = predictor.card.model_copy(
        update={"domain": domain.model_copy(update={"formats": {"dicom": 1, "png": 1}})}
    )
    predictor = medres.Predictor(replace(predictor.artefact, card=card))
    (tmp_path / "in").mkdir()
    for n in range(2):
        pixels = np.random.default_rng(n).integers(30, 95, (40, 40)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{n}.png")
    wrap(tmp_path / "in", tmp_path / "dicom")
    pictures, twins = (list(predictor.predict_many([tmp_path / name])) for name in ("in", "dicom"))
    assert [p.refused for p in pictures] == [None, None]
    for picture, twin in zip(pictures, twins, strict=True):
        assert picture.probabilities == pytest.approx(twin.probabilities)
    data = (tmp_path / "in" / "1.png").read_bytes()
    assert predictor.predict(data).probabilities == pictures[1].probabilities
    assert predictor.predict(tmp_path / "in").code == "several_studies"


def test_on_a_gpu_a_batch_is_run_as_one(predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    images = np.random.default_rng(0).random((5, 32, 32, 1)).astype(np.float32)
    alone, distances = predictor.scored(images)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    together, others = medres.Predictor(predictor.artefact).scored(images)
    assert together == pytest.approx(alone, abs=1e-5)
    assert others == pytest.approx(distances, rel=1e-3)


def test_wrong_options_open_nothing(tiny_work: Path, tiny_run: Path, tmp_path: Path) -> None:
    """A subgroup that does not exist is refused before the test split is scored and logged."""
    before = read_openings(tiny_work)
    wrong = [("--subgroup", "ward"), ("--threshold", "other:a=0.5"), ("--prevalence", "x=0.1")]
    for option in wrong:
        done = medres_command(
            "evaluate", tiny_run / "model.keras", tiny_work, "--out", tmp_path / "R", *option
        )
        fails(done)
    assert read_openings(tiny_work) == before
    assert not (tmp_path / "R").exists()
