"""2.5D stacks and volumes: which slices, which values, from files to batches to a three-dimensional
network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import raises_code, work_in_process

from data_pipelines import datasets, ingest, read_volume
from data_pipelines.cache.record_labels import labels_per_sample
from data_pipelines.cache.store import ensure_cache
from data_pipelines.dicom.header import header_of
from data_pipelines.dicom.reader import parse
from data_pipelines.errors import CacheError, Ineligible, LabelError, SeriesError
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.pixels.image import read_image
from data_pipelines.preprocessing.preparation import prepare, to_model_units
from data_pipelines.preprocessing.samples import samples_of
from data_pipelines.preprocessing.spec import spec_from
from data_pipelines.preprocessing.study import prepared_study
from data_pipelines.sources.acceptance import accepted_images
from data_pipelines.volumes.plane import plane_of

SIDE, SLICES, STEP = 24, 5, 6.0
SERIES = 12


def write_slice(
    folder: Path, to_bytes, grey, series: int, index: int, pixels: np.ndarray, z: float, **elements
) -> Path:
    tags = {
        "PatientID": f"P{series}",
        "StudyInstanceUID": f"1.2.{series}",
        "SeriesInstanceUID": f"1.2.{series}.1",
        "SOPInstanceUID": f"1.2.{series}.1.{index + 1}",
        "PixelSpacing": [2.0, 2.0],
        "ImagePositionPatient": [0, 0, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        **elements,
    }
    path = (
        folder / f"s{series:02d}" / f"{(7 * index) % 11:02d}.dcm"
    )  # names do not follow positions
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(grey(pixels.astype(np.int16), **tags)))
    return path


@pytest.fixture(scope="module", autouse=True)
def _here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        work_in_process(patch)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, grey, to_bytes) -> Path:
    """An ingested cohort of twelve CT series of five slices. Every second one holds a bright block
    in two slices, which alone are labelled 1; the last series has a gap of one slice.
    """
    folder, rng = tmp_path_factory.mktemp("ct"), np.random.default_rng(4)
    lines = ["path,block"]
    for series in range(SERIES):
        for index in range(SLICES):
            pixels, positive = (
                1000 + rng.integers(0, 60, (SIDE, SIDE)),
                series % 2 == 1 and index in (1, 2),
            )
            if positive:
                pixels[6:16, 6:16] += 400
            z = STEP * (index + (series == SERIES - 1 and index > 2))
            path = write_slice(folder / "images", to_bytes, grey, series, index, pixels, z)
            lines.append(f"{path.relative_to(folder / 'images')},{int(positive)}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    ingest(folder / "images", folder / "labels.csv", folder / "work", seed=2)
    return folder / "work"


def rows(work: Path, number: int):
    """Manifest rows of one series, by position."""
    table = Manifest.load(work).table
    return table[table["path"].str.startswith(f"s{number:02d}")].sort_values("order")


def file_of(row) -> Path:
    return Path(row["source"]) / row["path"]


def batches_by_image(work: Path, preset) -> dict[str, tuple[np.ndarray, float]]:
    """Record (named by its image) -> model input and label, over tune and test and a whole epoch of
    train.
    """
    cache, samples = ensure_cache(work, preset), {}
    for dataset in datasets(work, preset, 1, 0):
        for inputs, label, weight in dataset:
            assert weight.numpy().item() == 1
            samples[cache.images["image"].iloc[int(inputs["key"][0, 1])]] = (
                inputs["image"][0].numpy(),
                label.numpy().item(),
            )
    return samples


def test_a_stack_is_a_slice_between_its_neighbours(work: Path) -> None:
    spec, samples = spec_from("ct25d-24"), batches_by_image(work, "ct25d-24")
    assert len(samples) == SERIES * SLICES
    for number in (1, SERIES - 1):
        series = rows(work, number)
        single = [prepare(read_image(file_of(row)), spec) for _, row in series.iterrows()]
        for at, (_, row) in enumerate(series.iterrows()):
            below, above = max(at - 1, 0), min(at + 1, SLICES - 1)
            if number == SERIES - 1:  # the gap lies between slices 2 and 3: each side ends there
                below, above = (3 if at == 3 else below), (2 if at == 2 else above)
            image, label = samples[row["image"]]
            assert image.shape == (24, 24, 3)
            assert (image == np.stack([single[n] for n in (below, at, above)], axis=-1)).all()
            assert label == row["label:block"]


def test_the_cache_says_where_every_slice_comes_from(work: Path) -> None:
    for preset, members in (("ct25d-24", 3), ("ctvol-16", SLICES)):
        cache = ensure_cache(work, preset)
        counts = cache.slices.groupby("record").size()
        assert (counts == members).all()
        assert len(counts) == len(cache.images)
        middle = cache.slices[cache.slices["slice"] == members // 2].set_index("record")["image"]
        assert (middle == cache.images["image"]).all()
        order = Manifest.load(work).table.set_index("image")["order"]
        for _, record in cache.slices.groupby("record"):
            assert (np.diff(order[record["image"]]) >= 0).all()


def test_a_volume_holds_the_series_at_one_scale(work: Path) -> None:
    """48 x 48 mm in plane and 5 steps of 6 mm: a cube of 16 voxels of 3 mm, 10 of them filled along
    the stack.
    """
    spec, samples = spec_from("ctvol-16"), batches_by_image(work, "ctvol-16")
    assert len(samples) == SERIES
    series = rows(work, 3)
    image, label = samples[series.iloc[SLICES // 2]["image"]]
    assert image.shape == (16, 16, 16, 1)
    assert label == 1  # in two of five slices
    assert (image[:3] == -1024).all()
    assert (image[13:] == -1024).all()
    plane = spec_from({"kind": "ct", "rows": 16, "cols": 16})
    exact = np.stack(
        [prepare(read_image(file_of(row)), plane).astype(float) for _, row in series.iterrows()]
    )
    # ten voxels over five slices: centres at 1/4 and 3/4 of each slice, so 1/4 of the nearer
    # neighbour is mixed in
    mixed = [
        0.75 * exact[n // 2] + 0.25 * exact[np.clip(n // 2 + (1 if n % 2 else -1), 0, 4)]
        for n in range(10)
    ]
    assert np.abs(image[3:13, ..., 0] - np.stack(mixed)).max() <= 1.0  # two roundings
    assert samples[rows(work, 4).iloc[2]["image"]][1] == 0
    assert ensure_cache(work, spec).left_out == {}


def test_a_spacing_in_mm_pads_or_crops_about_the_middle(work: Path) -> None:
    spec = spec_from(
        {
            "kind": "ct",
            "form": "volume",
            "slices": 3,
            "rows": 16,
            "cols": 32,
            "spacing_mm": (6, 2, 2),
        }
    )
    assert spec.name == "ctvol-3x16x32-at6x2x2mm"
    image, _ = batches_by_image(work, spec)[rows(work, 3).iloc[2]["image"]]
    volume = read_volume([file_of(row) for _, row in rows(work, 3).iterrows()])
    assert (image[:, :, 4:28, 0] == volume.pixels[1:4, 4:20]).all()
    assert (image[:, :, :4] == -1024).all()
    assert (image[:, :, 28:] == -1024).all()


def test_a_policy_decides_which_series_are_volumes(work: Path) -> None:
    """The last series lacks a slice."""
    spec = spec_from(
        {"kind": "ct", "form": "volume", "slices": 6, "rows": 24, "cols": 24, "policy": "reject"}
    )
    lines: list[str] = []
    cache = ensure_cache(work, spec, log=lines.append)
    assert (len(cache.images), cache.left_out) == (SERIES - 1, {"MISSING": 1})
    assert "1 series MISSING" in lines[0]
    bridged = spec_from(
        {"kind": "ct", "form": "volume", "slices": 6, "rows": 24, "cols": 24, "fit": "stretch"}
    )
    image, _ = batches_by_image(work, bridged)[rows(work, SERIES - 1).iloc[2]["image"]]
    files = [file_of(row) for _, row in rows(work, SERIES - 1).iterrows()]
    volume = read_volume(files, policy="resample")
    assert np.abs(image[..., 0] - volume.pixels).max() <= 0.5
    assert np.abs(volume.pixels[3] - (volume.pixels[2] + volume.pixels[4]) / 2).max() < 1e-3


@pytest.mark.parametrize("preset", ["ct-24", "ct25d-24", "ctvol-16"])
def test_prediction_prepares_what_training_saw(work: Path, preset: str) -> None:
    spec, samples = spec_from(preset), batches_by_image(work, preset)
    series = rows(work, 7)
    files = [file_of(row) for _, row in series.iterrows()]
    study = prepared_study(files[::-1], spec)
    sop = {
        read_image(file).header.identifiers.sop_instance_uid: row["image"]
        for file, (_, row) in zip(files, series.iterrows(), strict=True)
    }
    assert len(study.pixels) == len(study.slices) == (1 if spec.form == "volume" else SLICES)
    for pixels, slices in zip(study.pixels, study.slices, strict=True):
        uid, frame = slices[len(slices) // 2]
        assert frame == 0
        assert (to_model_units(pixels, spec) == samples[sop[uid]][0]).all()
    assert "1.2.7" not in repr(study)


def test_a_study_without_a_volume_is_refused_by_its_verdict(work: Path, tmp_path: Path) -> None:
    files = [file_of(row) for _, row in rows(work, 7).iterrows()]
    with raises_code(SeriesError, "not_a_volume", "NOT_A_VOLUME"):
        prepared_study(files[:2], spec_from("ctvol-16"))
    with raises_code(Ineligible, "no_image"):
        prepared_study(files, spec_from("xray-16"))
    copied = prepared_study([*files, files[2]], spec_from("ctvol-16"))  # the very same slice twice
    assert (copied.pixels == prepared_study(files, spec_from("ctvol-16")).pixels).all()


def test_a_cohort_without_a_volume_is_an_error(grey, to_bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for series in range(8):
        pixels = 1000 + rng.integers(0, 60, (SIDE, SIDE))
        write_slice(tmp_path / "images", to_bytes, grey, series, 0, pixels, 0.0)
    ingest(tmp_path / "images", None, tmp_path / "work")
    with raises_code(CacheError, "no_volume", "8 series SINGLE"):
        ensure_cache(tmp_path / "work", "ctvol-16")
    assert not list((tmp_path / "work" / "cache").iterdir())


def test_labels_of_a_volume_are_pooled(work: Path) -> None:
    cache, manifest = ensure_cache(work, "ctvol-16"), Manifest.load(work)
    members = cache.slices[cache.slices["record"] == 2]["image"].tolist()
    column = manifest.table.columns.get_loc("label:block")
    at = [manifest.table.index[manifest.table["image"] == image][0] for image in members]
    for values, want in (
        ([0, 0, 1, -1, np.nan], 1),
        ([0, 0, 0, -1, 0], -1),
        ([0, np.nan, 0, 0, 0], np.nan),
        ([0] * 5, 0),
    ):
        manifest.table.iloc[at, column] = values
        pooled = labels_per_sample(manifest, cache).table
        assert pooled["label:block"].iloc[2] == pytest.approx(want, nan_ok=True)
        assert pooled["image"].tolist() == cache.images["image"].tolist()
    named = manifest.table.assign(**{"class": "a"})
    named.iloc[at, -1] = ["a", "", "a", "a", "a"]
    assert (
        labels_per_sample(replace(manifest, table=named), cache).table["class"].tolist()
        == ["a"] * SERIES
    )
    named.iloc[at[0], -1] = "b"
    with raises_code(LabelError, "mixed_classes"):
        labels_per_sample(replace(manifest, table=named), cache)


def test_samples_of_images_are_the_images(work: Path) -> None:
    planes = [
        plane
        for _, row in rows(work, 0).iterrows()
        for _, _, plane in accepted_images(file_of(row))
    ]
    samples, left_out = samples_of(planes, spec_from("ct-24"))
    assert [sample.slice_indices for sample in samples] == [(n,) for n in range(SLICES)]
    assert left_out == {}
    lone = samples_of(
        planes[:1], spec_from({"kind": "ct", "form": "stack", "slices": 5, "rows": 16, "cols": 16})
    )[0]
    assert lone[0].slice_indices == (0,) * 5


@pytest.mark.long
def test_a_three_dimensional_network_learns_from_a_volume_preset(work: Path) -> None:
    import keras

    import medres

    keras.utils.set_random_seed(1)
    spec = spec_from("ctvol-16")
    net = medres.classifier(10, spec.shape, 1, windows=[(100.0, 400.0)], stem="small", width=4)
    net.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
    losses = []
    for epoch in range(4):
        train = datasets(work, spec, 4, 0, epoch=epoch)[0].map(
            lambda inputs, label, weight: (inputs["image"], label)
        )
        losses.append(net.fit(train, shuffle=False, verbose=0).history["loss"][0])
    assert losses[-1] < 0.8 * losses[0]


def test_series_beyond_the_limits_are_left_out_and_the_share_is_recorded(grey):
    def series(name: str, heights: list[float]) -> list:
        return [
            plane_of(
                header_of(
                    parse(
                        grey(
                            np.zeros((4, 4), np.int16),
                            SeriesInstanceUID=name,
                            PixelSpacing=[1, 1],
                            ImagePositionPatient=[0, 0, z],
                            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                        ),
                        pixels=False,
                    )
                ),
                0,
            )
            for z in heights
        ]

    planes = (
        series("1.1", [0, 5, 10, 20, 25])
        + series("1.2", [0, 5, 10, 15])
        + series("1.3", [0, 2, 4, 186, 188, 190])
        + series("1.4", [0, 2, 6, 8, 12, 14, 18, 20])
    )
    volume = {"kind": "ct", "form": "volume", "rows": 16, "cols": 16, "slices": 8}
    samples, left_out = samples_of(planes, spec_from(volume))
    assert [sample.interpolated for sample in samples] == [1 / 6, 0]
    assert left_out == {"GAP_TOO_LARGE": 1, "TOO_INTERPOLATED": 1}
    samples, left_out = samples_of(planes, spec_from({**volume, "max_interpolated": 0.5}))
    assert [sample.interpolated for sample in samples] == [1 / 6, 0, 3 / 11]
    assert left_out == {"GAP_TOO_LARGE": 1}


def test_a_cache_of_volumes_records_the_share_of_interpolated_slices(work):
    lines: list[str] = []
    cache = ensure_cache(work, spec_from("ctvol-17"), log=lines.append)
    assert cache.left_out == {}
    shares = cache.images["interpolated"]
    assert len(shares) == SERIES
    assert sorted(shares)[-2:] == [0, pytest.approx(1 / 6)]
    assert any("interpolated slices, up to 17%" in line for line in lines)


def test_a_study_of_constant_slices_alone_is_refused(grey, to_bytes):
    files = [
        to_bytes(
            grey(
                np.zeros((8, 8), np.int16),
                SOPInstanceUID=f"1.2.{n}",
                PixelSpacing=[1, 1],
                ImagePositionPatient=[0, 0, n],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                RescaleSlope=1,
                RescaleIntercept=-1024,
            )
        )
        for n in range(3)
    ]
    with raises_code(Ineligible, "no_image"):
        prepared_study(files, spec_from("ct-16"))
