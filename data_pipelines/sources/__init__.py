"""Files that are no DICOM images yet (PNG, JPEG, NumPy arrays), and the gate through which every
image enters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.sources.acceptance import accepted_images, with_plane
    from data_pipelines.sources.dicom_wrapper import wrap
    from data_pipelines.sources.image_source import (
        PICTURE_SUFFIXES,
        array_image,
        array_members,
        form_of,
        picture_image,
        read_row,
        study_of,
    )

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.sources.acceptance": "accepted_images with_plane",
        "data_pipelines.sources.dicom_wrapper": "wrap",
        "data_pipelines.sources.image_source": "PICTURE_SUFFIXES array_image "
        "array_members form_of picture_image read_row study_of",
    },
)
