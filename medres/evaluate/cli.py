"""The command line of the evaluation, in its two forms: a scores table, or a model with its WORK
folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import DicomError
from medres.errors import EvaluationError, MedresError
from medres.evaluate.report import DiagnosticReport, evaluate
from medres.evaluate.reporting.narrative import interval
from medres.evaluate.reporting.save import check_target

DESCRIPTION = """\
Evaluate a model and write a diagnostic report: report.html, report.json, tables/*.csv.

  python -m medres.evaluate --scores scores.csv --out REPORT
  python -m medres.evaluate MODEL.keras WORK --split test --out REPORT

scores.csv has one row an image: label and score; or label:<finding> and score:<finding>; or label \
(a class name) and
score:<class>. A score equal to or above the threshold is positive."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m medres.evaluate",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("model", nargs="?", metavar="MODEL.keras", help="a trained model")
    p.add_argument("work", nargs="?", metavar="WORK", help="its WORK folder, after ingest")
    p.add_argument(
        "--split", choices=("train", "tune", "test"), help="the split to score (default: test)"
    )
    p.add_argument("--scores", metavar="TABLE", help="a scores table, CSV or Parquet")
    p.add_argument(
        "--tune",
        metavar="TABLE",
        help="scores of the tuning split: Youden's threshold on it is frozen",
    )
    p.add_argument("--patient", metavar="COLUMN", help="the patient column (default: patient)")
    p.add_argument(
        "--unit", choices=("image", "series", "study", "patient"), help="unit of analysis"
    )
    p.add_argument(
        "--pool",
        choices=("max", "mean", "noisy_or"),
        help="how image scores make a unit's (default: max)",
    )
    p.add_argument(
        "--pool-label", choices=("any",), help="a unit is positive where any of its images is"
    )
    p.add_argument("--subgroup", action="append", default=[], metavar="COLUMN", help="repeatable")
    p.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="TABLE",
        help="another model's scores; repeatable",
    )
    p.add_argument(
        "--readers",
        metavar="TABLE",
        help="people's calls: reader, arm, the unit's id, finding, rating (0 or 1)",
    )
    p.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="X|FINDING:NAME=X",
        help="declared; repeatable",
    )
    p.add_argument(
        "--operating-point", action="append", default=[], metavar="NAME=CRITERION",
        help="found on --tune and frozen, such as screening=sensitivity:0.95; repeatable",
    )  # fmt: skip
    p.add_argument(
        "--prevalence",
        action="append",
        default=[],
        metavar="X|FINDING=X",
        help="for PPV and NPV; repeatable",
    )
    p.add_argument("--level", type=float, default=0.95, help="confidence level (default: 0.95)")
    p.add_argument(
        "--exact",
        action="store_true",
        help="Clopper-Pearson intervals of rates where patients do not repeat",
    )
    p.add_argument(
        "--margin", type=float, help="non-inferiority margin on the AUC, stated beforehand"
    )
    p.add_argument(
        "--design",
        metavar="STUDY.yaml",
        help="YAML or JSON: sampling (cohort, case_control), "
        "prevalence, ordinal, and answers to reporting checklists (the page names each key)",
    )
    p.add_argument("--title", help="heading of the page")
    p.add_argument("--name", help="what the report calls the finding of a table with one finding")
    p.add_argument("--out", required=True, metavar="REPORT", help="a new folder")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    p.add_argument("--json", action="store_true", help="print the headline figures as JSON")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return p


def run(argv: Sequence[str] | None = None) -> int:
    """0 on success, 1 on failure with one line on standard error, 2 on wrong usage."""
    p = parser()
    try:
        given = p.parse_args(argv)
        _check_form(p, given)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        folder = Path(given.out)
        check_target(folder, overwrite=given.overwrite)
        report = _evaluate(given)
        _check_worth(report)
        report.save(folder, overwrite=given.overwrite)
    except (MedresError, DicomError, OSError, MemoryError) as error:
        if given.debug:
            traceback.print_exc()
        print(f"medres evaluate: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("medres evaluate: stopped; nothing was written", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - the process boundary: a fault of ours is one line too, without any data
        if given.debug:
            traceback.print_exc()
        print(
            f"medres evaluate: internal error ({type(error).__name__}); run with --debug and "
            f"report it",
            file=sys.stderr,
        )
        return 1
    _tell(report, folder, as_json=given.json)
    return 0


def _check_form(p: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if given.scores is None and (given.model is None or given.work is None):
        p.error("give either --scores TABLE, or MODEL.keras and WORK")
    if given.scores is not None and given.model is not None:
        p.error("give either --scores TABLE, or MODEL.keras and WORK, not both")
    if given.scores is not None and given.split is not None:
        p.error("--split belongs to the form with MODEL.keras and WORK")
    given.thresholds = [parse_threshold(text, p) for text in given.threshold]
    given.criteria = dict(parse_criterion(text, p) for text in given.operating_point)
    given.prevalences = [parse_prevalence(text, p) for text in given.prevalence]


def parse_threshold(text: str, p: argparse.ArgumentParser) -> float | dict[str, dict[str, float]]:
    """ "0.5" for every finding, or "FINDING:NAME=0.5"."""
    target, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        p.error(f"--threshold {text!r}: give X or FINDING:NAME=X with a number X")
    if not equals:
        return value
    finding, colon, name = target.rpartition(":")
    if not (colon and finding and name):
        p.error(f"--threshold {text!r}: give X or FINDING:NAME=X")
    return {finding: {name: value}}


def parse_criterion(text: str, p: argparse.ArgumentParser) -> tuple[str, str]:
    """NAME and CRITERION of "NAME=CRITERION"."""
    name, equals, wanted = text.partition("=")
    if not (name and equals and wanted):
        p.error(
            f"--operating-point {text!r}: give NAME=CRITERION, such as screening=sensitivity:0.95"
        )
    return name, wanted


def parse_prevalence(text: str, p: argparse.ArgumentParser) -> float | dict[str, float]:
    """ "0.1" for every finding, or "FINDING=0.1"."""
    finding, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        p.error(
            f"--prevalence {text!r}: give X or FINDING=X with a number X; a binary table's "
            f"finding is 'positive'"
        )
    if equals and not finding:
        p.error(
            f"--prevalence {text!r}: give X or FINDING=X; a binary table's finding is 'positive'"
        )
    return {finding: value} if equals else value


def _evaluate(given: argparse.Namespace) -> DiagnosticReport:
    common: dict[str, Any] = {
        "tune": given.tune,
        "patient": given.patient,
        "unit": given.unit,
        "compare": given.compare or None,
        "design": given.design,
        "prevalence": given.prevalences or None,
        "level": given.level,
        "margin": given.margin,
        "exact": given.exact,
        "readers": given.readers,
        "pool": given.pool or "max",
        "pool_label": given.pool_label,
        "title": given.title,
        "name": given.name,
        "operating_points": given.criteria,
    }
    if given.scores is not None:
        return evaluate(
            given.scores, subgroups=given.subgroup, thresholds=given.thresholds or None, **common
        )
    from medres.inference.scoring import score_split

    scores, context = score_split(given.model, given.work, given.split or "test")
    common["unit"] = given.unit or context["unit"]
    common["pool"] = given.pool or context["pool"]
    common["title"] = given.title or context["title"]
    finding = context["provenance"].get("finding")
    common["prevalence"] = [_called_positive(one, finding) for one in given.prevalences] or None
    return evaluate(
        scores,
        subgroups=given.subgroup or context["subgroups"],
        thresholds=[
            *context["frozen"],
            *(_called_positive(one, finding) for one in given.thresholds),
        ],
        provenance=context["provenance"],
        flow=context["flow"],
        pictures=context.get("pictures"),
        **common,
    )


def _called_positive(given: Any, finding: str | None) -> Any:
    """A value for a finding by its name in a scores table: a binary one calls it positive, whatever
    it is to the model.
    """
    return (
        {"positive" if n == finding else n: value for n, value in given.items()}
        if isinstance(given, dict)
        else given
    )


def _check_worth(report: DiagnosticReport) -> None:
    """A table in which no finding holds both classes is an error here: there would be nothing to
    read.
    """
    findings = report.report.findings.values()
    if all(finding.auc.estimate is None for finding in findings):
        finding = next(iter(findings))
        raise EvaluationError(
            f"nothing to evaluate for {finding.title!r}: {finding.auc.why}; give rows of both "
            f"classes"
        )


def _tell(report: DiagnosticReport, folder: Path, *, as_json: bool) -> None:
    findings = report.report.findings
    if as_json:
        result = {
            "out": str(folder),
            "findings": {name: {"auc": f.auc.to_dict()} for name, f in findings.items()},
        }
        print(json.dumps(result, ensure_ascii=False))
        return
    for finding in findings.values():
        auc = finding.auc
        if auc.estimate is None:
            print(f"{finding.title}: no AUC ({auc.why})")
        elif auc.ci_low is None:
            print(f"{finding.title}: AUC {auc.estimate:.3f} ({auc.why})")
        else:
            print(f"{finding.title}: AUC {auc.estimate:.3f} ({interval(auc)}; {auc.method})")
    print(f"report: {folder / 'report.html'}")


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: nothing was written"
    return " ".join(str(error).split()) or type(error).__name__
