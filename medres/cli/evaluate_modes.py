"""What `medres evaluate` evaluates, and which options each of these takes: an option that would
have no effect is wrong usage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import typer

from medres.cli.console import report

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


class TaskReport(NamedTuple):
    """How the report of a task is made and printed. evaluator: the function that evaluates a model
    on a split of a work folder, imported when it is needed. keys: figures of each class that --json
    prints. lines: what is printed for people.
    """

    evaluator: Callable[[], Callable[..., Any]]
    keys: tuple[str, ...]
    lines: Callable[[Any], list[str]]

    def of_model(
        self,
        model: Path,
        work: Path,
        split: str,
        out: Path,
        *,
        overwrite: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        """Write the report of a model on a split of its work folder, and print it."""
        from medres.evaluate.reporting.save import check_target
        from medres.progress import Bars

        check_target(out, overwrite=overwrite)
        given = {name: value for name, value in options.items() if value is not None}
        found = self.evaluator()(model, work, split, progress=Bars(), **given)
        self.write(found, out, overwrite=overwrite, as_json=as_json)

    def write(self, found: Any, out: Path, *, overwrite: bool, as_json: bool) -> None:
        """Save a report and print it."""
        found.save(out, overwrite=overwrite)
        result = {
            "out": str(out),
            "findings": {
                name: {key: finding[key] for key in self.keys}
                for name, finding in found.numbers["findings"].items()
            },
            "comparisons": found.numbers["comparisons"],
        }
        report(result, as_json, [*self.lines(found), f"report: {out / 'report.html'}"])
