"""What a run does: recipe (how it learns), options (what it learns from), and the planner that
proposes both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from medres.training.config.options import (
        RunOptions,
        augment_spec,
        claim_run_folder,
        configuration,
        existing_config,
        preprocessing,
        read_config,
        resolve_settings,
    )
    from medres.training.config.planner import plan
    from medres.training.config.recipe import Recipe

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "medres.training.config.options": "RunOptions augment_spec claim_run_folder configuration "
        "existing_config preprocessing read_config resolve_settings",
        "medres.training.config.planner": "plan",
        "medres.training.config.recipe": "Recipe",
    },
)
