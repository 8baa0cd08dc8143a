"""Models on top of backbones: the classifier, the segmenter with its decoders, the detector, and
test-time augmentation within the saved model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.models.classification import WINDOWS, classifier, scaled
    from medres.models.detection import decoding_settings, detector
    from medres.models.segmentation import segmenter, without_deep_supervision
    from medres.models.test_time_augmentation import core_of, with_core, with_views

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.models.classification": "WINDOWS classifier scaled",
        "medres.models.detection": "decoding_settings detector",
        "medres.models.segmentation": "segmenter without_deep_supervision",
        "medres.models.test_time_augmentation": "core_of with_core with_views",
    },
)
