"""Experiments on why residual learning works, for your own images and networks: gradients per
block, and training error by depth. `medres.study` is an alias.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385), section 4 and
figure 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.experiments.depths import DepthExperiment, DepthPlan, depth_study
    from medres.experiments.figures import draw_errors, draw_gradients, draw_twins
    from medres.experiments.gradients import GradientFlow, gradient_flow
    from medres.experiments.image_sets import load_pictures
    from medres.experiments.twins import TwinGradients, block_norms, twin_gradients

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.experiments.depths": "DepthExperiment DepthPlan depth_study",
        "medres.experiments.figures": "draw_errors draw_gradients draw_twins",
        "medres.experiments.gradients": "GradientFlow gradient_flow",
        "medres.experiments.image_sets": "load_pictures",
        "medres.experiments.twins": "TwinGradients block_norms twin_gradients",
    },
    needs_tensorflow=(
        "DepthExperiment",
        "DepthPlan",
        "depth_study",
        "GradientFlow",
        "gradient_flow",
        "load_pictures",
        "TwinGradients",
        "block_norms",
        "twin_gradients",
    ),
)
