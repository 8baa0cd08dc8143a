"""Grouping, order, step, tilt, verdict and affine of made-up slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.volumes.plane import Plane
from data_pipelines.volumes.series import Group, classify_spacing, group_planes, series_verdict

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def plane(source_index: int, origin: tuple[float, float, float], **changes) -> Plane:
    base = Plane(
        source_index=source_index,
        frame=0,
        series="S",
        frame_of_reference="F",
        modality="CT",
        rows=512,
        columns=512,
        spacing=(0.7, 0.6),
        orientation=AXIAL,
        position=origin,
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        kernel="B30f",
        stack="",
        dimensions=(),
        temporal=None,
        acquisition=1,
        non_slice_reason="",
    )
    return replace(base, **changes)


def axial(heights: list[float], **changes) -> list[Plane]:
    return [
        plane(source_index, (-100.0, -120.0, z), **changes)
        for source_index, z in enumerate(heights)
    ]


def only(groups: list[Group]) -> Group:
    assert len(groups) == 1
    return groups[0]


def members(group: Group) -> list[int]:
    return [p.source_index for p in group.planes]


@pytest.mark.parametrize(
    ("heights", "label", "order"),
    [
        ([5.0], "SINGLE", [0]),
        ([0.0, 2.5, 5.0, 7.5], "REGULAR", [0, 1, 2, 3]),
        ([7.5, 5.0, 2.5, 0.0], "REGULAR", [3, 2, 1, 0]),
        ([5.0, 0.0, 7.5, 2.5], "REGULAR", [1, 3, 0, 2]),
        ([0.0, 0.6, 1.3, 1.9, 2.5, 3.1, 3.8], "IRREGULAR", [0, 1, 2, 3, 4, 5, 6]),
        ([0.0, 1.0, 2.0, 3.01, 4.0], "REGULAR", [0, 1, 2, 3, 4]),
        ([0.0, 5.0, 15.0, 20.0], "MISSING(1)", [0, 1, 2, 3]),
        ([0.0, 5.0, 10.0, 25.0, 30.0, 40.0], "MISSING(3)", [0, 1, 2, 3, 4, 5]),
        ([0.0, 5.0, 10.0, 17.0, 22.0], "IRREGULAR", [0, 1, 2, 3, 4]),
        ([0.0, 5.0, 5.0, 10.0], "DUPLICATE", [0, 1, 2, 3]),
        ([0.0, 5.0], "NOT_A_VOLUME", [0, 1]),
    ],
)
def test_verdicts_of_axial_stacks(heights, label, order):
    group = only(group_planes(axial(heights)))
    assert group.label == label
    assert members(group) == order
    assert (group.affine is not None) == (label == "REGULAR")


def test_one_place_seen_several_times_is_no_volume_and_true_copies_are_duplicates():
    watched = [plane(n, (0, 0, 61.5), acquisition=n) for n in range(4)]
    assert only(group_planes(watched)).verdict == "NOT_A_VOLUME"
    assert only(group_planes(axial([61.5, 61.5]))).verdict == "DUPLICATE"


def test_the_affine_of_an_axial_stack_by_hand():
    group = only(group_planes(axial([30.0, 25.0, 35.0])))
    assert group.affine is not None
    expected = [[0, 0, 0.6, -100], [0, 0.7, 0, -120], [5, 0, 0, 25], [0, 0, 0, 1]]
    np.testing.assert_allclose(group.affine, expected, atol=1e-12)
    assert group.step_mm == 5


def test_a_sagittal_stack_ascends_along_row_x_column():
    """Row (0,1,0) x column (0,0,-1) = (-1,0,0): slices ascend towards the patient's right."""
    group = only(group_planes([plane(n, (10.0 * n, 0, 0), orientation=SAGITTAL) for n in range(3)]))
    assert members(group) == [2, 1, 0]
    assert group.affine is not None
    np.testing.assert_allclose(group.affine[:3, 0], [-10, 0, 0], atol=1e-12)
    np.testing.assert_allclose(group.affine @ [0, 0, 0, 1], [20, 0, 0, 1], atol=1e-12)


