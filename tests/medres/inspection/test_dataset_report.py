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

from data_pipelines.cache.plan import file_refs
from data_pipelines.cache.worker import FileRef
from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels
from data_pipelines.errors import ManifestError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.ingestion.pipeline import ingest
from data_pipelines.synthetic.cohort import make_cohort
from medres.inspection import thumbnails
from medres.inspection.dataset_facts import exclusions, facts, label_cells
from medres.inspection.dataset_report import Figure, Section, _histograms, inspect
from medres.inspection.thumbnails import (
    MAX_TILE_BYTES,
    TILE,
    Thumbnail,
    TileItem,
    fitted,
    jpeg_uri,
    sample_rows,
    thumbnail_of_row,
)

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
        min(12, int((rows & (manifest.table["split"] == split)).sum()))
        for _, rows in label_cells(manifest.table)
        for split in ("train", "tune", "test")
    )
    views = 5 * text.count("REGULAR, ")  # of each volume
    assert views == 5 * manifest.summary["verdicts"]["REGULAR"]
    alike = int((pd.read_csv(work / "audit.csv")["what"] == "near_duplicate").sum())
    # the others: a localizer and a copy, from quarantine
    assert len(images_of(text)) == expected + views + alike + 2
    assert text.count("<details") == text.count("<summary") == len(images_of(text))
    assert not re.search(r'<img(?![^>]*alt="[^"])', text)
    assert "Not recorded: this work folder was made by an earlier version" in text or (
        "exclusions_by_label" in manifest.summary
    )
    assert inspect(work, tmp_path / "again.html").read_bytes() == page.read_bytes()
    assert not (work / "inspect.html").exists()


def test_no_identifier_or_path_is_shown_and_each_image_has_its_pseudonym(
    work: Path, tmp_path: Path
) -> None:
    text = inspect(work, tmp_path / "page.html").read_text()
    table = Manifest.load(work).table
    hidden = {*table["path"], *table["source"], *table["patient"], *table["study"], "PHANTOM-"}
    assert not [value for value in hidden if value in text]
    names = re.findall(r'alt=" image (\w+)"', text)
    assert len(names) > 20
    assert set(names) <= set(table["image"])
    series = set(re.findall(r'alt="[^"]+ series (\w+)"', text))
    assert series == set(table.loc[table["verdict"] == "REGULAR", "series"])


def test_a_tile_shows_the_image_that_its_name_says(work: Path, tmp_path: Path) -> None:
    text = inspect(work, tmp_path / "page.html").read_text()
    table = Manifest.load(work).table.set_index("image")
    data, name = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt=" image (\w+)"', text)[0]
    displayed = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)
    row = table.loc[name]
    tile = thumbnail_of_row(TileItem(file_refs(row.to_frame().T)[0], None)).tile
    assert displayed.shape == tile.shape
    assert np.abs(displayed - tile).mean() < 4


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
    section = Section(HTML, HTML, [Figure(HTML, jpeg_uri(np.zeros((TILE, TILE), np.uint8)))])
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
    assert re.search(r"<li>\d+ images or series of this page can no longer be read", text)
    assert images_of(text) == []
    with pytest.raises(ManifestError):
        inspect(tmp_path)


def test_label_distribution_by_subgroup_against_a_slow_count(work: Path) -> None:
    manifest = Manifest.load(work)
    table, content = manifest.table, facts(manifest)
    assert {one.column for one in content.subgroups} >= {
        "sex",
        "age",
        "view",
        "manufacturer",
        "site",
    }
    (sex,) = (one for one in content.subgroups if one.column == "sex")
    for row in sex.levels:
        part = table[table["sex"] == row.name]
        assert (row.images, row.patients) == (len(part), part["patient"].nunique())
        has_nodule = [(own["label:nodule"] == 1).any() for _, own in part.groupby("patient")]
        assert row.shares[0] == pytest.approx(np.mean(has_nodule))
    (age,) = (one for one in content.subgroups if one.column == "age")
    for row in age.levels:
        bounds = {
            "0 to 17": (0, 17.99),
            "18 to 39": (18, 39.99),
            "40 to 64": (40, 64.99),
            "65 to 89": (65, 89.99),
        }
        low, high = bounds.get(row.name, (90, 200))
        assert row.images == table["age"].between(low, high).sum()
    assert content.quarantine[0].row >= 2
    for one in content.quarantine:
        assert manifest.quarantine["reason"].iloc[one.row - 2] == one.reason


