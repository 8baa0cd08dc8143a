"""What `medres evaluate` evaluates, and which options each of these takes: an option that would
have no effect is wrong usage.
"""

from __future__ import annotations

from dataclasses import dataclass

import typer

ALWAYS = frozenset({"out", "level", "title", "overwrite", "as_json", "debug"})


@dataclass(frozen=True)
class Mode:
    """needs: how a person chooses it. own: options of this mode alone. takes: those that it shares
    with others.
    """

    title: str
    needs: str
    own: frozenset[str]
    takes: frozenset[str] = frozenset()


READERS = Mode(
    "a reader study",
    "--readers without --scores or a model",
    frozenset(
        {
            *("lesions", "figure", "analysis", "covariance", "method", "standalone", "positive"),
            *("effect", "pair"),
        }
    ),
    frozenset({"readers", "margin", "threshold", "name"}),
)
MASKS = Mode(
    "segmentations",
    "--masks and --reference",
    frozenset({"masks", "classes", "tolerance_mm", "spacing", "convention", "hit_iou"}),
    frozenset({"reference", "patients", "images", "subgroup", "compare", "design"}),
)
BOXES = Mode(
    "detections",
    "--boxes and --reference",
    frozenset({"boxes", "tune_reference", "hit", "fp_per_image"}),
    frozenset(
        {"reference", "patients", "images", "subgroup", "compare", "tune", "threshold", "unit"}
    ),
)
SEGMENTER = Mode(
    "a segmentation model",
    "MODEL and WORK",
    frozenset(),
    frozenset(
        {
            "model",
            "work",
            "split",
            "compare",
            "subgroup",
            "tolerance_mm",
            "convention",
            "hit_iou",
            "design",
        }
    ),
)
DETECTOR = Mode(
    "a detection model",
    "MODEL and WORK",
    frozenset(),
    frozenset({"model", "work", "split", "hit", "unit", "subgroup"}),
)
SCORES = Mode("scores or a model", "--scores, or MODEL and WORK", frozenset())
MODES = (READERS, MASKS, BOXES)
SHARED_BY_FOLDERS = (MASKS.takes & BOXES.takes) - {"subgroup", "compare"}


def check_options(context: typer.Context, mode: Mode) -> None:
    """Raises BadParameter for an option on the command line that `mode` does not take."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in ALWAYS:
            continue
        if not _takes(mode, name):
            option = "--" + name.replace("_", "-")
            others = [other for other in MODES if name in other.own]
            hint = f": it is for {others[0].title} ({others[0].needs})" if others else ""
            raise typer.BadParameter(
                f"{option} has no meaning for {mode.title} ({mode.needs}){hint}"
            )


def _takes(mode: Mode, name: str) -> bool:
    if mode is SCORES:
        return name not in SHARED_BY_FOLDERS and not any(name in other.own for other in MODES)
    return name in mode.own | mode.takes
