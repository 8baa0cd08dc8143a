from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate
from medres.evaluate.reporting.html import embedded

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}'

pytestmark = pytest.mark.usefixtures("few_replicates")


class Page(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))


def frame(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "image": np.arange(n),
            "patient": np.arange(n) // 2,
            "label": label,
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - label)),
            "site": np.where(np.arange(n) % 4 < 2, "a", "b"),
        }
    )


def test_the_page_holds_the_headline_and_the_cross_table() -> None:
    report = evaluate(frame(), thresholds={"positive": {"rule": 0.6}})
    page, finding = report.to_html(), report.numbers["findings"]["positive"]
    point = finding["operating_points"][0]
    assert f'<div class="figure-number">{finding["auc"]["estimate"]:.3f}</div>' in page
    for key in ("tp", "fp", "fn", "tn"):
        assert f'<span class="cell">{point[key]}</span>' in page
    assert finding["summary"].split(".")[0].replace("'", "&#39;") in page
    assert "Not a medical device" in page
    assert report.numbers["methods"][:80] in page


def test_an_interval_to_be_read_with_care_says_so_beside_its_figure() -> None:
    """Likelihood ratios and the calibration slope of very unequal patients."""
    sizes = np.maximum(1, np.round(20 / np.tile(np.arange(1, 101), 2))).astype(int)
    patient = np.repeat(np.arange(200), sizes)
    label = (patient < 100).astype(int)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image": np.arange(patient.size), "patient": patient, "label": label})
    table["score"] = 1 / (1 + np.exp(-rng.normal(size=patient.size) - label))
    rows = _rows(evaluate(table, thresholds={"positive": {"rule": 0.6}}).to_html())
    flagged = {name for name, cells in rows.items() if "very unequal patients" in cells}
    assert flagged == {"LR+ at “rule”", "LR− at “rule”", "Calibration slope"}
    assert not any("very unequal" in row for row in _rows(evaluate(frame()).to_html()).values())
    few = _rows(evaluate(table[(patient % 100) < 12]).to_html())
    assert "fewer than 10 effective patients" in few["AUC, logit"]


def _rows(page: str) -> dict[str, str]:
    """The rows of “All estimates”: measure -> the rest."""
    table = page.split("All estimates</summary>")[1].split("</table>")[0]
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    return dict(found)


def test_nothing_is_requested_and_the_policy_names_the_style_by_hash() -> None:
    page = evaluate(frame(), subgroups=["site"], compare=frame()).to_html()
    parsed = Page(page)
    for tag, attrs in parsed.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
        assert not {"src", "srcset", "style", "action"} & set(attrs)
        assert not any(name.startswith("on") for name in attrs)
        assert attrs.get("href", "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}
    (policy,) = [
        a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert [
        word
        for word in ("eval(", "innerHTML", "fetch(", "XMLHttpRequest", "import(")
        if word in script
    ] == []


def evil_page(where: str) -> str:
    base = frame()
    if where == "finding":
        many = base.assign(
            **{f"label:{EVIL}": base.label, f"score:{EVIL}": base.score, "label:ok": base.label}
        )
        many = many.assign(**{"score:ok": base.score}).drop(columns=["label", "score"])
        return evaluate(many, thresholds={EVIL: {EVIL: 0.5}}).to_html()
    if where == "class":
        classes = {
            "label": np.where(base.label == 1, EVIL, "b"),
            f"score:{EVIL}": base.score,
            "score:b": 1 - base.score,
        }
        return evaluate(pd.DataFrame(classes)).to_html()
    if where == "subgroup":
        return evaluate(
            base.assign(**{EVIL: np.where(base.site == "a", EVIL, "b")}), subgroups=[EVIL]
        ).to_html()
    if where == "model":
        return evaluate(base, compare={EVIL: base.assign(score=1 - base.score)}).to_html()
    if where == "title":
        return evaluate(base, title=EVIL, design={"setting": EVIL, "intended_use": EVIL}).to_html()
    return evaluate(
        base, flow={"given": 1, "reasons": {EVIL: 1}}, provenance={EVIL: {EVIL: EVIL}}
    ).to_html()


@pytest.mark.parametrize("where", ["finding", "class", "subgroup", "model", "title", "flow"])
def test_text_from_the_table_stays_text(where: str) -> None:
    page = evil_page(where)
    parsed = Page(page)
    assert "alert(1)" in page, where
    scripts = [attrs for tag, attrs in parsed.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "report-data"}, {}]
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert not [attrs for _, attrs in parsed.tags if "onerror" in attrs]
    assert "{{7*7}}" in page
    assert ">49<" not in page


def test_reports_without_a_curve_still_make_a_page() -> None:
    for data in (
        {"label": [0, 0, 0], "score": [0.1, 0.2, 0.3]},
        {"label": [-1, None], "score": [0.1, 0.2]},
        {"label": [0, 1], "score": [-np.inf, np.inf]},
    ):
        assert "Diagnostic evaluation" in evaluate(pd.DataFrame(data)).to_html()


def test_in_a_notebook_the_page_is_framed_and_escaped() -> None:
    report = evaluate(frame())
    shown = report._repr_html_()
    assert shown == embedded(report.report)
    # without allow-downloads the browser ignores the buttons that save a figure
    assert shown.startswith('<iframe sandbox="allow-scripts allow-downloads" ')
    assert "<style>" not in shown


def test_a_page_of_many_findings_stays_small() -> None:
    rng, n = np.random.default_rng(0), 3000
    columns = {}
    for k in range(14):
        label = rng.integers(0, 2, n)
        columns |= {
            f"label:f{k}": label,
            f"score:f{k}": 1 / (1 + np.exp(-rng.normal(size=n) - label)),
        }
    assert len(evaluate(pd.DataFrame(columns)).to_html()) < 3_000_000
