"""Regions of a DICOM SR (TID 1500) as boxes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import raises_code
from mask_writers import item
from pydicom.dataset import Dataset
from report_writers import code, group, image, region, report

from data_pipelines.annotations.boxes.readers.structured_report import read_report
from data_pipelines.errors import AnnotationError


def test_a_region_keeps_its_coordinates_without_a_shift() -> None:
    """0\\0 is the outer corner of the first pixel: the whole first pixel is 0, 0, 1, 1."""
    rectangle = region("POLYLINE", 0, 0, 1, 0, 1, 1, 0, 1, 0, 0)
    other = group(region("POLYLINE", 3, 2, 6, 2, 6, 4, 3, 2), finding="Mass")
    (listed,) = read_report(report(group(rectangle), other), "r.dcm")
    assert (listed.key, listed.values, listed.frame) == ("sop_instance_uid", ("1.2.7",), None)
    assert [(b.class_name, b.edges, b.code) for b in listed.boxes] == [
        ("Nodule", (0, 0, 1, 1), ""),
        ("Mass", (3, 2, 6, 4), ""),
    ]
    assert listed.identity.patient_id == "P1"


def test_the_box_around_circles_and_turned_ellipses() -> None:
    angle = 0.4
    along, across = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    center, a, b = np.array([30.0, 20.0]), 9.0, 4.0
    ends = [center - a * along, center + a * along, center - b * across, center + b * across]
    circle = region("CIRCLE", 10, 8, 10, 11)
    ellipse = region("ELLIPSE", *np.concatenate(ends))
    (listed,) = read_report(report(group(circle, ellipse)), "r.dcm")
    turn = np.linspace(0, 2 * np.pi, 100_001)[:, np.newaxis]
    drawn = center + a * np.cos(turn) * along + b * np.sin(turn) * across
    assert listed.boxes[0].edges == (7, 5, 13, 11)
    want = (*drawn.min(axis=0), *drawn.max(axis=0))
    np.testing.assert_allclose(listed.boxes[1].edges, want, atol=1e-5)


def test_images_of_the_library_were_assessed() -> None:
    listed = read_report(
        report(
            group(region("CIRCLE", 10, 8, 10, 11, at=image("1.2.8", 3))),
            library=[image("1.2.7"), image("1.2.8")],
        ),
        "r.dcm",
    )
    assert [(e.values[0], e.frame, len(e.boxes)) for e in listed] == [
        ("1.2.8", 2, 1),
        ("1.2.7", None, 0),
    ]


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (region("POINT", 3, 2), "region_type"),
        (region("POLYLINE", 3, 2, 4, 4), "region_type"),
        (region("CIRCLE", 3, 2), "region_type"),
        (region("CIRCLE", 3, 2, 4, 2, PixelOriginInterpretation="VOLUME"), "region_not_in_image"),
    ],
)
def test_a_region_without_an_area_in_its_image(region: Dataset, reason: str) -> None:
    (listed,) = read_report(report(group(region)), "r.dcm")
    assert [box.code for box in listed.boxes] == [reason]


def test_a_region_without_a_finding_has_no_class() -> None:
    (listed,) = read_report(report(group(region("CIRCLE", 3, 2, 4, 2), finding=None)), "r.dcm")
    assert [box.code for box in listed.boxes] == ["no_class"]


def test_a_region_in_space_makes_the_images_unusable() -> None:
    in_space = item(ValueType="SCOORD3D", ConceptNameCodeSequence=code("111030", "Image Region"))
    (listed,) = read_report(report(group(in_space), library=[image("1.2.7")]), "r.dcm")
    assert (listed.code, listed.boxes) == ("region_not_in_image", ())
    with raises_code(AnnotationError, "no_reference"):
        read_report(report(), "r.dcm")


def test_lines_of_measurements_are_no_regions() -> None:
    line = region("POLYLINE", 1, 1, 5, 5)
    line.ConceptNameCodeSequence = code("121055", "Path")
    (listed,) = read_report(report(group(line, region("CIRCLE", 3, 2, 4, 2))), "r.dcm")
    assert len(listed.boxes) == 1


@pytest.mark.long  # importing highdicom takes seconds
def test_a_report_written_by_highdicom(grey) -> None:
    """Also the image without a region, which the library names."""
    hd = pytest.importorskip("highdicom")
    from highdicom.sr.coding import Code

    films = [grey(np.zeros((40, 50), np.uint16), SOPInstanceUID=f"1.2.7.{n}") for n in (1, 2)]
    for film in films:
        film.StudyDate = film.StudyTime = film.AccessionNumber = film.StudyID = ""
        film.PatientName = film.PatientBirthDate = film.PatientSex = ""
        film.ReferringPhysicianName = ""
        film.PixelSpacing, film.SliceThickness = [1, 1], 1
        film.ImagePositionPatient = [0, 0, 0]
        film.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        film.FrameOfReferenceUID = "1.2.9"
    square = np.array([[3, 2], [6, 2], [6, 4], [3, 4], [3, 2]], np.float64)
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=square,
        source_image=hd.sr.SourceImageForRegion("1.2.840.10008.5.1.4.1.1.2", "1.2.7.1"),
    )
    roi = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier="lesion 1"),
        referenced_region=region,
        finding_type=Code("27925004", "SCT", "Nodule"),
    )
    observer = hd.sr.ObserverContext(
        observer_type=Code("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=hd.UID()),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[roi],
        title=Code("126000", "DCM", "Imaging Measurement Report"),
        referenced_images=films,
    )
    report = hd.sr.ComprehensiveSR(
        evidence=films,
        content=content,
        series_number=1,
        series_instance_uid=hd.UID(),
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="test",
    )
    listed = {each.values[0]: each for each in read_report(report, "r.dcm")}
    assert {uid: len(each.boxes) for uid, each in listed.items()} == {"1.2.7.1": 1, "1.2.7.2": 0}
    (box,) = listed["1.2.7.1"].boxes
    assert (box.class_name, box.edges, box.code) == ("Nodule", (3, 2, 6, 4), "")
