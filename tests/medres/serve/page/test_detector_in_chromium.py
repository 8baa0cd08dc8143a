"""A trained detector on the page: its boxes lie on the image where the result says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SIDE

import medres
from data_pipelines.ingestion.manifest import Manifest
from medres.serve.database import SENT
from medres.serve.parts import MAKER
from medres.serve.server import Server
from medres.serve.settings import Settings
from medres.serve.spool import Capacity

from ..test_scheduler import wait_for
from ..test_server import LOOPBACK, Running
from .browser import CHROMIUM, DESKTOP, PHONE, Browser

pytestmark = [
    pytest.mark.long,  # trains a detector, starts the server and a browser
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
#: edges of the image and of each box as they are shown, in pixels of the screen
PLACES = """(() => {
  const edges = one => { const b = one.getBoundingClientRect(); return [b.left, b.top, b.width, b.height] };
  return [edges(document.querySelector('.layers img')),
          [...document.querySelectorAll('.boxes rect')].map(edges)]
})()"""  # noqa: E501


class RunningModel(Running):
    """A server with a model file in a process of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.server = Server(
            Settings(
                models=(model,),
                spool=folder / "spool",
                http=LOOPBACK,
                capacity=Capacity(free_bytes=0),
                maker=MAKER,
                fhir=True,
            )
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()


@pytest.fixture(scope="module")
def running(box_work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningModel]:
    run = medres.train(
        box_work, task="detection", model="resnet10", width=8, stem="small", preset="xray-20",
        levels=(3, 4), channels=16, head_depth=1, batch_size=4, augment="none",
        precision="float32", epochs=25, seed=1, out=tmp_path_factory.mktemp("runs") / "run",
    )  # fmt: skip
    with RunningModel(tmp_path_factory.mktemp("server"), run.artefact) as running:
        yield running


def answered(running: RunningModel, work: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The result of an image with boxes above the threshold, and these boxes."""
    for row in Manifest.load(work).table.itertuples():
        data = (Path(row.source) / row.path).read_bytes()
        (result,) = running.post(data, path="/v1/studies?wait=60").body["results"]
        document = wait_for(running.server.spool, result["id"], SENT)
        boxes = document["predictions"][0].get("boxes", [])
        if positive := [box for box in boxes if box["is_positive"]]:
            return document, positive
    raise AssertionError("the detector has found nothing")


def test_boxes_lie_on_the_image_on_a_desktop_and_a_phone(
    running: RunningModel, box_work: Path, tmp_path: Path
) -> None:
    document, boxes = answered(running, box_work)
    assert {one["role"] for one in document["objects"]} == {"report", "overlay"}
    assert running.ask("GET", document["fhir"]).body["resourceType"] == "Bundle"
    with Browser(tmp_path / "profile") as browser:
        for size in (DESKTOP, PHONE):
            browser.open(f"{running.server.http_address}/page/studies/{document['id']}", size)
            browser.wait_for("document.querySelector('.layers img').complete")
            browser.screenshot(tmp_path / f"{size[0]}.png")
            (left, top, width, height), shown = browser.run(PLACES)
            assert browser.run("document.documentElement.scrollWidth") <= size[0]
            expected = sorted(
                [
                    left + box["x_min"] / SIDE * width,
                    top + box["y_min"] / SIDE * height,
                    (box["x_max"] - box["x_min"]) / SIDE * width,
                    (box["y_max"] - box["y_min"]) / SIDE * height,
                ]
                for box in boxes
            )
            for one, there in zip(expected, sorted(shown), strict=True):
                assert there == pytest.approx(one, abs=3)  # of some hundred: the line has a width
            browser.run("document.querySelector('#show-boxes').click()")
            hidden = "getComputedStyle(document.querySelector('.boxes')).display"
            assert browser.run(hidden) == "none"
        assert browser.log == []
