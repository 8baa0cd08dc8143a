"""What all DICOM objects of a result share: codes, equipment, series, times, and a highdicom that
stays silent about patients.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from data_pipelines.dicom.reader import silence_pydicom
from data_pipelines.runtime.plain_text import escaped
from medres.errors import ResultError
from medres.results.identity import MANUFACTURER
from medres.results.result import Result

if TYPE_CHECKING:
    from highdicom.sr.coding import CodedConcept

#: designator of the codes that no public scheme has (PS3.3 section 8.2: private ones begin with 99)
SCHEME = "99MEDRES"
_IMPLEMENTATION_UID = UID("2.25.84736251946372819463728194637281946372")
#: role of an object -> number and description of its series
SERIES = {
    "report": (9901, "medres report, research use only"),
    "overlay": (9902, "medres overlay, research use only"),
    "segmentation": (9903, "medres segmentation, research use only"),
}
_MEANING, _CODE = 64, 16  # characters of a LO and of a SH


def code(value: str, meaning: str) -> CodedConcept:
    """A concept of the private scheme of medres."""
    from highdicom.sr.coding import CodedConcept

    return CodedConcept(value, SCHEME, short_text(meaning))


def name_code(name: str) -> CodedConcept:
    """The concept of a finding or class that is known by its name only: the code is the name where
    it fits, else its hash.
    """
    is_code = name.isascii() and name.isprintable() and len(name) <= _CODE and "\\" not in name
    hashed = hashlib.sha256(name.encode()).hexdigest()[:_CODE]
    return code(name if is_code and name == name.strip() else hashed, name)


def short_text(text: str, limit: int = _MEANING) -> str:
    """A text as a DICOM value of at most `limit` bytes, without a backslash."""
    plain = escaped(text).replace("\\", "/").strip()
    if len(plain.encode()) <= limit:
        return plain
    return plain.encode()[: limit - 3].decode(errors="ignore") + "..."


def object_arguments(result: Result, role: str, number: int = 1) -> dict[str, Any]:
    """Arguments that every object of highdicom takes. number: of the object within its series."""
    series, description = SERIES[role]
    return {
        "series_instance_uid": result.uid(f"series {role}"),
        "series_number": series,
        "series_description": description,
        "sop_instance_uid": result.uid(f"{role} {number}"),
        "instance_number": number,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": short_text(f"medres {result.model.name}"),
        "software_versions": short_text(f"medres {metadata.version('medres')}"),
        "device_serial_number": result.model.sha256,
        "specific_character_set": "ISO_IR 192",
    }


def finished(dataset: Dataset, result: Result) -> Dataset:
    """Replace what depends on the time and the place of writing, so that the same result gives the
    same bytes. The times are those at which the result was made.
    """
    date, time = result.created.strftime("%Y%m%d"), result.created.strftime("%H%M%S.%f")
    for keyword in ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture"):
        if keyword in dataset:
            setattr(dataset, keyword, date)
    for keyword in ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture"):
        if keyword in dataset:
            setattr(dataset, keyword, time)
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        equipment.ContributionDateTime = date + time
    issuer = result.sources.first.get("IssuerOfPatientID")
    if issuer:
        dataset.IssuerOfPatientID = issuer
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = "MEDRES"
    return dataset


@contextlib.contextmanager
def quiet_highdicom(what: str) -> Iterator[None]:
    """Nothing that highdicom or pydicom say, in logs, warnings or errors, leaves the block, since
    it may quote a patient's data.

    Raises ResultError: no_highdicom, not_made.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise ResultError(
            'DICOM objects of results need highdicom: pip install "medres[results]"',
            code="no_highdicom",
        ) from None
    log = logging.getLogger("highdicom")
    level = log.level
    with silence_pydicom():
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise ResultError(
                f"the {what} could not be made of these images ({type(error).__name__})",
                code="not_made",
            ) from None
        finally:
            log.setLevel(level)
