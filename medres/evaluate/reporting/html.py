"""The page of a report: one self-contained HTML file that requests nothing from the network. It
displays numbers and computes none.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medres.evaluate.reporting import html_figures
from medres.evaluate.reporting.narrative import UNIT_PLURAL, interval, limits, percent


def page(numbers: dict[str, Any], pictures: dict[str, dict[str, str]] | None = None) -> str:
    """The self-contained page, with a content security policy that allows only its own style and
    script.

    pictures: data URIs of the cases shown under “Largest errors”, by finding and hashed ID.
    """
    css, script = _asset("page.css"), _asset("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "pct": _pct,
        "p": _p,
        "ci": limits,
        "counts": _counts,
        "interval": interval,
        "ci_pct": _ci_pct,
        "num": _num,
    }
    template = environment.from_string(_asset("page.html.j2"))
    return template.render(
        r=numbers,
        css=Markup(css),
        script=Markup(script),
        pictures=pictures or {},
        policy=_policy(css, script),
        data=_payload(numbers),
        plural=UNIT_PLURAL[numbers["analysis_unit"]],
        plurals=UNIT_PLURAL,
        overlays={
            name: _overlays(name, finding, numbers) for name, finding in numbers["findings"].items()
        },
        drawn={name: _figures(name, finding) for name, finding in numbers["findings"].items()},
        toggled=[name for name, finding in numbers["findings"].items() if _has_other_unit(finding)],
        overview=_overview(numbers),
        subgroups={n: _subgroup_forest(n, f) for n, f in numbers["findings"].items()},
    )


def embedded(numbers: dict[str, Any], pictures: dict[str, dict[str, str]] | None = None) -> str:
    """The page in an iframe, for a notebook: its style does not affect the notebook."""
    text = escape(page(numbers, pictures))
    return f'<iframe sandbox="allow-scripts" width="100%" height="900" srcdoc="{text}"></iframe>'


def _asset(name: str) -> str:
    return (resources.files("medres.evaluate.reporting") / "templates" / name).read_text(
        encoding="utf-8"
    )


def _policy(css: str, script: str) -> str:
    """The content security policy: nothing is fetched, and only this style and this script, by
    their hashes, are active.
    """
    style, code = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{code}'; img-src "
        f"data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _payload(numbers: dict[str, Any]) -> Markup:
    """The data for the script of the page, as JSON that cannot close its HTML element."""
    data = [_explored(name, finding, numbers) for name, finding in numbers["findings"].items()]
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _explored(name: str, finding: dict[str, Any], numbers: dict[str, Any]) -> dict[str, Any]:
    prevalence = (
        finding["decision_curve"]["prevalence"] if finding["decision_curve"]["model"] else None
    )
    common = {"probability": finding["brier"]["estimate"] is not None}
    views = [_view(finding, numbers["analysis_unit"]) | common | {"prevalence": prevalence}]
    if _has_other_unit(finding):
        other = finding["other_unit"]
        stated = (numbers["design"]["prevalence"] or {}).get(name)
        share = stated if stated is not None or not other["n"] else other["n_positive"] / other["n"]
        views.append(
            _view(other, other["unit"])
            | common
            | {"prevalence": None if prevalence is None else share}
        )
    return {"name": name, "views": views, "overlays": _overlays(name, finding, numbers)}


def _has_other_unit(finding: dict[str, Any]) -> bool:
    """Whether the page can switch between two units of analysis."""
    known = finding["auc"]["estimate"] is not None and "curves" in finding
    return (
        known and "other_unit" in finding and finding["other_unit"]["auc"]["estimate"] is not None
    )


def _view(shown: dict[str, Any], unit: str) -> dict[str, Any]:
    """The data of a finding at one unit of analysis for the threshold explorer."""
    curves = shown.get("curves", {"counts": {"threshold": [], "tp": [], "fp": []}, "wilson": {}})
    points = [
        {k: p[k] for k in ("name", "origin", "threshold", "tp", "fp")}
        for p in shown["operating_points"]
    ]
    return curves["counts"] | curves["wilson"] | {
        "positive": shown["n_positive"], "negative": shown["n"] - shown["n_positive"],
        "unit": unit, "units": UNIT_PLURAL[unit], "points": points,
    }  # fmt: skip


def _overlays(name: str, finding: dict[str, Any], numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """Curves that a button overlays on the ROC curve: subgroups and other models."""
    out = [
        {"label": f"{row['column']}: {row['level']}", "positive": row["n_positive"], "n": row["n"]}
        | row["counts"]
        for row in finding["subgroups"]
        if "counts" in row
    ]
    out += [
        {"label": row["b"], "positive": row["n_positive"], "n": row["n_common"]} | row["b_counts"]
        for row in numbers["comparisons"]
        if row["finding"] == name and "b_counts" in row
    ]
    return [
        one | {"negative": one["n"] - one["positive"]}
        for one in out
        if 0 < one["positive"] < one["n"]
    ]


def _figures(name: str, finding: dict[str, Any]) -> list[dict[str, Any]]:
    curves = finding.get("curves")
    if curves is None or finding["auc"]["estimate"] is None:
        return []
    roc_note = "Points: thresholds, with confidence intervals." + (
        " Triangles: human readers." if finding.get("readers") else ""
    )
    negative_up = (
        "Bars upward: units with the finding; bars downward: units without it; each as a share of "
        "its class. Vertical lines: thresholds."
    )
    out = [
        {"title": "ROC curve", "svg": html_figures.roc(name, finding), "note": roc_note},
        {
            "title": "Distribution of scores",
            "svg": html_figures.histogram(name, finding),
            "note": negative_up,
        },
    ]
    if finding["average_precision"]["estimate"] is not None:
        note = "Step curve without interpolation. Dashed line: prevalence (chance level)."
        out.append(
            {
                "title": "Precision-recall curve",
                "svg": html_figures.precision_recall(name, finding),
                "note": note,
            }
        )
    if "reliability" in curves:
        note = (
            "On the diagonal, predicted probability and observed frequency agree. The bins hold "
            "approximately equal numbers."
        )
        out.append(
            {"title": "Calibration", "svg": html_figures.calibration(name, finding), "note": note}
        )
    if finding["decision_curve"]["model"] is not None:
        note = (
            "Net benefit of the model per unit, with its confidence interval; dashed line: treat "
            "all. Higher is better. The threshold probability is a risk as predicted by the model."
        )
        out.append(
            {
                "title": "Decision curve",
                "svg": html_figures.decision_curve(name, finding),
                "note": note,
            }
        )
    return [one | {"svg": Markup(one["svg"])} for one in out]


def _overview(numbers: dict[str, Any]) -> Markup | None:
    rows = [
        {"label": name, "auc": finding["auc"], "note": finding["auc"].get("why", "")}
        for name, finding in numbers["findings"].items()
    ]
    if len(rows) < 2:
        return None
    if numbers["macro"]["auc"]["estimate"] is not None:
        label = f"mean of {len(numbers['macro']['findings'])}"
        rows.append({"label": label, "auc": numbers["macro"]["auc"], "note": ""})
    return _forest("AUC of each finding", rows)


def _subgroup_forest(name: str, finding: dict[str, Any]) -> Markup | None:
    rows = []
    for row in finding["subgroups"]:
        label = (
            f"{row['column']}: {row['level']}  ({row['n_positive_patients']} / "
            f"{row['n_negative_patients']})"
        )
        rows.append({"label": label, "auc": row.get("auc"), "note": "too few patients"})
    return _forest(f"AUC of {name} by subgroup", rows) if rows else None


def _forest(name: str, rows: list[dict[str, Any]]) -> Markup:
    """Drawn twice, for a wide and a narrow screen; the style sheet shows one of them."""
    low = _left(rows)
    return Markup(
        html_figures.forest(name, rows, low) + html_figures.forest_narrow(name, rows, low)
    )


def _left(rows: list[dict[str, Any]]) -> float:
    lows = [row["auc"]["ci_low"] for row in rows if row["auc"] and row["auc"]["ci_low"] is not None]
    return max(0.0, min(0.4, int(min(lows, default=0.4) * 10) / 10))


def _pct(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _num(value: Any, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}".replace(",", " ")


def _counts(e: dict[str, Any]) -> str:
    """Numerator and denominator of a proportion, else the number of units."""
    if isinstance(e.get("numerator"), int) and isinstance(e.get("denominator"), int):
        return f"{_num(e['numerator'])} / {_num(e['denominator'])}"
    return _num(e["n"]) if "n" in e else ""


def _ci_pct(e: dict[str, Any]) -> str:
    return (
        e.get("why", "")
        if e["ci_low"] is None
        else f"{percent(e['ci_low'])} to {percent(e['ci_high'])}"
    )
