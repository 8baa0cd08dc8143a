"""From DICOM files to tensors: reading, ingest, cache, tf.data and augmentation.

Never imports medres. `import data_pipelines` loads no TensorFlow: each name is imported when it is
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_pipelines.runtime.lazy_exports import lazy_exports, redirect_modules

if TYPE_CHECKING:
    from data_pipelines.cache.tf_dataset import datasets
    from data_pipelines.ingestion.manifest import Manifest
    from data_pipelines.ingestion.pipeline import ingest
    from data_pipelines.pixels.image import Image, read_image
    from data_pipelines.pixels.stored_values import read_stored
    from data_pipelines.runtime.limits import limited
    from data_pipelines.sources.dicom_wrapper import wrap
    from data_pipelines.sources.nifti import NiftiVolume, read_nifti
    from data_pipelines.synthetic.cohort import make_cohort
    from data_pipelines.volumes.volume import Volume, read_volume, read_volumes

__all__, __getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "data_pipelines.cache.tf_dataset": "datasets",
        "data_pipelines.ingestion.manifest": "Manifest",
        "data_pipelines.ingestion.pipeline": "ingest",
        "data_pipelines.pixels.image": "Image read_image",
        "data_pipelines.pixels.stored_values": "read_stored",
        "data_pipelines.runtime.limits": "limited",
        "data_pipelines.sources.dicom_wrapper": "wrap",
        "data_pipelines.sources.nifti": "NiftiVolume read_nifti",
        "data_pipelines.synthetic.cohort": "make_cohort",
        "data_pipelines.volumes.volume": "Volume read_volume read_volumes",
    },
)

redirect_modules(
    {
        "data_pipelines.dataset": "data_pipelines.cache.tf_dataset",
        "data_pipelines.headers": "data_pipelines.dicom.header",
        "data_pipelines.images": "data_pipelines.pixels.image",
        "data_pipelines.limits": "data_pipelines.runtime.limits",
        "data_pipelines.manifest": "data_pipelines.ingestion.manifest",
        "data_pipelines.phantom": "data_pipelines.synthetic.cohort",
        "data_pipelines.preprocess": "data_pipelines.preprocessing",
        "data_pipelines.series": "data_pipelines.volumes.series",
        "data_pipelines.wrapping": "data_pipelines.sources.dicom_wrapper",
        "data_pipelines.writing": "data_pipelines.dicom.writer",
    }
)
