"""The ResNet and DenseNet families: one builder, pretrained weights, model summaries.

TensorFlow is loaded only when a name is used. May import data_pipelines.runtime and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.backbones.batch_norm_fusion import (
        fold_batch_norm,
        folded,
        fused_training_copy,
        training_twin,
    )
    from medres.backbones.build import backbone, densenet, features, pyramid, resnet
    from medres.backbones.dense.spec import DenseNetSpec
    from medres.backbones.dense.variants import DENSENETS, densenet_spec
    from medres.backbones.model_summary import Summary, summary
    from medres.backbones.spec import ResNetSpec
    from medres.backbones.variants import VARIANTS, model_name, network_spec, resnet_spec
    from medres.backbones.weights.load import ParityReport, load_pretrained

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.backbones.batch_norm_fusion": "fold_batch_norm fused_training_copy "
        "folded training_twin",  # their former names
        "medres.backbones.build": "backbone densenet features pyramid resnet",
        "medres.backbones.dense.spec": "DenseNetSpec",
        "medres.backbones.dense.variants": "DENSENETS densenet_spec",
        "medres.backbones.model_summary": "Summary summary",
        "medres.backbones.spec": "ResNetSpec",
        "medres.backbones.variants": "VARIANTS model_name network_spec resnet_spec",
        "medres.backbones.weights.load": "ParityReport load_pretrained",
    },
    needs_tensorflow=(
        "Summary",
        "backbone",
        "densenet",
        "features",
        "fold_batch_norm",
        "folded",
        "fused_training_copy",
        "load_pretrained",
        "ParityReport",
        "pyramid",
        "resnet",
        "summary",
        "training_twin",
    ),
)
