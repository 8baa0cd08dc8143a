"""The exceptions that data_pipelines raises on purpose.

    DicomError                  dicom               the root of the tree
    ├── NotDicom                not_dicom           not a DICOM file: skipped, not quarantined
    ├── Unreadable              unreadable          the file cannot be opened, or its header cannot
    │                                               be parsed
    ├── Ineligible              ineligible          a valid file without a diagnostic image in it;
    │                                               the raise names the reason (localizer, ...)
    ├── PixelError              pixels
    │   ├── NoPixelData         no_pixel_data
    │   ├── TruncatedPixelData  truncated_pixels
    │   ├── UnsupportedSyntax   unsupported_syntax  names every decoder and the missing package
    │   ├── DecodeFailed        decode_failed
    │   ├── ColourImage         colour              truly in color: not only a mark or a tint
    │   ├── LimitExceeded       limit_exceeded      larger, deeper or slower than the limits allow
    │   └── RasterError         raster              a PNG or JPEG that is not one grayscale image
    ├── SeriesError             not_a_volume        the raise gives the verdict in lower case
    ├── AnnotationError         annotation          a mask or box that cannot be used; the
    │                                               raise names the reason (wrong_size, ...)
    ├── BackendError            backend             TensorFlow is missing, or installed twice
    ├── EngineError             engine              a cluster, or a machine of it, cannot be used
    ├── NetworkError            network             a server that does not answer (unreachable) or
    │                                               says no (refused, not_authorized, bad_answer)
    └── InputError              input
        ├── LabelError          labels
        ├── SplitError          split
        ├── ManifestError       manifest
        ├── SpecError           spec
        └── CacheError          cache

The second column is `.code`, a stable reason code in lower case. A raise may give a narrower code.
`quarantine.csv` has the code of each excluded file; documentation and tests refer to codes only.

A message says what is wrong, what was received, where, and how to fix it. It never contains a
patient's data: no value of a name, identifier, date or free-text attribute, and no cell of a labels
table.
"""

from __future__ import annotations


class CodedError(Exception):
    """An exception that is raised on purpose. `code` is stable and lower case: the class's own, or
    the narrower one of the raise. Documentation and tests refer to it, never to the sentence.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """Keep `code` across a process boundary."""
        return _rebuild, (type(self), str(self), self.code)


def _rebuild(kind: type[CodedError], message: str, code: str) -> CodedError:
    return kind(message, code=code)


class DicomError(CodedError):
    """Root of the errors of data_pipelines.

    >>> DicomError("The image is a localizer.", code="localizer").code
    'localizer'
    >>> TruncatedPixelData("The pixel data end early.").code
    'truncated_pixels'
    """

    code = "dicom"


class NotDicom(DicomError):
    """The file is not a DICOM file. Ingest counts it as skipped."""

    code = "not_dicom"


class Unreadable(DicomError):
    """The file cannot be opened, or its header cannot be parsed: for example, it ends within the
    header."""

    code = "unreadable"


class Ineligible(DicomError):
    """The file is valid, but it has no image that a model may be trained on or applied to."""

    code = "ineligible"


class PixelError(DicomError):
    """The header was read, but the pixel data cannot be used."""

    code = "pixels"


class NoPixelData(PixelError):
    """The file has no Pixel Data element, or its header does not describe an image."""

    code = "no_pixel_data"


class TruncatedPixelData(PixelError):
    """The header is complete, but the pixel data end early.

    Raised by dicom/reader.py (the element is longer than the rest of the file),
    pixels/stored_values.py (fewer bytes than the header describes, or a codestream without an end
    marker) and pixels/encapsulation.py (missing or incomplete fragments). Ingest writes the code to
    quarantine.csv (ingestion/file_inspection.py).
    """

    code = "truncated_pixels"


class UnsupportedSyntax(PixelError):
    """No installed decoder reads the transfer syntax."""

    code = "unsupported_syntax"


class DecodeFailed(PixelError):
    """Every installed decoder failed, or the pixel data contradict the header."""

    code = "decode_failed"


class ColourImage(PixelError):
    """The image is in color: no grayscale image, and not one with a few colored marks only."""

    code = "colour"


class LimitExceeded(PixelError):
    """The file is larger, more deeply nested or slower to decode than the limits allow."""

    code = "limit_exceeded"


class RasterError(PixelError):
    """A PNG or JPEG file is not one grayscale image; the raise names the reason."""

    code = "raster"


class SeriesError(DicomError):
    """The files do not form the requested volume. `code` is the verdict in lower case."""

    code = "not_a_volume"


class AnnotationError(DicomError):
    """A mask or box cannot be used for its image; the raise names the reason. Ingest writes it to
    annotations.csv."""

    code = "annotation"


class BackendError(DicomError):
    """TensorFlow is not installed, or two of its packages are installed together."""

    code = "backend"


class EngineError(DicomError):
    """The engine that computes parts cannot be used, or a machine of its cluster differs: other
    code (other_version), or files that it does not see (source_not_shared, work_not_shared)."""

    code = "engine"


class NetworkError(DicomError):
    """A server of images does not answer, or refuses what was asked."""

    code = "network"


class InputError(DicomError):
    """An argument, a folder or a table that the caller gave cannot be used."""

    code = "input"


class LabelError(InputError):
    """The labels table cannot be used."""

    code = "labels"


class SplitError(InputError):
    """The images cannot be divided into train, tune and test as requested."""

    code = "split"


class ManifestError(InputError):
    """The work folder or its manifest cannot be used."""

    code = "manifest"


class SpecError(InputError):
    """A preprocessing or augmentation setting is not valid."""

    code = "spec"


class CacheError(InputError):
    """The cache cannot be built or read."""

    code = "cache"
