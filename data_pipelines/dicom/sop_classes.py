"""Closed tables of DICOM codes that decide what an image is: SOP classes, modalities, ImageType
words, views.
"""

from __future__ import annotations

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
CT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "2.2"))
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("6", "6.1", "6.2", "3", "3.1")
)
RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "DR", "RG", "MG", "PX", "IO"})
#: modalities whose values are a measurement, not a picture
QUANTITATIVE_MODALITIES = frozenset({"MR", "PT", "NM", "RTDOSE"})

#: Words of ImageType that say "this is no slice" or "no intensity", and the reason code each gives.
NON_SLICE_IMAGE_TYPES = {
    **dict.fromkeys(("LOCALIZER", "SCOUT", "SURVIEW", "TOPOGRAM"), "localizer"),
    **dict.fromkeys(("MIP", "MINIP", "MIN_IP", "MAX_IP", "PROJECTION IMAGE"), "projection"),
    **dict.fromkeys(("VOLUME_RENDER", "SURFACE_RENDER", "VRT", "SSD"), "rendering"),
    **dict.fromkeys(("SUBTRACTION", "SUBTRACT"), "subtraction"),
    **dict.fromkeys(("SCREEN SAVE", "SCREENSHOT"), "screen_capture"),
    **dict.fromkeys(("PERFUSION", "RCBF", "RCBV", "MTT", "TTP"), "parametric_map"),
}

#: View codes of PS3.16 CID 4010 and CID 4014, SNOMED CT and the older SNOMED RT, as DX ViewPosition
#: writes them.
VIEWS = {
    **dict.fromkeys(("272479007", "R-10214", "R-40888"), "PA"),
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399067008", "R-102CD"), "LATERAL"),
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
    **dict.fromkeys(("399260004", "R-10224"), "ML"),
    **dict.fromkeys(("399352003", "R-10228"), "LM"),
}
