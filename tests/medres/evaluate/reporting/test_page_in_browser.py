"""The page in a real browser: every control is used, nothing fails, nothing is fetched. Skipped
without Chromium.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from medres.evaluate import evaluate

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.usefixtures("few_replicates"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of headless Chromium, spoken to over a pipe (Chrome DevTools Protocol)."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # the browser reads commands from descriptor 3 and answers on 4
        script = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.session, self.events = b"", 0, None, []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            chunk = os.read(self.read, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser went away")
            self.buffer += chunk
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def open(self, path: Path) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.as_uri())
        while (
            self.js("document.readyState") != "complete"
            or self.js("location.href") == "about:blank"
        ):
            pass

    def js(self, expression: str) -> Any:
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self) -> None:
        os.close(self.write)
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.read)


def cohort(n: int = 160, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return pd.DataFrame(
        {
            "image": [f"{seed}-{k}" for k in range(n)],
            "patient": [f"{seed}-{k // 2}" for k in range(n)],
            "label": label,
            "sex": rng.choice(["F", "M"], n),
            "score": 1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * label + 0.7)),
        }
    )


@pytest.fixture(scope="module")
def opened(
    tmp_path_factory, few_replicates
) -> Iterator[tuple[Browser, dict[str, Any], pd.DataFrame]]:
    folder = tmp_path_factory.mktemp("page")
    frame = cohort()
    other = frame.assign(score=1 - frame.score)
    report = evaluate(
        frame,
        tune=cohort(seed=1),
        subgroups=["sex"],
        compare={"</script><b>other": other},
        thresholds={"positive": {"high": 0.8}},
    )
    report.save(folder / "R")
    browser = Browser(folder / "profile")
    browser.open(folder / "R" / "report.html")
    yield browser, report.numbers["findings"]["positive"], frame
    browser.close()


def text(browser: Browser, role: str) -> str:
    return browser.js(f"""document.querySelector('[data-role="{role}"]').textContent""")


def move(browser: Browser, role: str, value: object) -> None:
    browser.js(
        f"""(() => {{ const e = document.querySelector('[data-role="{role}"]'); e.value = "{value}";
        e.dispatchEvent(new Event("input")); }})()"""
    )


def click(browser: Browser, selector: str) -> None:
    browser.js(f"document.querySelector({json.dumps(selector)}).click()")


def test_it_starts_at_the_point_that_was_asked_for(opened) -> None:
    browser, finding, _ = opened
    point = finding["operating_points"][0]
    assert [int(text(browser, k)) for k in ("tp", "fp", "fn", "tn")] == [
        point[k] for k in ("tp", "fp", "fn", "tn")
    ]
    assert text(browser, "badge") == "high (declared)"
    low, high = point["sensitivity"]["ci_low"], point["sensitivity"]["ci_high"]
    assert f"{100 * low:.0f}% to {100 * high:.0f}%" in text(browser, "sensitivity")


def test_the_slider_moves_counts_marks_and_badge(opened) -> None:
    browser, _, frame = opened
    places = """["roc point cx", "recall point cx", "histogram threshold x1",
        "calibration threshold x1", "utility threshold x1"].map(
        (one) => { const [figure, live, key] = one.split(" ");
        const svg = `svg[data-figure="${figure}"]`;
        return document.querySelector(`${svg} [data-live="${live}"]`).getAttribute(key); })"""
    before = browser.js(places)
    for value in (0, 37, 80):
        move(browser, "slider", value)
        threshold = browser.js(
            "JSON.parse(document.getElementById('report-data').textContent)"
            f"[0].views[0].threshold.at(-1 - {value})"
        )
        called = frame.score >= threshold
        assert int(text(browser, "tp")) == int((called & (frame.label == 1)).sum())
        assert int(text(browser, "tn")) == int((~called & (frame.label == 0)).sum())
    assert "not a pre-specified" in text(browser, "badge")
    after = browser.js(places)
    assert [old for old, new in zip(before, after, strict=True) if old == new] == []
    click(browser, '[data-role="reset"][data-point="1"]')
    assert text(browser, "badge") == "default (frozen)"
    click(browser, '[data-role="reset"][data-point="0"]')
    assert text(browser, "badge") == "high (declared)"


def test_prevalence_per_thousand(opened) -> None:
    browser, finding, _ = opened
    move(browser, "prevalence", 100)
    point = finding["operating_points"][0]
    hits = round(100 * point["sensitivity"]["estimate"])
    assert f"100 have the finding: {hits} are " in text(browser, "thousand")
    assert text(browser, "prevalence-value") == "10%"


def test_two_thresholds_leave_an_undecided_share(opened) -> None:
    browser, _, frame = opened
    assert browser.js("""document.querySelector('[data-role="bands"]').hidden""")
    click(browser, '[data-role="two"]')
    move(browser, "second", 10)
    low = browser.js(
        "JSON.parse(document.getElementById('report-data').textContent)[0].views[0].threshold.at(-11)"
    )
    assert f"Ruled out (score < {low:.4g})".rstrip("0") in text(
        browser, "bands"
    ) or "Ruled out" in text(browser, "bands")
    assert f": {int((frame.score < low).sum())}, of which" in text(browser, "bands")
    click(browser, '[data-role="two"]')
    assert browser.js("""document.querySelector('[data-role="bands"]').hidden""")


def test_overlays_and_copy(opened) -> None:
    browser, _, _ = opened
    labels = browser.js(
        """[...document.querySelectorAll('[data-role="overlay"]')].map((b) => b.textContent)"""
    )
    assert labels == ["sex: F", "sex: M", "</script><b>other"]
    for k in range(3):
        click(browser, f'[data-overlay="{k}"]')
    shown = (
        "[...document.querySelectorAll('[data-live^=overlay]')].map((l) => "
        "l.getAttribute('visibility'))"
    )
    assert browser.js(shown) == ["visible"] * 3
    click(browser, '[data-overlay="1"]')
    assert browser.js(shown) == ["visible", "hidden", "visible"]
    click(browser, '[data-role="copy"]')
    browser.js("new Promise((done) => setTimeout(done, 100))")
    assert text(browser, "copied") != ""
    assert "sensitivity" in text(browser, "sentence")


def test_by_image_or_by_patient(opened) -> None:
    browser, finding, frame = opened
    image, patient = finding["operating_points"][0], finding["other_unit"]["operating_points"][0]
    heroes = "[...document.querySelectorAll('.hero[data-hero]')].map((one) => one.hidden)"
    line = """document.querySelector('[data-live="other-unit"]').getAttribute("visibility")"""
    assert browser.js(heroes) == [False, True]
    click(browser, '[data-role="view"][data-view="1"]')
    assert [int(text(browser, k)) for k in ("tp", "fp", "fn", "tn")] == [
        patient[k] for k in ("tp", "fp", "fn", "tn")
    ]
    assert (browser.js(heroes), browser.js(line)) == ([True, False], "visible")
    assert "patients with the finding" in text(browser, "sentence")
    move(browser, "slider", 5)
    threshold = browser.js(
        "JSON.parse(document.getElementById('report-data').textContent)[0].views[1].threshold.at(-6)"
    )
    called = frame.groupby("patient").agg({"score": "max", "label": "max"})
    assert int(text(browser, "fp")) == int(
        ((called.score >= threshold) & (called.label == 0)).sum()
    )
    click(browser, '[data-role="view"][data-view="0"]')
    assert [int(text(browser, k)) for k in ("tp", "fp", "fn", "tn")] == [
        image[k] for k in ("tp", "fp", "fn", "tn")
    ]
    assert (browser.js(heroes), browser.js(line)) == ([False, True], "hidden")


def test_each_figure_downloads_as_svg_png_and_csv(opened) -> None:
    browser, finding, _ = opened
    browser.js(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () "
        "{ window.saved.push([this.download, this.href]); }"
    )
    kinds = "[...document.querySelectorAll('[data-download]')].map((b) => b.dataset.download)"
    assert browser.js(kinds) == ["svg", "png", "csv"] * 5
    browser.js("document.querySelectorAll('[data-download]').forEach((b) => b.click())")
    browser.js("new Promise((done) => setTimeout(done, 500))")
    files = dict(browser.js("window.saved"))
    assert len(files) == 15
    assert all(url.startswith("data:image/png;base64,") for n, url in files.items() if "png" in n)
    curve = unquote(files["label_roc.csv"]).splitlines()
    assert curve[0].endswith(",tp,fp,fn,tn,sensitivity,specificity,ppv,npv,ppcr")
    assert len(curve) == 1 + len(finding["curves"]["counts"]["tp"])
    assert "stroke" in unquote(files["label_roc.svg"])
    assert "net benefit" in unquote(files["label_utility.csv"])


def test_every_control_can_be_used_and_the_keyboard_reaches_it(opened) -> None:
    browser, _, _ = opened
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.js("document.querySelectorAll('button').forEach((one) => one.click())")
    browser.js(
        """document.querySelectorAll('input[type="range"]').forEach((one) => {
        for (const v of [one.min || 0, one.max]) {
        one.value = v; one.dispatchEvent(new Event("input")); } })"""
    )
    unreachable = (
        "[...document.querySelectorAll('button, input:not([disabled]), summary, "
        "a')].filter((e) => e.tabIndex < 0).length"
    )
    assert browser.js(unreachable) == 0
    assert text(browser, "methods-copied") != ""
    browser.js('document.querySelector(\'[data-role="view"][data-view="0"]\').click()')
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = false; })")


def test_it_prints_to_pdf(opened, tmp_path) -> None:
    browser, _, _ = opened
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF-")
    assert len(pdf) > 30_000


def test_controls_have_names_and_nothing_is_wider_than_a_phone(opened) -> None:
    browser, _, _ = opened
    unnamed = browser.js(
        "[...document.querySelectorAll('input, button')].filter((e) => !(e.labels?.length || "
        "e.ariaLabel || e.textContent)).length"
    )
    assert unnamed == 0
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    assert browser.js("document.documentElement.scrollWidth") <= 390
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_paper_shows_what_is_folded_and_no_controls(opened) -> None:
    browser, _, _ = opened
    closed = "document.querySelectorAll('details:not([open])').length"
    before = browser.js(closed)
    assert before > 0
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js(closed) == 0
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js(closed) == before
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.js("getComputedStyle(document.querySelector('.explore')).display") == "none"
    paper = "getComputedStyle(document.querySelector('polyline.paper')).display"
    assert browser.js(paper) == "inline"  # the other model's curve
    browser.call("Emulation.setEmulatedMedia", media="")
    assert browser.js(paper) == "none"


def test_zz_no_error_and_no_request(opened) -> None:
    """Last: whatever the other tests did, the page made no request and no error."""
    browser, _, _ = opened
    browser.js("1")
    methods = [event["method"] for event in browser.events]
    assert "Runtime.exceptionThrown" not in methods
    bad = [
        e["params"]["entry"]["text"]
        for e in browser.events
        if e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
    ]
    assert bad == []
    urls = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e["method"] == "Network.requestWillBeSent"
    ]
    urls = [url for url in urls if not url.startswith("data:image/svg+xml")]  # a PNG is made of it
    assert all(url.startswith("file://") and url.endswith("report.html") for url in urls)
    assert len(urls) == 1
