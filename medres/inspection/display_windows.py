"""Through which window each CT is shown: the one that was asked for, else the one of its body part,
else the one in its file, else one that shows lung and soft tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.dicom.elements import Elements
from data_pipelines.dicom.reader import parse, silence_pydicom
from data_pipelines.errors import DicomError, SpecError
from data_pipelines.kinds import KINDS, UNITS, image_kind
from data_pipelines.pixels.ct_windows import WINDOWS, window_of_body_part
from data_pipelines.pixels.image import Image

_KINDS_BY_UNITS = {kind.units.name: kind for kind in KINDS.values()}


@dataclass(frozen=True)
class Window:
    """center, width: in the units of the image. reason: why this one, for the caption."""

    center: float
    width: float
    reason: str

    @property
    def bounds(self) -> tuple[float, float]:
        return self.center - self.width / 2, self.center + self.width / 2


def parse_window(text: str) -> Window:
    """A window that the user names ("brain") or writes as CENTER,WIDTH ("40,80").

    Raises SpecError (`bad_window`).

    >>> parse_window("brain").bounds
    (0.0, 80.0)
    """
    if text in WINDOWS:
        return Window(*WINDOWS[text], reason=text.replace("_", " "))
    try:
        center, width = map(float, text.split(","))
    except ValueError:
        center, width = np.nan, np.nan
    if not (np.isfinite(center) and np.isfinite(width) and width > 0):
        raise SpecError(
            f"The window is {text!r}: give one of {', '.join(WINDOWS)}, or CENTER,WIDTH in HU with "
            f"a width above 0, such as 40,80.",
            code="bad_window",
        )
    return Window(center, width, "as requested")


def chosen_window(kind: str, body_part: str, requested: Window | None = None) -> Window | None:
    """The window for a row of the manifest; None where neither the user nor the body part says it,
    or the kind needs none.

    >>> chosen_window("ct", "BRAIN")
    Window(center=40.0, width=80.0, reason='brain, by its body part')
    >>> chosen_window("radiograph", "CHEST")
    """
    preview = image_kind(kind).preview_window
    if preview is None:
        return None
    if requested is not None:
        return requested
    name = window_of_body_part(body_part)
    if name is None:
        return None
    center, width = WINDOWS.get(name, preview)
    return Window(center, width, f"{name.replace('_', ' ')}, by its body part")


def window_of_image(image: Image, file: Path | str | None) -> Window | None:
    """The window of an image for which none was chosen: the first usable one in its file, else the
    preview window of its kind; None where its units have bounds, or nothing is known of them.
    """
    kind = _KINDS_BY_UNITS.get(image.units)
    if kind is None or kind.preview_window is None:
        return None
    return _stored_window(file) or Window(
        *kind.preview_window, reason="general: neither the body part nor the file says another"
    )


def to_gray(image: Image, window: Window | None) -> np.ndarray:
    """The whole image as uint8, a color picture with its channels: through the window, else by the
    bounds of its units, else from minimum to maximum.
    """
    values = image.pixels.astype(np.float64)
    low, high = (
        window.bounds
        if window is not None
        else UNITS[image.units].bounds or (float(values.min()), float(values.max()))
    )
    return np.rint(255 * np.clip((values - low) / max(high - low, 1e-12), 0, 1)).astype(np.uint8)


def caption(image: Image, window: Window | None) -> str:
    """How an image is shown, for people."""
    if window is not None:
        suffix = UNITS[image.units].suffix
        return f"window {window.center:g} / {window.width:g}{suffix} ({window.reason})"
    return "display values" if UNITS[image.units].bounds else "minimum to maximum"


def _stored_window(file: Path | str | None) -> Window | None:
    if file is None:
        return None
    try:
        with silence_pydicom():
            elements = Elements(parse(str(file), pixels=False).dataset)
            pairs = zip(
                elements.numbers("WindowCenter") or (),
                elements.numbers("WindowWidth") or (),
                strict=False,
            )
    except DicomError:
        return None
    usable = [pair for pair in pairs if np.isfinite(pair).all() and pair[1] >= 1]
    return Window(*usable[0], reason="as stored in its file") if usable else None
