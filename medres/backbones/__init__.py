"""The ResNet family: one builder, its weights, its model summaries.

Nothing here loads TensorFlow until a name is used. May import data_pipelines.runtime and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.backbones.batch_norm_fusion import folded, training_twin
    from medres.backbones.build import backbone, features, pyramid, resnet
    from medres.backbones.model_summary import Summary, summary
    from medres.backbones.spec import ResNetSpec
    from medres.backbones.variants import VARIANTS, resnet_spec
    from medres.backbones.weights.load import ParityReport, load_pretrained

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.backbones.batch_norm_fusion": "folded training_twin",
        "medres.backbones.build": "backbone features pyramid resnet",
        "medres.backbones.model_summary": "Summary summary",
        "medres.backbones.spec": "ResNetSpec",
        "medres.backbones.variants": "VARIANTS resnet_spec",
        "medres.backbones.weights.load": "ParityReport load_pretrained",
    },
    needs_tensorflow=(
        "Summary",
        "backbone",
        "features",
        "folded",
        "load_pretrained",
        "ParityReport",
        "pyramid",
        "resnet",
        "summary",
        "training_twin",
    ),
)