def test_a_thumbnail_is_the_image_itself(work: Path) -> None:
    row = Manifest.load(work).table.query("kind == 'ct'").iloc[0]
    file = FileRef(
        *(row[name] for name in ("source", "path", "frame", "form", "kind", "file_sha256"))
    )
    thumbnail = thumbnail_of_row(TileItem(file, None))
    image = thumbnails.read_row(*file[:3], file_format=file[3], kind=file[4], sha256=file[5])
    inside = image.pixels if image.padding is None else image.pixels[~image.padding]
    edges = np.linspace(-1024, 1536, 65)
    slow = [((inside >= a) & (inside < b)).sum() for a, b in itertools.pairwise(edges)]
    slow[-1] += (inside >= 1536).sum()
    slow[0] += (inside < -1024).sum()
    assert thumbnail.counts.tolist() == slow
    assert thumbnail.tile.shape == (TILE, TILE)
    small = np.array([[0, 255], [255, 0]], np.uint8)
    assert (fitted(small) == np.kron(small, np.ones((TILE // 2, TILE // 2)))).all()
    wide = fitted(np.full((10, 40), 9, np.uint8))
    assert wide.shape == (TILE // 4, TILE)
    assert (wide == 9).all()
    assert fitted(np.zeros((10, 40), np.uint8), aspect=4.0).shape == (TILE, TILE)


def test_histograms_give_every_image_the_same_weight() -> None:
    table = pd.DataFrame({"kind": ["radiograph"] * 3})
    counts = [np.eye(1, 64, 3)[0], np.eye(1, 64, 5)[0] * 100]
    thumbnails_of_rows = {
        n: Thumbnail(np.zeros((TILE, TILE), np.uint8), c) for n, c in enumerate(counts)
    }
    (one,) = _histograms(table, {("radiograph", "M"): pd.Index([0, 1, 2])}, thumbnails_of_rows)
    assert one.lines[0].images == 2
    assert one.lines[0].shares == tuple(np.eye(1, 64, 3)[0] / 2 + np.eye(1, 64, 5)[0] / 2)


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
    figure = Figure("turned by 5 degrees", jpeg_uri(np.full((TILE, TILE), 200, np.uint8)))
    text = inspect(
        work,
        tmp_path / "p.html",
        sections=[Section("Augmentation", "What training sees", [figure])],
    ).read_text()
    assert "<h2>Augmentation</h2>" in text
    assert images_of(text)[-1].shape == (TILE, TILE)


def test_a_tile_of_noise_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (TILE, TILE)).astype(np.uint8)
    flat = jpeg_uri(np.full((TILE, TILE), 90, np.uint8))
    assert len(flat) * 3 / 4 < MAX_TILE_BYTES / 4
    assert len(jpeg_uri(noise)) * 3 / 4 < 4 * MAX_TILE_BYTES


def test_exclusions_by_label_are_shown_and_warned_about(work: Path, tmp_path: Path) -> None:
    assert exclusions({}) is None
    row = {"finding": "bleed", "value": "0", "split": "train", "patients": 80}
    row |= {"patients_excluded": 23, "images": 100, "images_excluded": 31, "codes": {"colour": 31}}
    test = {"finding": "bleed", "p_value": 0.0004, "p_adjusted": 0.0008, "share_positive": 0.05}
    test |= {"share_negative": 0.23, "associated": True, "of_a_later_version": 1}
    manifest = Manifest.load(work)

    def text_with(**record: object) -> str:
        kept = {k: v for k, v in manifest.summary.items() if not k.startswith("exclusion")}
        folder = tmp_path / str(len(record))
        folder.mkdir()
        Manifest(
            manifest.table, {**kept, **record}, manifest.quarantine, None, manifest.audit
        ).save(folder)
        return inspect(folder).read_text()

    assert "Not recorded" in text_with()
    text = text_with(exclusions_by_label=[row], exclusion_tests=[test])
    assert "Exclusion depends on the label bleed" in text
    assert "5% of the patients with it have an excluded image, 23% of those without it" in text
    assert re.search(r'<td class="right">23 <span class="sub">29%</span></td>', text)
    assert "colour 31" in text


def test_a_quarantined_color_image_is_shown_by_its_luminance(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    gray = np.asarray(Image.fromarray(rgb).convert("L"))
    tile = thumbnails.thumbnail_of_file((str(tmp_path), "a.png")).tile
    rows = np.linspace(0, len(tile) - 1, 20).round().astype(int)
    columns = np.linspace(0, tile.shape[1] - 1, 30).round().astype(int)
    assert np.abs(tile[np.ix_(rows, columns)].astype(int) - gray).max() <= 1
