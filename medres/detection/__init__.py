"""Boxes of a detector in numpy: the positions of its maps, the settings of decoding, and from raw
maps to boxes. May import errors and data_pipelines.runtime.
"""

from medres.detection.decoding import Detections, decode
from medres.detection.settings import DecodingSettings

__all__ = ["DecodingSettings", "Detections", "decode"]
