"""Why residual learning works, as tools for one's own nets: gradients block by block, and training error by depth.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385), section 4 and figure 6.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medres.study.depths import DepthPlan, depth_study
    from medres.study.figures import draw_errors, draw_gradients, draw_twins
    from medres.study.gradients import GradientFlow, gradient_flow
    from medres.study.pictures import load_pictures
    from medres.study.twins import TwinGradients, block_norms, twin_gradients

__all__ = [
    "DepthPlan",
    "GradientFlow",
    "TwinGradients",
    "block_norms",
    "depth_study",
    "draw_errors",
    "draw_gradients",
    "draw_twins",
    "gradient_flow",
    "load_pictures",
    "twin_gradients",
]

_HOME = {
    "DepthPlan": "medres.study.depths",
    "depth_study": "medres.study.depths",
    "load_pictures": "medres.study.pictures",
    "draw_errors": "medres.study.figures",
    "draw_gradients": "medres.study.figures",
    "draw_twins": "medres.study.figures",
    **dict.fromkeys(("TwinGradients", "block_norms", "twin_gradients"), "medres.study.twins"),
    "GradientFlow": "medres.study.gradients",
    "gradient_flow": "medres.study.gradients",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medres.study' has no attribute {name!r}")
    if not name.startswith("draw_"):
        from data_pipelines.backend import require_tensorflow

        require_tensorflow()
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
