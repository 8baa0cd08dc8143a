"""Made-up DICOM SR of imaging measurements (TID 1500), item by item."""

from __future__ import annotations

from mask_writers import item
from pydicom.dataset import Dataset


def code(value: str, meaning: str, scheme: str = "DCM") -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def image(uid: str, frame: int | None = None) -> Dataset:
    reference = item(ReferencedSOPInstanceUID=uid, ReferencedFrameNumber=frame)
    return item(ValueType="IMAGE", ReferencedSOPSequence=[reference])


def region(kind: str, *data: float, at: Dataset | None = None, **more: object) -> Dataset:
    return item(
        ValueType="SCOORD",
        ConceptNameCodeSequence=code("111030", "Image Region"),
        GraphicType=kind,
        GraphicData=[float(v) for v in data],
        ContentSequence=[at or image("1.2.7")],
        **more,
    )


def group(*items: Dataset, finding: str | None = "Nodule") -> Dataset:
    content = list(items)
    if finding is not None:
        content.insert(
            0,
            item(
                ValueType="CODE",
                ConceptNameCodeSequence=code("121071", "Finding"),
                ConceptCodeSequence=code("27925004", finding, "SCT"),
            ),
        )
    return item(
        ValueType="CONTAINER",
        ConceptNameCodeSequence=code("125007", "Measurement Group"),
        ContentSequence=content,
    )


def report(*groups: Dataset, library: list[Dataset] | None = None) -> Dataset:
    measurements = item(
        ValueType="CONTAINER",
        ConceptNameCodeSequence=code("126010", "Imaging Measurements"),
        ContentSequence=list(groups) or None,
    )
    content = [measurements]
    if library:
        content.append(
            item(
                ValueType="CONTAINER",
                ConceptNameCodeSequence=code("111028", "Image Library"),
                ContentSequence=library,
            )
        )
    return item(PatientID="P1", ValueType="CONTAINER", ContentSequence=content)
