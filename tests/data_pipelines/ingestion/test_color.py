"""Color radiographs through ingest, the cache's workers and the preparation of a study."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from canaries import radiograph
from helpers import medres, raises_code, work_in_process
from PIL import Image

from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.worker import WorkItem, prepare_files
from data_pipelines.dicom.writer import save
from data_pipelines.errors import Ineligible
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.preprocessing.samples import SampleSlices
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.preprocessing.study import prepared_study

SPEC = spec_from("xray-16")


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_process(monkeypatch)


def color_files(folder: Path) -> Path:
    """The same six images as PNG and as DICOM; two are red, one has a red mark, one is gray."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    for n in range(6):
        rgb = np.repeat(rng.integers(20, 200, (20, 18, 1), dtype=np.uint8), 3, axis=2)
        if n < 2:
            rgb[..., 0] = 255
        if n == 2:
            rgb[0, :7] = (255, 0, 0)  # 7 of 360 pixels: 1.9 %
        Image.fromarray(rgb).save(folder / f"{n}.png")
        dataset = radiograph(f"P{n}", n)
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        dataset.PhotometricInterpretation = "RGB"
        dataset.Rows, dataset.Columns = 20, 18
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = rgb.tobytes()
        dataset["PixelData"].VR = "OB"
        save(dataset, folder / f"{n}.dcm")
    return folder


def test_color_is_refused_by_default_and_taken_as_luminance_on_request(tmp_path: Path) -> None:
    source = color_files(tmp_path / "s")
    refused = ingest(source, units="display", workers=1, no_split=True)
    assert refused.summary["color"] == "refuse"
    assert refused.summary["reasons"]["colour"] == 4
    repairs = refused.summary["repairs"]
    assert repairs["few_colored_pixels"] == 1  # the PNG is a copy of the DICOM image
    work = tmp_path / "work"
    done = medres(
        *("ingest", source, "--units", "display", "--no-split", "--color", "luminance"),
        *("--out", work, "--json"),
    )
    assert done.exit_code == 0, done.output
    summary = json.loads((work / "ingest.json").read_text())
    assert summary["color"] == "luminance"
    assert "colour" not in summary["reasons"]
    assert summary["repairs"]["color_to_luminance"] == 2
    assert summary["reasons"]["duplicate_pixels"] == 6  # each PNG has the pixels of its DICOM image


def test_cache_and_prediction_see_the_same_integers(tmp_path: Path) -> None:
    source = color_files(tmp_path / "s")
    table = ingest(source, units="display", color="luminance", workers=1, no_split=True).table
    files = tuple(file_refs(table))
    item = WorkItem(files, tuple(SampleSlices((n,)) for n in range(len(files))), SPEC)
    for file, cached in zip(files, prepare_files(item), strict=True):
        path = Path(file.source) / file.path
        study = prepared_study([path], SPEC, color="luminance")
        assert (study.pixels[0] == cached).all()
    for name in ("0.dcm", "0.png"):
        with raises_code(Ineligible, "no_image"):
            prepared_study([source / name], SPEC)
