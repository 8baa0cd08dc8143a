from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code, work_in_process

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import SpecError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from medres.inspection.dataset_report import inspect
from medres.inspection.display_windows import chosen_window, parse_window
from medres.inspection.series_section import gap_rows, series_of, volume_figures
from medres.inspection.volume_views import SeriesItem, VolumeViews, views_of_series

ROWS, COLUMNS = 16, 24
Values = dict[float, float]


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_process(monkeypatch)


def write_series(
    folder: Path, number: int, slices: Values, *, body_part: str = "", window: bool = False
) -> None:
    """A CT series: height in mm -> HU of a whole slice; the first column is air in all of them."""
    for n, (height, hu) in enumerate(slices.items()):
        dataset = new_dataset(
            "CT",
            "1.2.840.10008.1.2.1",
            patient_id=f"P{number}",
            patient="",
            study=derived_uid("study", number),
            series=derived_uid("series", number),
            sop=derived_uid("image", number, n),
        )
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.FrameOfReferenceUID = derived_uid("frame", number)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, height]
        dataset.PixelSpacing = [2.0, 1.0]
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        dataset.BodyPartExamined = body_part
        if window:
            dataset.WindowCenter, dataset.WindowWidth = 30, 80
        stored = np.full((ROWS, COLUMNS), round(hu + 1024), np.uint16)
        stored[:, 0] = number  # slices of one value would be refused
        set_pixels(dataset, stored, bits=16)
        save(dataset, folder / f"P{number}" / f"{n:03d}.dcm")


def table_of(folder: Path, **options: object) -> Manifest:
    return ingest(folder, None, folder.with_name("work"), no_split=True, **options)


def test_gaps_are_counted_in_slices_and_mm(tmp_path: Path) -> None:
    heights = [5.0 * n for n in range(40)]
    write_series(tmp_path / "in", 1, {h: h for h in heights if h not in (50, 55, 120)})
    write_series(tmp_path / "in", 2, {h: h for h in heights if not 60 <= h <= 100})
    write_series(tmp_path / "in", 3, {h: h for h in heights})
    table = table_of(tmp_path / "in").table
    (large, small), more = gap_rows(table, series_of(table))
    assert more == 0
    assert small.geometry is not None
    assert large.geometry is not None
    assert [(g.after, g.slices, g.mm) for g in small.geometry.gaps] == [(10, 2, 15), (22, 1, 10)]
    assert (small.slices, small.geometry.missing, small.geometry.step_mm) == (37, 3, 5)
    assert (small.share, small.geometry.refusal) == (pytest.approx(3 / 40), "")
    assert (large.share, large.geometry.refusal) == (pytest.approx(9 / 40), "gap_too_large")
    text = inspect(tmp_path / "work").read_text()
    assert "2 missing after slice 10 (15.0 mm); 1 missing after slice 22 (10.0 mm)" in text
    assert f'class="mono">{small.series}' in text
    assert "gap_too_large" in text


def test_the_share_that_ingest_recorded_stands(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1, {5.0 * n: n for n in range(10) if n != 4})
    table = table_of(tmp_path / "in").table.assign(interpolated_share=0.125)
    ((row,), _) = gap_rows(table, series_of(table))
    assert row.share == 0.125


def views_of(table: object, window: str) -> VolumeViews:
    from medres.inspection.series_section import _items

    (item,) = _items(table, series_of(table), parse_window(window))
    return views_of_series(SeriesItem(*item))


