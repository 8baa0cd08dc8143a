"""DICOM files as data sets: reading, the technical header, which images are eligible, and writing.

Does not read pixel values. May import errors, kinds and runtime only; loads neither pandas nor
TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.dicom.elements import Elements
    from data_pipelines.dicom.eligibility import eligible_kind, non_slice_reason
    from data_pipelines.dicom.header import Header, header_of, read_header
    from data_pipelines.dicom.reader import (
        PARSER_ERRORS,
        DicomSource,
        ParsedDataset,
        parse,
        silence_pydicom,
    )
    from data_pipelines.dicom.sop_classes import QUANTITATIVE_MODALITIES, SLICE_MODALITIES
    from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.dicom.elements": "Elements",
        "data_pipelines.dicom.eligibility": "eligible_kind non_slice_reason",
        "data_pipelines.dicom.header": "Header header_of read_header",
        "data_pipelines.dicom.reader": "DicomSource PARSER_ERRORS ParsedDataset parse "
        "silence_pydicom",
        "data_pipelines.dicom.sop_classes": "QUANTITATIVE_MODALITIES SLICE_MODALITIES",
        "data_pipelines.dicom.writer": "derived_uid new_dataset save set_pixels",
    },
)
