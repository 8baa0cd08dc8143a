from __future__ import annotations

import base64
import html
import io
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import work_in_process
from PIL import Image

from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import ManifestError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.synthetic.cohort import make_cohort
from medres.inspection import thumbnails
from medres.inspection.dataset_facts import facts, label_cells
from medres.inspection.dataset_report import Figure, Section, _histograms, inspect
from medres.inspection.thumbnails import TILE, Thumbnail, sample_rows, sheet, thumbnail_of_row

HTML = "<b onclick=x>&"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    patch = pytest.MonkeyPatch()
    work_in_process(patch)
    make_cohort(folder / "in", patients=12, seed=5)
    ingest(folder / "in", folder / "in" / "labels.csv", folder / "work", seed=1)
    patch.undo()
    return folder / "work"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_process(monkeypatch)


def images_of(text: str) -> list[np.ndarray]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in encoded]


def test_the_page_shows_counts_sheets_quarantine_and_nothing_from_elsewhere(
    work: Path, tmp_path: Path
) -> None:
    page = inspect(work, tmp_path / "page.html")
    text = page.read_text()
    manifest = Manifest.load(work)
    assert page.stat().st_size < 5 << 20
    assert "default-src 'none'" in html.unescape(text)
    for word in ("<script", "http://", "https://", "url(", "@import"):
        assert word not in text.replace("http://www.w3.org/2000/svg", "")
    for name, counts in manifest.summary["splits"].items():
        assert f'<th scope="row">{name}</th><td class="right">{counts["patients"]}</td>' in text
    for reason in manifest.summary["reasons"]:
        assert reason in text
    assert "REGULAR" in text
    expected = sum(
        bool((rows & (manifest.table["split"] == split)).any())
        for _, rows in label_cells(manifest.table)
        for split in ("train", "tune", "test")
    )
    assert len(images_of(text)) == expected + 2  # and a localizer and a copy, from the quarantine
    assert inspect(work, tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert not (work / "inspect.html").exists()


def test_no_identifier_path_or_pseudonym_is_shown(work: Path, tmp_path: Path) -> None:
    text = inspect(work, tmp_path / "page.html").read_text()
    table = Manifest.load(work).table
    hidden = {
        *table["path"],
        *table["source"],
        *table["patient"],
        *table["image"],
        *table["study"],
        "PHANTOM-",
    }
    assert not [value for value in hidden if value in text]


def test_tags_and_columns_are_escaped(tmp_path: Path) -> None:
    lines = [f"path,{HTML},meta:{HTML}"]
    for number in range(8):
        uids = {name: derived_uid(name, number) for name in ("study", "series", "sop")}
        dataset = new_dataset(
            "CR", "1.2.840.10008.1.2.1", patient_id=f"P{number}", patient="", **uids
        )
        dataset.Manufacturer = f"{HTML}{number % 2}"
        set_pixels(
            dataset,
            np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16),
            bits=12,
        )
        save(dataset, tmp_path / "in" / f"{number}.dcm")
        lines.append(f"{number}.dcm,{number % 2},{HTML}{number % 3}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    ingest(tmp_path / "in", tmp_path / "labels.csv", tmp_path / "work")
    section = Section(HTML, HTML, [Figure(HTML, sheet([np.zeros((TILE, TILE), np.uint8)]))])
    text = inspect(tmp_path / "work", sections=[section]).read_text()
    assert HTML not in text
    assert text.count("&lt;b onclick=x&gt;&amp;") >= 10
    assert (tmp_path / "work" / "inspect.html").exists()


def test_sources_that_are_gone_are_counted(work: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(work)
    moved = manifest.table.assign(source=str(tmp_path / "gone"))
    target = tmp_path / "moved"
    target.mkdir()
    Manifest(
        moved, manifest.summary, manifest.quarantine.assign(source="/gone"), audit=manifest.audit
    ).save(target)
    text = inspect(target).read_text()
    assert re.search(r"<li>\d+ images of this page can no longer be read", text)
    assert images_of(text) == []
    with pytest.raises(ManifestError):
        inspect(tmp_path)


def test_label_distribution_by_subgroup_against_a_slow_count(work: Path) -> None:
    manifest = Manifest.load(work)
    table, content = manifest.table, facts(manifest)
    assert {levels["column"] for levels in content["subgroups"]} >= {
        "sex",
        "age",
        "view",
        "manufacturer",
        "site",
    }
    (sex,) = (one for one in content["subgroups"] if one["column"] == "sex")
    for row in sex["rows"]:
        part = table[table["sex"] == row["level"]]
        assert (row["images"], row["patients"]) == (len(part), part["patient"].nunique())
        assert row["shares"][0] == pytest.approx((part["label:nodule"] == 1).mean())
    (age,) = (one for one in content["subgroups"] if one["column"] == "age")
    for row in age["rows"]:
        bounds = {
            "0 to 17": (0, 17.99),
            "18 to 39": (18, 39.99),
            "40 to 64": (40, 64.99),
            "65 to 89": (65, 89.99),
        }
        low, high = bounds.get(row["level"], (90, 200))
        assert row["images"] == table["age"].between(low, high).sum()
    assert content["quarantine"][0]["row"] >= 2
    for one in content["quarantine"]:
        assert manifest.quarantine["reason"].iloc[one["row"] - 2] == one["reason"]


def test_a_thumbnail_is_the_image_itself(work: Path) -> None:
    row = Manifest.load(work).table.query("kind == 'ct'").iloc[0]
    item = (row["source"], row["path"], row["frame"], row["form"], row["kind"], row["file_sha256"])
    thumbnail = thumbnail_of_row(item)
    image = thumbnails.read_row(*item[:3], file_format=item[3], kind=item[4], sha256=item[5])
    inside = image.pixels if image.padding is None else image.pixels[~image.padding]
    edges = np.linspace(-1024, 1536, 65)
    slow = [((inside >= a) & (inside < b)).sum() for a, b in itertools.pairwise(edges)]
    slow[-1] += (inside >= 1536).sum()
    slow[0] += (inside < -1024).sum()
    assert thumbnail.counts.tolist() == slow
    assert thumbnail.tile.shape == (TILE, TILE)
    small = np.array([[0, 255], [255, 0]], np.uint8)
    assert (thumbnails._tile(small) == np.kron(small, np.ones((TILE // 2, TILE // 2)))).all()
    wide = thumbnails._tile(np.full((10, 40), 9, np.uint8))
    assert (wide[: TILE // 4] == 0).all()
    assert (wide[TILE // 2] == 9).all()


def test_histograms_give_every_image_the_same_weight() -> None:
    table = pd.DataFrame({"kind": ["radiograph"] * 3})
    counts = [np.eye(1, 64, 3)[0], np.eye(1, 64, 5)[0] * 100]
    thumbnails_of_rows = {
        n: Thumbnail(np.zeros((TILE, TILE), np.uint8), c) for n, c in enumerate(counts)
    }
    (one,) = _histograms(table, {("radiograph", "M"): pd.Index([0, 1, 2])}, thumbnails_of_rows)
    assert one["lines"][0]["images"] == 2
    assert one["lines"][0]["shares"] == (np.eye(1, 64, 3)[0] / 2 + np.eye(1, 64, 5)[0] / 2).tolist()


def test_a_sample_takes_different_patients_and_middle_slices() -> None:
    table = pd.DataFrame(
        {
            "patient": ["a"] * 9 + ["b"] * 9 + ["c"],
            "series": ["a1"] * 9 + ["b1"] * 9 + ["c1"],
            "order": [*range(9), *range(9), 0],
        }
    )
    assert sorted(sample_rows(table, 3).index) == [4, 13, 18]
    assert len(sample_rows(table, 50)) == 19
    assert sample_rows(table, 5).index.tolist() == sample_rows(table, 5).index.tolist()


def test_sections_of_other_rooms_are_drawn(work: Path, tmp_path: Path) -> None:
    figure = Figure("turned by 5 degrees", sheet([np.full((TILE, TILE), 200, np.uint8)] * 5))
    text = inspect(
        work,
        tmp_path / "p.html",
        sections=[Section("Augmentation", "What training sees", [figure])],
    ).read_text()
    assert "<h2>Augmentation</h2>" in text
    assert images_of(text)[-1].shape == (2 * (TILE + 3) - 3, 4 * (TILE + 3) - 3)
