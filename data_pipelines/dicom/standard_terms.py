"""Terms of the DICOM standard that may be stored and shown: they are the same for all patients.

A private SOP class, or free text in a code string, could identify a patient or a hospital.
"""

from __future__ import annotations

from pydicom.config import IGNORE
from pydicom.uid import UID

from data_pipelines.dicom.sop_classes import (
    QUANTITATIVE_MODALITIES,
    RADIOGRAPH_MODALITIES,
    SLICE_MODALITIES,
    VIEWS,
    X_RAY_SEQUENCE_MODALITIES,
)

#: stands for a SOP class that the standard does not have
PRIVATE = "private"

#: common terms of BodyPartExamined, from PS3.16 Annex L, table L-1
_BODY_PARTS = """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS
    BUTTOCK CALCANEUS CALF CAROTID CEREBELLUM CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX
    COLON CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE FACE FEMUR FINGER FOOT
    FOREARM GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS IAC ILEUM JAW JAWREGION KIDNEY KNEE
    LEG LIVER LSPINE LSSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NOSE ORBIT
    PANCREAS PATELLA PELVIS PENIS PROSTATE RIB RIBS SCAPULA SHOULDER SINUS SKULL SPINE SPLEEN
    SSPINE STERNUM STOMACH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE
    TRACHEA TSPINE ULNA UTERUS WHOLEBODY WRIST ZYGOMA
"""
#: views of ViewPosition (C.8.11.1, C.8.7.1) that have no code in `VIEWS`
_OTHER_VIEWS = frozenset({"RLD", "LLD", "RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "XCCL", "LMO"})

#: modalities, body parts and views
STANDARD_TERMS = (
    RADIOGRAPH_MODALITIES
    | X_RAY_SEQUENCE_MODALITIES
    | QUANTITATIVE_MODALITIES
    | SLICE_MODALITIES
    | frozenset(_BODY_PARTS.split())
    | frozenset(VIEWS.values())
    | _OTHER_VIEWS
)


def standard_sop_class(uid: str) -> str:
    """The UID of a SOP class of the standard, '' where it is absent, `PRIVATE` for any other.

    >>> standard_sop_class("1.2.840.10008.5.1.4.1.1.7"), standard_sop_class("1.2.3")
    ('1.2.840.10008.5.1.4.1.1.7', 'private')
    """
    return uid if not uid or UID(uid, IGNORE).type == "SOP Class" else PRIVATE


def sop_class_name(uid: str) -> str:
    """The name of a SOP class as text for people, without any text of its own.

    >>> sop_class_name("1.2.840.10008.5.1.4.1.1.7")
    'Secondary Capture Image Storage'
    """
    if not uid:
        return "not stated"
    return "private" if standard_sop_class(uid) == PRIVATE else UID(uid, IGNORE).name
