"""A mask as its file has it, before it is brought onto its image; and the image it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_pipelines.annotations.grids import Grid
from data_pipelines.annotations.label_map import LabelMap
from data_pipelines.pseudonyms import normalise_patient_id

#: SOP Instance UID, and the number of the frame from 0 on
FrameUid = tuple[str, int]


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask on its own slices.

    grid: where its slices lie; None where it has no position. frames: the frame of an image that
    each slice was drawn on, None where the file does not say. sparse: a slice that is absent is
    background (DICOM SEG), not missing. flags: codes of what a reader should know.
    """

    label_map: LabelMap
    grid: Grid | None = None
    frames: tuple[FrameUid | None, ...] = field(default=(), repr=False)
    sparse: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Identity:
    """Whom and what a DICOM file is about. `repr` hides the values; they never leave the process.

    sop_uids: of a mask, the images that it refers to; of a target, its images. series_uids: the
    same of series.
    """

    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    frame_of_reference: str = field(default="", repr=False)
    sop_uids: frozenset[str] = field(default=frozenset(), repr=False)
    series_uids: frozenset[str] = field(default=frozenset(), repr=False)

    def is_other_patient(self, other: Identity) -> bool:
        """Whether both name a patient, and not the same one. An issuer that only one of them has
        says nothing.
        """
        mine, theirs = (normalise_patient_id(each.patient_id) for each in (self, other))
        issuers = [normalise_patient_id(each.issuer) for each in (self, other)]
        if not (mine and theirs):
            return False
        return mine != theirs or (all(issuers) and issuers[0] != issuers[1])


@dataclass(frozen=True, eq=False)
class Target:
    """An image, or the slices of one volume, that masks belong to.

    key: the name of its file. images: the pseudonym of each slice. shape: (slices, rows, columns).
    grid: None where the position is unknown. frames: the DICOM frame of each slice.
    """

    key: str
    images: tuple[str, ...]
    shape: tuple[int, int, int]
    grid: Grid | None
    frames: tuple[FrameUid, ...] = field(repr=False)
    identity: Identity = field(default_factory=Identity)
