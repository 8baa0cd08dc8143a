"""From read images to the fixed-size integers that training and prediction both consume.

`spec` describes the result; `preparation` makes it from one image, `samples` from several slices,
`study` from a whole study. Imports from the rooms that read images and volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.preprocessing.preparation import (
        prepare,
        resize_axes,
        to_integers,
        to_model_units,
    )
    from data_pipelines.preprocessing.resize import AxisResize
    from data_pipelines.preprocessing.samples import SampleSlices, prepare_samples, samples_of
    from data_pipelines.preprocessing.spec import PreprocessSpec, spec_from
    from data_pipelines.preprocessing.study import Study, prepared_study

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.preprocessing.preparation": "prepare resize_axes to_integers "
        "to_model_units",
        "data_pipelines.preprocessing.resize": "AxisResize",
        "data_pipelines.preprocessing.samples": "SampleSlices prepare_samples samples_of",
        "data_pipelines.preprocessing.spec": "PreprocessSpec spec_from",
        "data_pipelines.preprocessing.study": "Study prepared_study",
    },
)
