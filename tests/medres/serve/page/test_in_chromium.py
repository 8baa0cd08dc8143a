"""What a person does with the page, in a real Chromium. Long: a browser has to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..test_server import TOKEN, Running
from ..test_spool import image
from .browser import CHROMIUM, DESKTOP, PHONE, Browser
from .test_page import Person, refusal

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
ANSWERED = "document.body.innerText.includes('0.812')"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def person(server: Running, browser: Browser) -> Iterator[Person]:
    browser.log.clear()
    yield Person(server)
    assert browser.log == []  # no violation of the policy, no error of a script, nothing missing


def address(server: Running, path: str = "/") -> str:
    return server.server.http_address + path


def files(folder: Path, *numbers: int, study: str) -> list[Path]:
    paths = [folder / f"IM{number}" for number in numbers]
    for path, number in zip(paths, numbers, strict=True):
        path.write_bytes(image(number, study))
    return paths


def shown_images(browser: Browser) -> list[bool]:
    """Of each picture, whether it is there."""
    browser.run("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    browser.wait_for("[...document.images].every(one => one.complete)")
    return browser.run("[...document.images].map(one => one.naturalWidth > 0)")


def test_a_dropped_file_gets_its_answer(
    person: Person, server: Running, browser: Browser, tmp_path: Path
) -> None:
    browser.open(address(server))
    browser.drop("#upload", *files(tmp_path, 1, study="1.1"))
    browser.wait_for(ANSWERED)
    assert "positive (uncertain)" in browser.text()
    assert "Not a medical device" in browser.text()
    assert shown_images(browser) == [True, True]
    assert "1.1" not in browser.run("location.href")


def test_a_dropped_folder_is_a_study(
    person: Person, server: Running, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "study" / "series").mkdir(parents=True)
    files(tmp_path / "study", 2, study="1.2")
    files(tmp_path / "study" / "series", 3, study="1.2")
    browser.open(address(server))
    browser.drop("#upload", tmp_path / "study")
    browser.wait_for(ANSWERED)
    assert "Study of 2 images" in browser.text()


def test_the_form_works_without_scripts_and_by_keyboard(
    person: Person, server: Running, browser: Browser, tmp_path: Path
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(address(server))
        browser.choose("#files", *files(tmp_path, 4, study="1.4"))
        browser.call("DOM.focus", nodeId=node(browser, "#files"))
        browser.press("Tab")
        browser.press("Enter")
        browser.wait_for(ANSWERED)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def node(browser: Browser, selector: str) -> int:
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    return browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]


def test_every_link_and_button_is_reached_by_tab_and_shows_the_focus(
    person: Person, server: Running, browser: Browser, tmp_path: Path
) -> None:
    for path in ("/page/", person.study(image(5, "1.5")), "/page/models"):
        browser.open(address(server, path))
        count = browser.run(
            "[...document.querySelectorAll('a, button, input:not([type=hidden]), select, summary')]"
            ".filter(one => one.checkVisibility()).length"
        )
        reached: list[Any] = []
        for _ in range(count + 5):
            browser.press("Tab")
            reached.append(
                browser.run(
                    "(() => { const one = document.activeElement;"
                    " return [one.outerHTML.slice(0, 200), getComputedStyle(one).outlineStyle] })()"
                )
            )
        assert len({html for html, _ in reached if not html.startswith("<body")}) >= count
        assert all(style != "none" for html, style in reached if not html.startswith("<body"))


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_no_page_is_wider_than_the_screen(
    person: Person, server: Running, browser: Browser, size: tuple[int, int]
) -> None:
    person.model.answers = [refusal("rotated", "the image appears rotated or flipped")]
    paths = ["", "models", "health", "undelivered", "login"]
    studies = [person.study(image(6 + size[0], f"1.6.{size[0]}"))]
    for path in [*(f"/page/{name}" for name in paths), *studies]:
        browser.open(address(server, path), size)
        width, scrolled = browser.run("[innerWidth, document.documentElement.scrollWidth]")
        assert scrolled <= width == size[0]
        small = browser.run(
            "[...document.querySelectorAll('button, nav a, select, input:not([type=hidden])')]"
            ".filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 40)"
            ".map(one => one.outerHTML)"
        )
        assert small == []


def test_logging_in_lasts_and_scripts_cannot_read_the_cookie(
    browser: Browser, tmp_path: Path
) -> None:
    with Running(tmp_path / "server", token=TOKEN) as running:
        Person(running)
        browser.open(address(running))
        browser.wait_for("location.pathname == '/page/login'")
        browser.type(TOKEN)  # the field has the focus
        browser.press("Enter")
        browser.wait_for("location.pathname == '/page/' && document.readyState == 'complete'")
        assert browser.run("document.cookie") == ""
        browser.drop("#upload", *files(tmp_path, 7, study="1.7"))
        browser.wait_for(ANSWERED)
        browser.run("document.querySelector('header form').requestSubmit()")
        browser.wait_for("location.pathname == '/page/login'")
        browser.open(address(running, "/page/health"))
        browser.wait_for("location.pathname == '/page/login'")
