"""The windows in which images in HU are shown."""

from __future__ import annotations

from medres.results.drawing import SOFT_TISSUE
from medres.serve.page.images import Window
from medres.serve.routing import ServedModel

_WINDOWS: dict[str, Window] = {
    "soft tissue": SOFT_TISSUE,
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
}


def windows_of(model: ServedModel | None) -> dict[str, Window]:
    """Name -> window, the default first: those that the model looks through, if it has some."""
    own = (model.card.get("windows") if model else None) or []
    named = {f"model {n}": (float(w[0]), float(w[1])) for n, w in enumerate(own, start=1)}
    others = {name: window for name, window in _WINDOWS.items() if window not in named.values()}
    return named | others


def window_named(name: str | None, model: ServedModel | None) -> Window:
    """The default one for a name that is not known."""
    windows = windows_of(model)
    return (_WINDOWS | windows).get(name or "", next(iter(windows.values())))
