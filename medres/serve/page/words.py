"""What codes and states mean, in plain sentences."""

from __future__ import annotations

import time
from typing import Final

from medres.serve.database import DEAD, MADE, READY, SCORED, SENT
from medres.serve.page.reports import Figure

RECEIVING: Final = "receiving"
STATES: Final = {
    RECEIVING: "images are arriving",
    READY: "waiting for the model",
    SCORED: "answered; its DICOM objects are being made",
    MADE: "answered; its DICOM objects wait to be sent",
    SENT: "done",
    DEAD: "answered, but not delivered",
}
#: what a person can do about a code; a code that is not listed has no advice
_ADVICE: Final = {
    "no_model": "Serve a model that was trained on such images, or send other images.",
    "several_models": "Start a server of its own for each of these models.",
    "no_image": "Serve a model for images such as these, or send other images.",
    "files_expired": "Send the whole study again.",
    "model_gone": "Serve the model again, or look at the next revision of the study.",
    "model_crashed": "Look at the log of the server. If it happens again with this study, a file "
    "of it is probably damaged.",
    "internal": "This is a fault of the server. Look at its log, and report the line.",
    "missing_attribute": "The images lack what such an object must have. Correct them at their "
    "source.",
    "not_made": "The images lack what such an object must have. Correct them at their source.",
    "time_limit": "Send fewer images, or look whether the machine is overloaded.",
    "not_dicom": "Choose DICOM files. Pictures such as PNG or JPEG are not accepted here.",
    "no_file": "Choose at least one DICOM file.",
    "no_uid": "The file says neither which study nor which image it is. A DICOMDIR is such a file: "
    "choose the images instead.",
    "other_patient": "Two patients seem to share a study. Check the PatientID where the images "
    "were made.",
    "other_bytes": "An image that was sent before has changed. An image cannot be replaced.",
    "own_output": "This object was made by medres. Send the original images.",
    "queue_full": "Too many studies are waiting. Try again in a minute.",
    "spool_full": "The disk is full, or the limit of the spool is reached. Try again later, or "
    "give the server more space.",
    "too_large": "Send fewer files at once.",
    "wrong_token": "Copy the token from the file that the server was started with.",
    "rate_limit": "Wait a minute, then try again.",
    "unreachable": "The PACS does not answer. Look whether it runs and whether its address is "
    "right, then try again.",
    "out_of_distribution": "The model was not trained on images such as these. Do not use it for "
    "them.",
    "rotated": "Send the image as it was acquired, upright.",
    "several_series": "Send each series on its own.",
    "name_mismatch": "The files disagree on the name or the birth date of the patient. Check them.",
    "truncated": "The file is incomplete. Copy it again from where it came.",
}


def advice(code: str | None) -> str:
    """What to do about a refusal, '' where there is nothing to say."""
    code = code or ""
    if code.startswith("other_") and code not in _ADVICE:
        return _ADVICE["out_of_distribution"]
    return _ADVICE.get(code, "")


def clock(seconds: float) -> str:
    """A time since 1970 as local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def size(n_bytes: float) -> str:
    """
    >>> size(1536), size(20 << 30)
    ('1.5 KiB', '20.0 GiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} bytes" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def figure(one: Figure) -> str:
    """
    >>> figure(Figure("AUC", 0.831, 0.554, 0.946, 0.95, ""))
    'AUC 0.831 (95% interval 0.554 to 0.946)'
    """
    if one.estimate is None:
        return f"{one.name}: none" + (f" ({one.flag})" if one.flag else "")
    text = f"{one.name} {one.estimate:.3f}"
    if one.low is None or one.high is None:
        return f"{text} (no interval{f': {one.flag}' if one.flag else ''})"
    return f"{text} ({one.level:.0%} interval {one.low:.3f} to {one.high:.3f})"
