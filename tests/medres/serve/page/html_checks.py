"""What an HTML parser sees of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "img", "br", "rect", "line"}


class Parsed(HTMLParser):
    """Tags and attributes in their order, and the text. Raises where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.scripts.append(data)
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def addresses(self) -> list[str]:
        return [
            value
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in ("href", "src", "action") and value
        ]

    def csrf(self) -> str:
        return next(one["value"] for one in self.all("input") if one.get("name") == "csrf")


def require_sound(page: Parsed) -> None:
    """What holds on every page: no script or style within it, names for everything that a person
    can use, a field against forged forms, and what this software is not.
    """
    assert page.scripts == []
    for tag, attributes in page.tags:
        handlers = [name for name in attributes if name.startswith("on") or name == "style"]
        assert handlers == [], (tag, handlers)
        assert tag not in ("style", "iframe", "object", "base")
    assert all(script["src"].startswith("/page/") for script in page.all("script"))
    assert all(image["alt"] for image in page.all("img"))
    labels = {one.get("for") for one in page.all("label")}
    for field in page.all("input"):
        if field.get("type") not in ("hidden", "number") and "hidden" not in field:
            assert field["id"] in labels
    for form in page.all("form"):
        assert form.get("method") in ("post", "get")
    posts = [form for form in page.all("form") if form["method"] == "post"]
    assert [one.get("name") for one in page.all("input")].count("csrf") == len(posts)
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"
    assert page.text.count("Not a medical device") >= 2
    assert all(address.startswith(("/page", "?", "#")) for address in page.addresses())
