"""A synthetic DICOM cohort for the demo and for tests: its anatomy, and its files.

`make_cohort` writes one. `draw_towns` draws street scenes in color, with boxes and masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.synthetic.cohort import make_cohort
    from data_pipelines.synthetic.street_scenes import draw_towns

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.synthetic.cohort": "make_cohort",
        "data_pipelines.synthetic.street_scenes": "draw_towns",
    },
)
