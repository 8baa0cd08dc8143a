"""Everything that data_pipelines raises on purpose.

    DicomError                  .code names the reason, as written to quarantine.csv
    ├── NotDicom                not_dicom           no DICOM at all: skipped, not quarantined
    ├── Unreadable              unreadable          a header that cannot be parsed
    ├── Ineligible              (given)             a sound file that is no picture to learn from:
    │                                               localizer, ...
    ├── PixelError
    │   ├── NoPixelData         no_pixel_data
    │   ├── TruncatedPixelData  truncated_pixels
    │   ├── UnsupportedSyntax   unsupported_syntax  names each decoder tried and the package that is
    │   │                                           missing
    │   ├── DecodeFailed        decode_failed
    │   ├── ColourImage         colour_image
    │   └── LimitExceeded       limit_exceeded      larger, deeper or slower than the limits allow
    ├── SeriesError             not_a_volume        .code holds the verdict in lower case
    ├── BackendError            backend             no TensorFlow, or two of them in one environment
    └── InputError              input
        ├── LabelError          labels
        ├── SplitError          split
        ├── ManifestError       manifest
        ├── SpecError           spec
        └── CacheError          cache

A message says what is wrong, what was received, where, and how to mend it. It never holds a
patient's data: no value of a name, identifier, date or free-text tag, and no cell of a labels
table.
"""

from __future__ import annotations


class DicomError(Exception):
    """Root of the tree. `code` is a stable, lower-case reason code."""

    code = "dicom"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple:
        """Keep `code` across a process boundary."""
        return _rebuild, (type(self), str(self), self.code)


def _rebuild(kind: type[DicomError], message: str, code: str) -> DicomError:
    return kind(message, code=code)


class NotDicom(DicomError):
    code = "not_dicom"


class Unreadable(DicomError):
    code = "unreadable"


class Ineligible(DicomError):
    code = "ineligible"


class PixelError(DicomError):
    code = "pixels"


class NoPixelData(PixelError):
    code = "no_pixel_data"


class TruncatedPixelData(PixelError):
    code = "truncated_pixels"


class UnsupportedSyntax(PixelError):
    code = "unsupported_syntax"


class DecodeFailed(PixelError):
    code = "decode_failed"


class ColourImage(PixelError):
    code = "colour_image"


class LimitExceeded(PixelError):
    code = "limit_exceeded"


class SeriesError(DicomError):
    code = "not_a_volume"


class BackendError(DicomError):
    code = "backend"


class InputError(DicomError):
    code = "input"


class LabelError(InputError):
    code = "labels"


class SplitError(InputError):
    code = "split"


class ManifestError(InputError):
    code = "manifest"


class SpecError(InputError):
    code = "spec"


class CacheError(InputError):
    code = "cache"