def rotation(a: float, b: float, c: float) -> np.ndarray:
    cos, sin = np.cos([a, b, c]), np.sin([a, b, c])
    about_x = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_y = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


angles = st.floats(-3, 3)


@given(
    angle=st.tuples(angles, angles, angles),
    step=st.floats(0.5, 10),
    tilt=st.one_of(st.just(0.0), st.floats(0.2, 25), st.floats(-25, -0.2)),
    count=st.integers(3, 30),
    seed=st.integers(0, 10_000),
)
def test_any_stack_in_any_direction_has_its_exact_affine_tilt_and_order(
    angle, step, tilt, count, seed
):
    """Positions are made from a known affine; shuffled, they must give that affine back."""
    rng = np.random.default_rng(seed)
    axes = rotation(*angle)
    origin = rng.uniform(-300, 300, 3)
    drift = step * np.tan(np.radians(tilt))
    vector = axes[:, 2] * step + axes[:, 1] * drift
    planes = [
        plane(
            n,
            tuple(origin + n * vector),
            orientation=tuple(np.concatenate([axes[:, 0], axes[:, 1]])),
        )
        for n in range(count)
    ]
    group = only(group_planes([planes[i] for i in rng.permutation(count)]))
    assert members(group) == list(range(count))
    assert group.verdict == ("TILTED" if tilt else "REGULAR")
    assert group.tilt_degrees == pytest.approx(abs(tilt), abs=1e-6)
    assert group.step_mm == pytest.approx(step)
    assert group.affine is not None
    np.testing.assert_allclose(group.affine[:3, 0], vector, atol=1e-9)
    np.testing.assert_allclose(group.affine[:3, 1], axes[:, 1] * 0.7, atol=1e-9)
    np.testing.assert_allclose(group.affine[:3, 2], axes[:, 0] * 0.6, atol=1e-9)
    np.testing.assert_allclose(group.affine[:3, 3], origin, atol=1e-9)


def test_a_tilted_stack_with_a_gap_is_missing():
    tilted = [
        plane(n, (0, 0, 5.0 * z), orientation=(1, 0, 0, 0, 0.9703, -0.2419))
        for n, z in enumerate([0, 1, 2, 4])
    ]
    group = only(group_planes(tilted))
    assert group.label == "MISSING(1)"
    assert group.tilt_degrees == pytest.approx(14.0, abs=0.01)


def test_drift_within_the_plane_that_is_not_steady_is_irregular():
    wandering = [plane(n, (3.0 * (n == 2), 0, 5.0 * n)) for n in range(5)]
    assert only(group_planes(wandering)).verdict == "IRREGULAR"


@pytest.mark.parametrize(
    "change",
    [
        {"series": "T"},
        {"frame_of_reference": "G"},
        {"rows": 256},
        {"columns": 256},
        {"kernel": "B70f"},
        {"image_type": ("DERIVED", "SECONDARY", "AXIAL")},
        {"spacing": (0.7, 0.65)},
        {"orientation": SAGITTAL},
        {"stack": "2"},
    ],
)
def test_slices_that_differ_in_what_must_agree_are_apart(change):
    groups = group_planes(
        axial([0.0, 5.0, 10.0])
        + [replace(p, source_index=p.source_index + 3, **change) for p in axial([15.0, 20.0, 25.0])]
    )
    assert sorted(map(members, groups))[0] == [0, 1, 2]
    assert len(groups) == 2


def test_small_differences_do_not_part_slices():
    wobble = [
        replace(p, orientation=(1, 0, 1e-5 * n, 0, 1, 0), spacing=(0.7 + 1e-6 * n, 0.6))
        for n, p in enumerate(axial([0, 5, 10]))
    ]
    assert only(group_planes(wobble)).verdict == "REGULAR"


