"""From the files of one study to the input of a model, or a refusal. Does not load TensorFlow, so
decode workers can run it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from data_pipelines.dicom.header import read_header
from data_pipelines.dicom.reader import DicomSource
from data_pipelines.errors import CodedError, DicomError, Ineligible
from data_pipelines.kinds import ColorRule, image_kind
from data_pipelines.pixels.image import Image
from data_pipelines.preprocessing.spec import PreprocessSpec
from data_pipelines.preprocessing.study import Study, prepared_study
from data_pipelines.runtime.limits import active_limits
from data_pipelines.runtime.storage import limit_file, read_source
from data_pipelines.sources.image_source import file_format_of
from medres.artefact.card import Card
from medres.artefact.training_domain import Domain, domain_violation, header_check
from medres.errors import RefusedInput
from medres.inference.request_files import portable
from medres.inference.study_identity import (
    STRICT,
    FileIdentity,
    IdentityRules,
    OnePatient,
    identity_of,
)


class ReadRequest(NamedTuple):
    """What a decode worker needs for one study: paths or bytes of files (see `portable`), and what
    the model reads.
    """

    files: tuple[str | bytes, ...]
    spec: PreprocessSpec
    domain: Domain | None
    rules: IdentityRules
    color: ColorRule = "refuse"


def request_of(
    files: Iterable[DicomSource], card: Card, rules: IdentityRules = STRICT
) -> ReadRequest:
    """The request for the files of one study and the model of a card. Raises DicomError (see
    `portable`).
    """
    sources = tuple(map(portable, files))
    return ReadRequest(sources, card.preprocess, card.domain, rules, card.color)


@dataclass(frozen=True)
class StudyReading:
    """What the files of a request hold.

    study: the samples for the model; None where `error` says why there are none. study_uid,
    series_uids, sop_instance_uids: of the images that were used, in order; where the study is
    refused, of the files that were read until then. sha256: hexadecimal digest of each file that
    was read, in the order of the request.
    """

    study: Study | None
    error: CodedError | None = None
    study_uid: str = field(default="", repr=False)
    series_uids: tuple[str, ...] = field(default=(), repr=False)
    sop_instance_uids: tuple[str, ...] = field(default=(), repr=False)
    sha256: tuple[str, ...] = ()

    def required(self) -> Study:
        """The samples. Raises what was wrong with the files."""
        if self.study is None:
            raise self.error or RefusedInput("the study was not read")
        return self.study


def read_study(files: Sequence[DicomSource], card: Card) -> Study:
    """The samples of one study, prepared for the model, read in this process.

    Localizers, derived images and other kinds of image are skipped. Raises RefusedInput if the
    files are not of one patient and study (codes of `OnePatient`), an image lies outside the
    training domain (codes of `domain_violation`) or slices come from several series
    (several_series); DicomError if no image is left or a file cannot be read.
    """
    return read_request(request_of(files, card)).required()


def read_request(request: ReadRequest) -> StudyReading:
    """As `read_study`, with what was read and refused in the result. Runs in a decode worker."""
    log = _Log(request)
    check_header = header_check(request.domain, request.spec.kind)
    try:
        study = prepared_study(
            log.contents(),
            request.spec,
            check=_check_of(request),
            check_header=check_header,
            color=request.color,
        )
    except (DicomError, RefusedInput) as error:
        return log.reading(None, error)
    return log.reading(study, None)


class SliceRequest(NamedTuple):
    """The slice of a study that a map is to be drawn on: its SOP Instance UID and frame."""

    request: ReadRequest
    sop_instance_uid: str
    frame: int


def read_slice(sought: SliceRequest) -> tuple[Image | None, tuple[str, ...]]:
    """The original image of a slice, and the SHA-256 of each file as it was read now. Runs in a
    decode worker. Raises DicomError.
    """
    log, images = _Log(sought.request), list[Image]()
    position = (sought.sop_instance_uid, sought.frame)

    def keep(image: Image) -> None:
        if (image.header.identifiers.sop_instance_uid, image.frame) == position and not images:
            images.append(image)

    with contextlib.suppress(RefusedInput):  # another file than before: its hash tells
        prepared_study(log.contents(), sought.request.spec, check=keep, color=sought.request.color)
    return next(iter(images), None), tuple(log.sha256)


class _Log:
    """Reads the files of a request one by one, each once, and notes what they are."""

    def __init__(self, request: ReadRequest) -> None:
        self._files = request.files
        self._patient = OnePatient(len(request.files), request.rules)
        self._identities: list[FileIdentity] = []
        self.sha256: list[str] = []

    def contents(self) -> Iterator[bytes]:
        """The bytes of each file, once its header was found to be of the same patient and study.
        Raises RefusedInput and DicomError.
        """
        for file in self._files:
            limit_file(active_limits().seconds)
            data = file if isinstance(file, bytes) else read_source(file)
            self.sha256.append(hashlib.sha256(data).hexdigest())
            self._note(data)
            yield data
        limit_file(0)

    def _note(self, data: bytes) -> None:
        if file_format_of(data) != "dicom":
            self._patient.add(None)
            return
        try:
            identity = identity_of(read_header(data))
        except Ineligible:  # an index of files, which says nothing about a patient
            return
        self._identities.append(identity)
        self._patient.add(identity)

    def reading(self, study: Study | None, error: CodedError | None) -> StudyReading:
        used = self._identities
        if study is not None:
            scored = {sop for sample in study.slices for sop, _ in sample}
            used = [each for each in used if each.sop_instance_uid in scored]
        studies = {each.study_uid for each in used}
        return StudyReading(
            study,
            error,
            study_uid=studies.pop() if len(studies) == 1 else "",
            series_uids=_distinct(each.series_uid for each in used),
            sop_instance_uids=_distinct(each.sop_instance_uid for each in used),
            sha256=tuple(self.sha256),
        )


def _distinct(uids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _check_of(request: ReadRequest) -> Callable[[Image], None]:
    """The check of each decoded image; it raises RefusedInput."""
    has_series = image_kind(request.spec.kind).has_series
    series: set[str] = set()

    def check(image: Image) -> None:
        violation = None if request.domain is None else domain_violation(image, request.domain)
        if violation is not None:
            raise RefusedInput(violation.message, code=violation.code)
        series.add(image.header.identifiers.series_instance_uid)
        if has_series and len(series) > 1:
            raise RefusedInput(
                "CT slices of more than one series: predict one series at a time",
                code="several_series",
            )

    return check