def test_reformats_have_the_order_and_the_proportions_of_the_body(tmp_path: Path) -> None:
    """Ten slices of 5 mm, brighter towards the head, stored in another order; one is missing."""
    values = {5.0 * n: 40.0 * n for n in (7, 2, 9, 0, 4, 8, 1, 5, 3)}
    write_series(tmp_path / "in", 1, values)
    views = views_of(table_of(tmp_path / "in").table, "180,360")
    names = [view.title for view in views.views]
    assert names == [
        *("Axial slice 3 of 9", "Axial slice 5 of 9", "Axial slice 7 of 9"),
        *("Coronal reformat", "Sagittal reformat"),
    ]
    coronal, sagittal = views.views[3].pixels, views.views[4].pixels
    margin = 6  # the bar of the marks
    height, width = coronal.shape[0], coronal.shape[1] - margin
    assert height / width == pytest.approx(10 * 5 / (COLUMNS * 1.0), rel=0.02)
    assert sagittal.shape[0] / (sagittal.shape[1] - margin) == pytest.approx(
        10 * 5 / (ROWS * 2.0), rel=0.02
    )
    column = coronal[:, -10, 0].astype(int)
    assert column[0] > 240  # the head is at the top
    assert column[-1] < 10
    assert (np.diff(column) <= 0).all()
    orange = (coronal[:, 0] == (240, 140, 0)).all(axis=1)
    assert np.flatnonzero(orange).tolist() == list(
        range(int(3 * height / 10), int(4 * height / 10))
    )
    assert "1 of 10 slices are interpolated" in views.note
    # slice 5 of 9 is the one of 160 HU
    assert abs(int(views.views[1].pixels[160, 200]) - round(255 * 160 / 360)) <= 1


def test_slices_of_another_patient_break_the_outline(tmp_path: Path) -> None:
    values = {5.0 * n: (300.0 if 3 <= n <= 5 else 0.0) for n in range(10)}
    write_series(tmp_path / "in", 1, values)
    views = views_of(table_of(tmp_path / "in").table, "150,300")
    column = views.views[3].pixels[:, -10].astype(int)
    rows = len(column) // 10
    assert (column[4 * rows + 1 : 7 * rows - 1] > 250).all()
    assert (column[: 4 * rows - 1] < 5).all()
    assert views.geometry.gaps == ()
    assert "no slice is interpolated" in views.note


def test_slices_without_a_step_are_drawn_in_their_order(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 1, {0.0: 0.0, 5.0: 100.0, 10.0: 200.0, 10.0001: 300.0})
    table = table_of(tmp_path / "in").table
    views = views_of(table, "150,300")
    assert views.geometry.step_mm is None
    assert "not to scale" in views.note
    figures, unread = volume_figures(table, series_of(table), None)
    assert (len(figures), unread) == (1, 0)


def test_the_window_is_that_of_the_user_else_body_part_else_file(tmp_path: Path) -> None:
    slices = {5.0 * n: 40.0 + n for n in range(4)}
    write_series(tmp_path / "in", 1, slices, body_part="HEAD", window=True)
    write_series(tmp_path / "in", 2, slices, window=True)
    write_series(tmp_path / "in", 3, slices)
    table_of(tmp_path / "in")
    text = inspect(tmp_path / "work").read_text()
    assert "window 40 / 80 HU (brain, by its body part)" in text
    assert "window 30 / 80 HU (as stored in its file)" in text
    assert "window -50 / 1500 HU (general: neither the body part nor the file says another)" in text
    text = inspect(tmp_path / "work", window="liver").read_text()
    assert "window 60 / 160 HU (liver)" in text
    assert "by its body part" not in text


@pytest.mark.parametrize(
    ("code", "center", "width"),
    [
        ("BRAIN", 40, 80),
        ("CHEST", -50, 1500),
        ("ABDOMEN", 60, 400),
        ("CSPINE", 400, 1800),
        ("HEART", 40, 400),
        ("HEADNECK", 50, 350),
        ("IAC", 600, 2800),
    ],
)
def test_windows_of_body_parts(code: str, center: float, width: float) -> None:
    window = chosen_window("ct", code)
    assert window is not None
    assert (window.center, window.width) == (center, width)


@pytest.mark.parametrize("text", ["brian", "40", "40,0", "40,-80", "nan,80", "40,80,1"])
def test_a_window_that_is_none_is_refused(text: str) -> None:
    with raises_code(SpecError, "bad_window", text):
        parse_window(text)