@pytest.mark.parametrize(
    "tell_apart",
    [{"temporal": 2}, {"acquisition": 2}, {"dimensions": (1, 2)}],
    ids=lambda change: next(iter(change)),
)
def test_passes_over_the_same_places_are_told_apart(tell_apart):
    first = axial([0.0, 5.0, 10.0], dimensions=(1, 1), temporal=1)
    second = [replace(p, source_index=p.source_index + 3, **tell_apart) for p in first]
    groups = group_planes([x for pair in zip(first, second, strict=True) for x in pair])
    assert sorted(map(members, groups)) == [[0, 1, 2], [3, 4, 5]]
    assert {group.verdict for group in groups} == {"REGULAR"}


def test_acquisitions_that_do_not_overlap_stay_one_series():
    """Sequential scanners give each slice, or each half of the stack, an acquisition number of its
    own.
    """
    stepped = [replace(p, acquisition=n) for n, p in enumerate(axial([0.0, 5.0, 10.0, 15.0]))]
    assert only(group_planes(stepped)).verdict == "REGULAR"
    halves = [
        replace(p, acquisition=1 + n // 2) for n, p in enumerate(axial([18.1, 23.1, 28.1, 38.1]))
    ]
    assert only(group_planes(halves)).label == "MISSING(1)"


def test_what_is_no_slice_stands_alone():
    localizer = plane(3, (0, 0, 5.0), non_slice_reason="localizer")
    summary = plane(4, (0, 0, 5.0), non_slice_reason="colour", position=None)
    groups = group_planes([*axial([0.0, 5.0, 10.0]), localizer, summary])
    assert [(members(g), g.verdict) for g in groups] == [
        ([0, 1, 2], "REGULAR"),
        ([3], "LOCALIZER"),
        ([4], "NOT_A_VOLUME"),
    ]
    assert series_verdict(groups) == "NOT_A_VOLUME"
    assert series_verdict(groups[:2]) == "REGULAR"
    assert series_verdict(groups[1:2]) == "LOCALIZER"


def test_radiographs_are_single_and_slices_without_a_place_are_no_volume():
    radiographs = [
        plane(n, (0, 0, 0), modality="DX", position=None, orientation=None) for n in range(2)
    ]
    assert [g.verdict for g in group_planes(radiographs)] == ["SINGLE", "SINGLE"]
    lost = [replace(p, position=None) for p in axial([0.0, 1.0])]
    assert [g.verdict for g in group_planes(lost)] == ["NOT_A_VOLUME", "NOT_A_VOLUME"]


def test_a_series_of_several_directions_is_mixed():
    sagittal = [plane(3 + n, (10.0 * n, 0, 0), orientation=SAGITTAL) for n in range(3)]
    groups = group_planes([*axial([0.0, 5.0, 10.0]), *sagittal])
    assert [g.verdict for g in groups] == ["REGULAR", "REGULAR"]
    assert series_verdict(groups) == "MIXED_ORIENTATION"


def test_cosines_that_are_no_directions_make_no_volume():
    for orientation in [(0.0,) * 6, (1.0, 0, 0, 1.0, 0, 0), (2.0, 0, 0, 0, 1.0, 0)]:
        assert (
            classify_spacing(axial([0.0, 5.0, 10.0], orientation=orientation)).verdict
            == "NOT_A_VOLUME"
        )


def test_every_plane_given_is_in_exactly_one_group():
    rng = np.random.default_rng(3)
    planes = [
        plane(
            n,
            tuple(rng.integers(0, 4, 3).astype(float)),
            kernel=rng.choice(["a", "b"]),
            acquisition=int(rng.integers(3)),
        )
        for n in range(60)
    ]
    assert sorted(m for g in group_planes(planes) for m in members(g)) == list(range(60))
    assert group_planes([]) == []


HELIX = ("ORIGINAL", "PRIMARY", "AXIAL", "HELIX")
TECHNIQUE = (2.5, 120.0, 1.0, -1024.0)


def interleaved(other: tuple[str, ...], heights=range(0, 30, 5), **changes) -> list[Plane]:
    """Slices of 2.5 mm of which every other one has another ImageType."""
    return [
        plane(
            n,
            (-100.0, -120.0, height / 2),
            **{
                "technique": TECHNIQUE,
                **({"image_type": other, **changes} if n % 2 else {}),
            },
        )
        for n, height in enumerate(heights)
    ]


def test_interleaved_image_types_are_one_volume():
    group = only(group_planes(interleaved(HELIX)))
    assert (group.verdict, group.step_mm, members(group)) == ("REGULAR", 2.5, [0, 1, 2, 3, 4, 5])


def test_three_interleaved_image_types_with_a_gap_are_one_volume():
    planes = [
        plane(n, (0, 0, 2.5 * n), technique=TECHNIQUE, image_type=(*HELIX[:3], f"PART{n % 3}"))
        for n in range(13)
        if n != 4
    ]
    assert only(group_planes(planes)).label == "MISSING(1)"


@pytest.mark.parametrize(
    "planes",
    [
        interleaved((*HELIX[:3], "WATER")),
        interleaved((*HELIX[:3], "70KEV")),
        interleaved((*HELIX[:2], "P")),
        interleaved(("DERIVED", *HELIX[1:])),
        interleaved(HELIX, technique=(5.0, 120.0, 1.0, -1024.0)),
        interleaved(HELIX, technique=(2.5, 80.0, 1.0, -1024.0)),
        interleaved(HELIX, technique=(2.5, 120.0, 1.0, 0.0)),
        interleaved(HELIX, kernel="B70f"),
        interleaved(HELIX, heights=[0, 0, 5, 5, 10, 10]),
        interleaved(HELIX, heights=[0, 2, 10, 12, 20, 22]),
    ],
    ids=[
        "Dixon",
        "energy",
        "phase",
        "derived",
        "thickness",
        "kVp",
        "rescale",
        "kernel",
        "coincident",
        "offset",
    ],
)
def test_image_types_of_other_contrasts_or_techniques_stay_apart(planes):
    assert len(group_planes(planes)) == 2


@pytest.mark.parametrize("index", range(3))
def test_phases_are_split_where_positions_repeat(index):
    def phases(value: float) -> tuple[float | None, ...]:
        return tuple(value if n == index else None for n in range(3))

    planes = [
        plane(3 * phase + n, (0, 0, 5.0 * n), phases=phases(10.0 * phase))
        for phase in range(2)
        for n in range(3)
    ]
    groups = group_planes(planes)
    assert [(group.verdict, members(group)) for group in groups] == [
        ("REGULAR", [0, 1, 2]),
        ("REGULAR", [3, 4, 5]),
    ]


def test_phases_of_several_acquisitions_are_split_by_both():
    planes = [
        plane(n, (0, 0, 5.0 * (n % 3)), phases=(float(n // 3 % 2),), acquisition=n // 6)
        for n in range(12)
    ]
    assert [group.verdict for group in group_planes(planes)] == ["REGULAR"] * 4


def test_phases_at_different_positions_do_not_split_a_volume():
    planes = [plane(n, (0, 0, 5.0 * n), phases=(float(n % 2),), temporal=n % 2) for n in range(6)]
    assert only(group_planes(planes)).verdict == "REGULAR"


def timed(times: list[str]) -> list[list[int]]:
    """The groups of six slices at three positions, by their acquisition times."""
    planes = [plane(n, (0, 0, 5.0 * (n % 3)), times=("", time)) for n, time in enumerate(times)]
    return [members(group) for group in group_planes(planes)]


def test_the_time_of_acquisition_splits_phases_that_nothing_else_tells_apart():
    assert timed(["120000"] * 3 + ["120004.5"] * 3) == [[0, 1, 2], [3, 4, 5]]
    assert len(timed([f"12000{n}" for n in range(6)])) == 1  # each slice has a time of its own
    assert len(timed(["120000"] * 3 + ["120004", "120004", "120005"])) == 1
    apart = [plane(n, (0, 0, 5.0 * n), times=(str(n % 2),)) for n in range(6)]
    assert only(group_planes(apart)).verdict == "REGULAR"
