"""From color pictures on disk to batches: nothing changes a pixel on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code, work_in_process
from PIL import Image as Pillow

from data_pipelines import ingest
from data_pipelines.cache import ensure_cache
from data_pipelines.cache.tf_dataset import datasets
from data_pipelines.errors import Ineligible, InputError, ManifestError
from data_pipelines.preprocessing import prepared_study, spec_from
from data_pipelines.preprocessing.preparation import to_model_units
from data_pipelines.synthetic.golden_files import golden_studies
from medres.errors import TrainingError
from medres.training.checks import check_classes

CLASSES = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
N_EACH = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, color in CLASSES.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(N_EACH):
                noise = rng.normal(0, 30, (32, 32, 3))
                pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
                Pillow.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def work(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("color") / "work"
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        ingest(pictures, out=out, kind="rgb", class_folders=True)
        ensure_cache(out, "rgb-32")
    return out


def test_the_pixels_of_a_batch_are_those_of_the_file(work: Path, pictures: Path) -> None:
    cache = ensure_cache(work, "rgb-32")
    assert (cache.spec.dtype, cache.spec.shape) == (np.uint8, (32, 32, 3))
    _, tune, _ = datasets(work, "rgb-32", 4, 0)
    files = [p for name in sorted(CLASSES) for p in sorted((pictures / "val" / name).iterdir())]
    stored = np.stack([np.asarray(Pillow.open(path)) for path in files])
    batches = [(inputs["image"].numpy(), label.numpy()) for inputs, label, _ in tune]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert images.dtype == np.float32
    assert np.abs(images * 255 - stored).max() < 1e-4
    assert labels.tolist() == [0] * N_EACH + [1] * N_EACH + [2] * N_EACH


def test_prediction_prepares_the_same_integers(pictures: Path) -> None:
    path, spec = pictures / "test" / "red" / "0.png", spec_from("rgb-32")
    pixels = prepared_study([path.read_bytes()], spec).pixels
    assert (pixels == np.asarray(Pillow.open(path))[np.newaxis]).all()
    assert to_model_units(pixels, spec).shape == (1, 32, 32, 3)


def test_a_picture_that_is_not_square_keeps_its_proportions(tmp_path: Path) -> None:
    pixels = np.full((16, 32, 3), (255, 128, 0), np.uint8)
    pixels[:8] = (0, 128, 255)
    Pillow.fromarray(pixels).save(tmp_path / "wide.png")
    (prepared,) = prepared_study([(tmp_path / "wide.png").read_bytes()], spec_from("rgb-32")).pixels
    assert (prepared[8:24] == pixels).all()
    assert not prepared[:8].any()
    assert not prepared[24:].any()


def test_each_picture_is_a_unit_of_its_own_and_no_attestation_is_given(work: Path) -> None:
    import json

    summary = json.loads((work / "ingest.json").read_text())
    assert summary["kind"] == "rgb"
    assert summary["patients"] == summary["images"] == 9 * N_EACH
    assert summary["leak_attestation"]["attested"] is False
    assert any("each is a unit of its own" in text for text in summary["warnings"])
    assert not any("patient ID" in text for text in summary["warnings"])


def test_without_the_kind_a_colored_picture_stays_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_in_process(monkeypatch)
    with raises_code(ManifestError, "no_image_left", "colour"):
        ingest(pictures / "test", out=tmp_path / "work", units="display", class_folders=True)
    with raises_code(InputError, "kind_and_units"):
        ingest(pictures / "test", out=tmp_path / "both", units="display", kind="rgb")


@pytest.mark.parametrize("count", [2, 3])
def test_a_handful_of_pictures_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    work_in_process(monkeypatch)
    rng = np.random.default_rng(1)
    for name in ("a", "b", "c")[:count]:
        (tmp_path / "in" / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(tmp_path / "in" / name / "0.png")
    if count == 2:  # fewer than splits
        with raises_code(InputError, "too_few_patients"):
            ingest(tmp_path / "in", kind="rgb", class_folders=True)
        return
    manifest = ingest(tmp_path / "in", kind="rgb", class_folders=True)
    assert any("3 of 3 classes have no image" in text for text in manifest.summary["warnings"])
    with raises_code(TrainingError, "class_without_image"):
        check_classes(manifest, "rgb")


def test_a_model_of_pictures_refuses_dicom() -> None:
    spec = spec_from("ct-32")
    (study,) = golden_studies(spec.image_kind, 32, 32, series=False)[:1]
    assert len(prepared_study(study.files, spec).pixels) == 1
    with raises_code(Ineligible, "no_image"):
        prepared_study(study.files, spec_from("rgb-32"))
