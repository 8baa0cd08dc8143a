"""Tables of DICOM codes that say what an image is: SOP classes, modalities, photometric
interpretations, words of ImageType, and views.
"""

from __future__ import annotations

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
CT_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "2.2"))
#: MR and enhanced MR, also legacy converted. Color enhanced MR (4.3) is no slice of intensities.
MR_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("4", "4.1", "4.4"))
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ULTRASOUND_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("6", "6.1", "6.2", "3", "3.1")
)

#: breast tomosynthesis, and reconstructions of rotating X-ray systems (PS3.3 A.47, A.53, A.54)
TOMOSYNTHESIS_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.13.1.{n}" for n in ("1", "2", "3"))
#: the projections of which a tomosynthesis is computed (A.72)
TOMO_PROJECTION_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.13.1.{n}" for n in ("4", "5"))
#: words of ImageType of a tomosynthesis, and those of a 2D image that was computed from one
TOMOSYNTHESIS_WORDS = frozenset({"TOMOSYNTHESIS", "TOMO"})
SYNTHETIC_2D_WORDS = frozenset({"GENERATED_2D", "2D"})

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "DR", "RG", "MG", "PX", "IO"})
#: Modalities of X-ray sequences: angiography and fluoroscopy.
X_RAY_SEQUENCE_MODALITIES = frozenset({"XA", "RF"})
#: Modalities whose values are measurements in a unit of their own, not display intensities.
QUANTITATIVE_MODALITIES = frozenset({"MR", "PT", "NM", "RTDOSE"})
#: Modalities that consist of slices: an image of them without a position is not a volume.
SLICE_MODALITIES = frozenset({"CT", "MR", "PT"})
#: Modalities whose enhanced objects have a <modality>ImageFrameTypeSequence.
FRAME_TYPE_MODALITIES = frozenset({"CT", "MR"})

#: PhotometricInterpretation (C.7.6.3.1.2) of a grayscale image; pixels/grayscale.py has the rule
#: that tells the two apart. '' (absent) is accepted here, and refused (`no_photometric`) where
#: display values are read.
GRAYSCALE_PHOTOMETRICS = frozenset({"MONOCHROME1", "MONOCHROME2", ""})

#: Words of ImageType that mean "not a slice" or "not an intensity" -> reason code.
NON_SLICE_IMAGE_TYPES = {
    **dict.fromkeys(("LOCALIZER", "SCOUT", "SURVIEW", "TOPOGRAM"), "localizer"),
    **dict.fromkeys(("MIP", "MINIP", "MIN_IP", "MAX_IP", "PROJECTION IMAGE"), "projection"),
    **dict.fromkeys(("VOLUME_RENDER", "SURFACE_RENDER", "VRT", "SSD"), "rendering"),
    **dict.fromkeys(("SUBTRACTION", "SUBTRACT"), "subtraction"),
    **dict.fromkeys(("SCREEN SAVE", "SCREENSHOT"), "screen_capture"),
    **dict.fromkeys(("PERFUSION", "RCBF", "RCBV", "MTT", "TTP"), "parametric_map"),
}

#: View codes of PS3.16 CID 4010 and CID 4014 (SNOMED CT, and the older SNOMED RT) -> the value that
#: ViewPosition has in a DX image.
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
