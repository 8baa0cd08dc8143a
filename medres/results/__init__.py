"""A prediction as objects that a PACS, a viewer or a hospital system reads: DICOM structured
report, Secondary Capture and segmentation, FHIR, COCO and JSON. Each says: research use only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.results.capture import secondary_capture
    from medres.results.coco import coco_results
    from medres.results.drawing import Overlay, display_picture
    from medres.results.fhir import fhir_bundle
    from medres.results.identity import content_of, is_own_result, result_key, result_uid
    from medres.results.report import structured_report
    from medres.results.result import ModelIdentity, Result, model_identity, results_of
    from medres.results.segmentation import segmentation_object
    from medres.results.writing import Masks, result_document, write_results

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.results.capture": "secondary_capture",
        "medres.results.coco": "coco_results",
        "medres.results.drawing": "Overlay display_picture",
        "medres.results.fhir": "fhir_bundle",
        "medres.results.identity": "content_of is_own_result result_key result_uid",
        "medres.results.report": "structured_report",
        "medres.results.result": "ModelIdentity Result model_identity results_of",
        "medres.results.segmentation": "segmentation_object",
        "medres.results.writing": "Masks result_document write_results",
    },
)
