"""Made-up masks for tests: DICOM SEG, RTSTRUCT, NIfTI and PNG, written element by element."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
CT = "1.2.840.10008.5.1.4.1.1.2"
FRAME_OF_REFERENCE = "1.2.99"


def item(**elements: object) -> Dataset:
    """An item of a sequence; a list of data sets becomes a sequence, None is left out."""
    dataset = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            is_sequence = isinstance(value, list) and value and isinstance(value[0], Dataset)
            setattr(dataset, keyword, DicomSequence(value) if is_sequence else value)
    return dataset


def seg_bytes(
    frames: Sequence[tuple[int, np.ndarray, object, object]],
    labels: Sequence[str],
    *,
    kind: str = "BINARY",
    maximum: int = 255,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: Sequence[float] = (1, 1),
    **elements: object,
) -> bytes:
    """A segmentation. frames: (segment number, values (rows, columns), position or None, (SOP
    Instance UID, frame number from 1 on) or None). kind: BINARY, FRACTIONAL or LABELMAP.
    """
    per_frame = []
    for segment, _, position, source in frames:
        reference = source and item(
            ReferencedSOPClassUID=CT,
            ReferencedSOPInstanceUID=source[0],
            ReferencedFrameNumber=source[1],
        )
        per_frame.append(
            item(
                SegmentIdentificationSequence=None
                if kind == "LABELMAP"
                else [item(ReferencedSegmentNumber=segment)],
                PlanePositionSequence=None
                if position is None
                else [item(ImagePositionPatient=[float(v) for v in position])],
                DerivationImageSequence=reference and [item(SourceImageSequence=[reference])],
            )
        )
    first = frames[0]
    dataset = item(
        SOPClassUID=LABEL_MAP if kind == "LABELMAP" else SEG,
        SOPInstanceUID=generate_uid(),
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID=generate_uid(),
        Modality="SEG",
        PatientID="P1",
        FrameOfReferenceUID=FRAME_OF_REFERENCE,
        SegmentationType=kind,
        SegmentationFractionalType="PROBABILITY" if kind == "FRACTIONAL" else None,
        MaximumFractionalValue=maximum if kind == "FRACTIONAL" else None,
        SegmentSequence=[
            item(SegmentNumber=n, SegmentLabel=label) for n, label in enumerate(labels, start=1)
        ],
        SharedFunctionalGroupsSequence=[
            item(
                PlaneOrientationSequence=None
                if first[2] is None
                else [item(ImageOrientationPatient=[float(v) for v in orientation])],
                PixelMeasuresSequence=[item(PixelSpacing=[float(v) for v in spacing])],
            )
        ],
        PerFrameFunctionalGroupsSequence=per_frame,
        NumberOfFrames=len(frames),
        Rows=first[1].shape[0],
        Columns=first[1].shape[1],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        PixelRepresentation=0,
    )
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    values = np.stack([values for _, values, _, _ in frames])
    if bits == 1:
        data = np.packbits(values.astype(bool).ravel(), bitorder="little").tobytes()
    else:
        data = values.astype(np.uint8).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dicom_bytes(dataset)


def rtstruct_bytes(
    regions: Mapping[str, Sequence[tuple[str, np.ndarray]]],
    sop_uids: Sequence[str] = (),
    **elements: object,
) -> bytes:
    """A structure set. regions: name -> contours (type, points (n, 3) in LPS mm)."""
    dataset = item(
        SOPClassUID=RTSTRUCT,
        SOPInstanceUID=generate_uid(),
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID=generate_uid(),
        Modality="RTSTRUCT",
        PatientID="P1",
        ReferencedFrameOfReferenceSequence=[
            item(
                FrameOfReferenceUID=FRAME_OF_REFERENCE,
                RTReferencedStudySequence=[
                    item(
                        RTReferencedSeriesSequence=[
                            item(
                                SeriesInstanceUID="1.2.3.4",
                                ContourImageSequence=[
                                    item(ReferencedSOPInstanceUID=uid) for uid in sop_uids
                                ]
                                or None,
                            )
                        ]
                    )
                ],
            )
        ],
        StructureSetROISequence=[
            item(ROINumber=n, ROIName=name, ReferencedFrameOfReferenceUID=FRAME_OF_REFERENCE)
            for n, name in enumerate(regions, start=1)
        ],
        ROIContourSequence=[
            item(
                ReferencedROINumber=n,
                ContourSequence=[
                    item(
                        ContourGeometricType=kind,
                        NumberOfContourPoints=len(points),
                        ContourData=[f"{v:.6f}".rstrip("0") for v in np.ravel(points)],
                    )
                    for kind, points in contours
                ],
            )
            for n, contours in enumerate(regions.values(), start=1)
        ],
    )
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dicom_bytes(dataset)


def dicom_bytes(dataset: Dataset) -> bytes:
    """A data set as a file, explicit little endian."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def write_png(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    """Values as a PNG of 8 or 16 bits, or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("L")
        image.putpalette([n for value in range(256) for n in (value, 255 - value, 0)])
    image.save(path)


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """A volume (i, j, k) with an affine to RAS mm."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def lps_to_ras(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slices, rows, columns) with an affine to LPS mm as NIfTI has it: (columns, rows, slices) and
    RAS.
    """
    swap = affine[:, [2, 1, 0, 3]]
    return values.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ swap
