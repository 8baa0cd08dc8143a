"""Windows of a CT by name, and the one that shows a part of the body."""

from __future__ import annotations

#: Name -> center and width in HU, as commonly preset on CT workstations.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "soft_tissue": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "temporal_bone": (600.0, 2800.0),
    "brain": (40.0, 80.0),
    "subdural": (75.0, 215.0),
    "stroke": (35.0, 40.0),
    "liver": (60.0, 160.0),
    "abdomen": (60.0, 400.0),
    "angiography": (300.0, 600.0),
}

#: Words of BodyPartExamined (PS3.16 annex L) -> the window that shows the part. The first row with
#: a word that the code contains decides, so that several parts come before one of them. A word of
#: three letters must be the whole code: HEART contains EAR.
_BODY_PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("soft_tissue", ("HEADNECK", "HEADANDNECK", "NECK", "THYROID", "LARYNX", "PAROTID")),
    ("mediastinum", ("CHESTABD", "THORAXABD", "HEART", "CORONARY", "AORTA", "MEDIASTINUM")),
    ("abdomen", ("WHOLEBODY", "ABDOM", "ABDP", "PELVIS", "KIDNEY", "PANCREAS", "COLON")),
    ("liver", ("LIVER",)),
    ("temporal_bone", ("TEMPORALBONE", "IAC", "EAR")),
    ("bone", ("SPINE", "SACRUM", "COCCYX", "SINUS", "MAXILLA", "MANDIBLE", "JAW", "TMJ", "DENTAL")),
    ("bone", ("HIP", "FEMUR", "KNEE", "PATELLA", "LEG", "TIBIA", "ANKLE", "FOOT", "CALCANEUS")),
    ("bone", ("SHOULDER", "CLAVICLE", "HUMERUS", "FOREARM", "ELBOW", "WRIST", "HAND", "FINGER")),
    ("bone", ("EXTREMITY", "STERNUM", "RIB", "SCAPULA", "TOE", "ARM", "UPPERARM")),
    ("soft_tissue", ("ORBIT", "EYE", "FACE")),
    ("brain", ("BRAIN", "HEAD", "SKULL", "PITUITARY", "CIRCLEOFWILLIS")),
    ("chest", ("CHEST", "LUNG", "THORAX", "BRONCHUS")),
)


def window_of_body_part(code: str) -> str | None:
    """The name of the window that shows a part of the body: one of WINDOWS, or "chest" for lung and
    soft tissue together. None where the code is empty or unknown.

    >>> window_of_body_part("HEAD"), window_of_body_part("CHEST"), window_of_body_part("")
    ('brain', 'chest', None)
    """
    text = "".join(letter for letter in code.upper() if letter.isalpha())
    return next((name for name, words in _BODY_PARTS if any(_says(text, w) for w in words)), None)


def _says(text: str, word: str) -> bool:
    return word in text if len(word) > 3 else word == text
