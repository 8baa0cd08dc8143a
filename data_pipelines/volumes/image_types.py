"""Whether slices whose ImageType differs are slices of one acquisition.

Some scanners write another value 3 or 4 of ImageType (C.7.6.1.1.2) on every other slice. Grouped by
ImageType alone, such a series gives two volumes of twice the step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from data_pipelines.volumes.plane import Plane

#: words of ImageType that name another contrast of the same slices: Dixon images, energies of a
#: dual-energy scan, and magnitude or phase of an MR image
_CONTRAST_WORDS = """
W F IP OP WATER FAT INPHASE OUTPHASE OPPOSED OPP OUT IN DIXON DE DECT ENERGY KEV KV MONO
MONOENERGETIC MONOENERGY VMI VNC VIRTUAL IODINE CALCIUM EFFZ EFF Z ZEFF RHO M P R I PHASE
MAGNITUDE REAL IMAGINARY VELOCITY FLOW
"""
CONTRAST_WORDS = frozenset(_CONTRAST_WORDS.split())
_ENERGY = re.compile(r"\d+(KEV|KV|KVP)|(KEV|KV|KVP)\d+|E\d+")


def merge_image_types(
    planes: Sequence[Plane], forms_volume: Callable[[Sequence[Plane]], bool]
) -> list[list[Plane]]:
    """Slices of one grid as groups of one ImageType, except where several types together form one
    volume.

    Types are merged where their first two values, slice thickness, kVp and rescale agree, where
    the other values name no other contrast, and where `forms_volume` accepts all slices together.
    """
    by_type: dict[tuple[str, ...], list[Plane]] = {}
    for plane in planes:
        by_type.setdefault(plane.image_type, []).append(plane)
    families: list[list[list[Plane]]] = []
    for part in by_type.values():
        match = next((f for f in families if _may_belong_together(f[0], part)), None)
        if match is None:
            families.append([part])
        else:
            match.append(part)
    groups: list[list[Plane]] = []
    for family in families:
        together = [plane for part in family for plane in part]
        groups += [together] if len(family) == 1 or forms_volume(together) else family
    return groups


def _may_belong_together(a: Sequence[Plane], b: Sequence[Plane]) -> bool:
    techniques = {plane.technique for plane in (*a, *b)}
    first, second = a[0].image_type, b[0].image_type
    differing = {*first[2:]} ^ {*second[2:]}
    return (
        len(techniques) == 1 and first[:2] == second[:2] and not any(map(_is_contrast, differing))
    )


def _is_contrast(value: str) -> bool:
    words = (value, *re.split("[ _]", value))
    return any(word in CONTRAST_WORDS or _ENERGY.fullmatch(word) for word in words)
