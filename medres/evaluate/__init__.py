"""Diagnostic evaluation of any scores table: numbers with intervals, and one page that people read.

`evaluate(scores)` returns a `DiagnosticReport`; its `.report` has the types of schema.py, its
`.numbers` is the same as plain dicts. `reader_study(readers)` compares modalities by what human
readers say, `evaluate_masks(masks, reference)` compares segmentations with a reference, and
`evaluate_boxes(predictions, reference)` detections. numpy, scipy and pandas only: nothing here
imports TensorFlow, and of medres only the errors, the tasks and `svg`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.evaluate.detection.study import DetectionResult, evaluate_boxes
    from medres.evaluate.readers.study import ReaderStudyReport, reader_study
    from medres.evaluate.report import DiagnosticReport, evaluate
    from medres.evaluate.segmentation.evaluation import SegmentationReport, evaluate_masks

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.evaluate.detection.study": "DetectionResult evaluate_boxes",
        "medres.evaluate.readers.study": "ReaderStudyReport reader_study",
        "medres.evaluate.report": "DiagnosticReport evaluate",
        "medres.evaluate.segmentation.evaluation": "SegmentationReport evaluate_masks",
    },
)
