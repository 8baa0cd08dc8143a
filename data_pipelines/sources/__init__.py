"""Images of other formats than DICOM (PNG, JPEG, NumPy arrays, NIfTI), and the check that every
image must pass. Start with `accepted_images` and `read_row`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from data_pipelines.sources.acceptance import accepted_images, with_plane
    from data_pipelines.sources.dicom_wrapper import wrap
    from data_pipelines.sources.image_source import (
        RASTER_SUFFIXES,
        file_format_of,
        npz_image,
        npz_images,
        raster_image,
        read_row,
    )
    from data_pipelines.sources.nifti import NiftiVolume, read_nifti

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.sources.acceptance": "accepted_images with_plane",
        "data_pipelines.sources.dicom_wrapper": "wrap",
        "data_pipelines.sources.image_source": "RASTER_SUFFIXES file_format_of npz_image "
        "npz_images raster_image read_row",
        "data_pipelines.sources.nifti": "NiftiVolume read_nifti",
    },
)
