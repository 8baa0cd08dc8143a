"""The page for people: what it shows, what it refuses, and what never leaves it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canaries import CANARIES, encodings, with_canaries
from PIL import Image
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from data_pipelines.pixels.image import read_image
from medres.errors import ServeError
from medres.inference.boxes.box import Box
from medres.serve.database import DEAD, MADE, SENT
from medres.serve.page.routes import POLICY

from ..test_server import TOKEN, Reply, Running
from ..test_spool import dicom, image
from .html_checks import Parsed, require_sound

FORM = "multipart/form-data; boundary=xyz"
AUC = {"estimate": 0.8305, "ci_low": 0.5544, "ci_high": 0.9456, "level": 0.95, "flag": "few"}


def prediction(**more: Any) -> dict[str, Any]:
    return {
        "probabilities": {"nodule": 0.8125},
        "thresholds": {"nodule": 0.5},
        "decisions": {"nodule": True},
        "conformal": {
            "alpha": 0.1,
            "sets": {"nodule": [0, 1]},
            "uncertain": ["nodule"],
            "atypical": [],
        },
        "refused": None,
        "code": None,
        **more,
    }


def refusal(code: str, why: str) -> dict[str, Any]:
    return {"refused": why, "code": code}


def form(csrf: str, *files: tuple[str, bytes]) -> bytes:
    parts = [b'--xyz\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + csrf.encode()]
    parts += [
        b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="'
        + name.encode()
        + b'"\r\nContent-Type: application/octet-stream\r\n\r\n'
        + data
        for name, data in files
    ]
    return b"\r\n".join([*parts, b"--xyz--\r\n"])


class Person:
    """Somebody with a browser: keeps the cookie, and reads pages."""

    def __init__(self, running: Running) -> None:
        self.running, self.cookie = running, ""
        self.model = running.model
        self.model.draws = 0
        self.model.answers = [prediction()]
        self.model.predict = lambda folder, seconds: self.model.answers
        self.model.draw = self._draw

    def _draw(self, folder: Path, seconds: float) -> list[dict[str, Any]]:
        self.model.draws += 1
        png = io.BytesIO()
        Image.new("RGB", (3, 2), (255, 0, 0)).save(png, "PNG")
        data = base64.b64encode(png.getvalue()).decode()
        return [{"prediction": 0, "part": 0, "caption": "saliency", "png": data}]

    def ask(self, method: str, path: str, body: Any = None, kind: str = FORM) -> Reply:
        more = {"Cookie": self.cookie} if self.cookie else {}
        reply = self.running.ask(method, path, body, kind, **more)
        if reply.headers["Set-Cookie"]:
            self.cookie = reply.headers["Set-Cookie"].partition(";")[0]
        return reply

    def see(self, path: str, status: int = 200) -> Parsed:
        reply = self.ask("GET", path)
        assert reply.status == status, reply.body
        page = Parsed(reply.body.decode())
        require_sound(page)
        return page

    def upload(self, *files: tuple[str, bytes], csrf: str | None = None) -> Reply:
        value = self.see("/page/").csrf() if csrf is None else csrf
        return self.ask("POST", "/page/upload", form(value, *files))

    def study(self, data: bytes) -> str:
        """The address of the page of a study that was uploaded and answered."""
        reply = self.upload(("a.dcm", data))
        assert reply.status == 303, reply.body
        address = reply.headers["Location"]
        self.running.ask("GET", f"/v1/results/{address.rpartition('/')[2]}?wait=30")
        return address

    def post(self, path: str, **fields: str) -> Reply:
        body = "&".join(f"{name}={value}" for name, value in fields.items())
        return self.ask("POST", path, body, "application/x-www-form-urlencoded")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with Running(tmp_path_factory.mktemp("page")) as running:
        running.models = folder
        yield running


@pytest.fixture
def person(server: Running) -> Person:
    return Person(server)


def job_of(address: str) -> str:
    return address.rpartition("/")[2]


def test_an_upload_is_complete_at_once_and_its_page_has_the_answer(person: Person) -> None:
    address = person.study(image(1, "3.1"))
    page = person.see(address)
    for text in ("0.812", "0.500", "positive (uncertain)", "negative or positive", "UNSIGNED"):
        assert text in page.text
    assert "has not answered yet" not in page.text
    assert not [one for one in page.all("meta") if one.get("http-equiv")]
    row = person.see("/page/").text
    assert "positive: nodule" in row
    assert "DICOM objects None." in page.text
    document = person.ask("GET", f"{address}/result.json").body
    assert document["predictions"][0]["probabilities"] == {"nodule": 0.8125}


def test_a_refusal_is_told_in_plain_words(person: Person) -> None:
    person.model.answers = [refusal("rotated", "the image appears rotated or flipped")]
    page = person.see(person.study(image(2, "3.2")))
    assert "No answer: refused" in page.text
    assert "The image appears rotated or flipped." in page.text
    assert "Send the image as it was acquired, upright." in page.text
    assert "Saliency" not in page.text


def test_classes_masks_and_several_series(person: Person) -> None:
    person.model.answers = [
        prediction(
            probabilities={"cat": 0.7, "dog": 0.3},
            decisions={"class": "cat"},
            thresholds={},
            conformal={"sets": {"class": ["cat", "dog"]}, "uncertain": ["class"]},
        ),
        {
            "refused": None,
            "code": None,
            "probabilities": {},
            "masks": [
                {
                    "voxels": {"tumor": 40},
                    "volumes": {"tumor": {"ml": 12.3, "ml_low": 9.8, "ml_high": 14.8}},
                }
            ],
        },
        refusal("other_modality", "the modality is not that of the training images"),
    ]
    page = person.see(person.study(image(3, "3.3")))
    assert "Series 1 of 3" in page.text
    assert "cat (uncertain) conformal set: cat or dog" in page.text
    assert "12.30 ml (9.80 to 14.80)" in page.text
    assert "The model was not trained on images such as these." in page.text


def test_boxes_of_a_detector(person: Person) -> None:
    data = image(40, "3.40")
    uid = dcmread(io.BytesIO(data)).SOPInstanceUID
    box = Box("nodule", 0.75, 1, 2, 5, 8, sop_instance_uid=uid)
    boxes = [box, replace(box, score=0.9, spacing_mm=(0.5, 0.25)), replace(box, is_positive=False)]
    answer = {"refused": None, "code": None, "probabilities": {}, "n_images": 1}
    person.model.answers = [answer | {"boxes": [one.as_dict() for one in boxes]}]
    page = person.see(person.study(data))
    assert "nodule 0.900 1.0 × 3.0 mm 1 nodule 0.750 4 × 6 pixels 1" in page.text
    assert "Boxes on an image" in repr(page.all("img"))
    assert "boxes: 2 nodule" in person.see("/page/").text
    person.model.answers = [answer | {"boxes": []}]
    assert "No boxes" in person.see(person.study(image(41, "3.41"))).text


def test_images_are_windowed_in_other_processes(person: Person, tmp_path: Path) -> None:
    data = image(4, "3.4")
    address = person.study(data)
    page = person.see(address)
    (source,) = [one["src"] for one in page.all("img") if "/images/" in one["src"]]
    reply = person.ask("GET", source)
    assert reply.headers["Content-Type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(reply.body)))
    expected = np.rint(255 * read_image(data).pixels)
    np.testing.assert_array_equal(shown, expected)
    assert person.running.server._page._pictures._decoder.isolate
    assert "P1" in page.text  # the patient of this image, for comparison
    assert person.ask("GET", f"{address}/images/2.png").status == 404


def ct(study: str, number: int) -> bytes:
    dataset = dcmread(io.BytesIO(image(number, study)))
    dataset.Modality = "CT"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    for name in ("WindowCenter", "WindowWidth"):
        dataset.pop(name, None)
    return dicom(dataset)


def test_the_images_of_a_ct_have_windows_and_a_way_from_one_to_the_next(person: Person) -> None:
    files = [ct("3.20", number) for number in (20, 21, 22)]
    uids = [dcmread(io.BytesIO(file)).SOPInstanceUID for file in files]
    person.model.answers = [
        prediction(
            images=[{"nodule": p} for p in (0.1, 0.9, 0.2)],
            slices=[[(uid, 0)] for uid in reversed(uids)],  # the order of the positions
        )
    ]
    reply = person.upload(*((f"{n}.dcm", file) for n, file in enumerate(files)))
    address = reply.headers["Location"]
    person.running.ask("GET", f"/v1/results/{job_of(address)}?wait=30")
    page = person.see(address)
    assert "Image 2 of 3" in page.text  # the most probable one
    assert {"?image=1&window=", "?image=3&window="} <= {*page.addresses()}
    assert "lung (-600 / 1500 HU)" in page.text
    for name, (center, width) in {"lung": (-600, 1500), "soft tissue": (40, 400)}.items():
        source = f"{address}/images/1.png?window={name.replace(' ', '+')}"
        shown = np.asarray(Image.open(io.BytesIO(person.ask("GET", source).body)))
        values = (read_image(files[2]).pixels - (center - width / 2)) / width
        np.testing.assert_array_equal(shown, np.rint(255 * np.clip(values, 0, 1)))


def test_what_is_no_image_is_said(person: Person) -> None:
    dataset = dcmread(io.BytesIO(image(5, "3.5")))
    del dataset.PixelData
    page = person.see(person.study(dicom(dataset)))
    assert "This image cannot be shown" in page.text
    assert "no_pixel_data" in page.text


def test_a_drawing_of_the_model_is_made_once(person: Person) -> None:
    address = person.study(image(6, "3.6"))
    page = person.see(address)
    (source,) = {one["src"] for one in page.all("img") if "/drawings/" in one["src"]}
    assert [person.ask("GET", source).status for _ in range(2)] == [200, 200]
    assert person.model.draws == 1
    assert person.ask("GET", f"{address}/drawings/1-0.png").status == 404

    def fails(folder: Path, seconds: float) -> None:
        raise ServeError("the model process ended by itself", code="model_crashed")

    person.model.draw = fails
    address = person.study(image(7, "3.7"))
    reply = person.ask("GET", f"{address}/drawings/0-0.png")
    assert "The model process ended by itself." in Parsed(reply.body.decode()).text


def test_a_later_image_makes_a_revision_that_the_page_tells(person: Person) -> None:
    first = person.study(image(8, "3.8"))
    second = person.study(image(9, "3.8"))
    assert "Later images of this study have come." in person.see(first).text
    assert second in person.see(first).addresses()
    assert "revision 2" in person.see(second).text
    assert first in person.see(second).addresses()


def test_a_study_that_waits_reloads_by_itself(person: Person) -> None:
    several = person.upload(("a", image(30, "3.30")), ("b", image(31, "3.31")))
    assert several.headers["Location"] == "/page/?new=1"
    address = person.study(image(10, "3.10"))
    database = person.running.server.spool.database
    database.execute("UPDATE job SET model = 'none', state = 'ready' WHERE id = ?", job_of(address))
    page = person.see(address)
    assert "The model has not answered yet." in page.text
    for shown in (page, person.see("/page/?new=1")):
        assert [one["content"] for one in shown.all("meta") if one.get("http-equiv")] == ["2"]
    assert not [one for one in person.see("/page/").all("meta") if one.get("http-equiv")]
    database.execute("UPDATE job SET state = 'sent' WHERE id = ?", job_of(address))


def test_one_bad_file_and_nothing_is_stored(person: Person) -> None:
    truncated = image(11, "3.11")[:140]
    reply = person.upload(("<b>good</b>.dcm", image(12, "3.11")), ("bad <i>.dcm", truncated))
    page = Parsed(reply.body.decode())
    require_sound(page)
    assert reply.status == 400
    assert "Nothing was stored" in page.text
    assert "bad <i>.dcm" in page.text
    assert "good" not in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    query = "SELECT 1 FROM study WHERE uid = '3.11'"
    assert person.running.server.spool.database.row(query) is None
    assert "No file was chosen" in Parsed(person.upload().body.decode()).text


def test_files_beside_the_images_are_left_out_and_named(person: Person) -> None:
    files = [("read me.txt", b"text"), ("IM1", image(13, "3.13")), ("DICOMDIR", image(14, "3.13"))]
    reply = person.upload(*files)
    page = Parsed(reply.body.decode())
    require_sound(page)
    assert reply.status == 200
    assert "1 image was taken in" in page.text
    assert "read me.txt" in page.text
    assert "DICOMDIR" in page.text
    # an empty file may be an image that was not copied
    assert person.upload(("IM1", image(13, "3.13")), ("IM2", b"")).status == 400
    assert person.upload(("a.png", b"\x89PNG")).status == 400


def test_forms_of_other_pages_do_nothing(person: Person) -> None:
    for csrf in ("", "0" * 64):
        reply = person.upload(("a.dcm", image(15, "3.15")), csrf=csrf)
        assert reply.status == 400
        assert "bad_form" in Parsed(reply.body.decode()).text
    reply = person.running.ask(
        "POST", "/page/upload", form("", ("a", image(15, "3.15"))), FORM, Origin="http://evil.example"
    )  # fmt: skip
    assert reply.status == 403
    query = "SELECT 1 FROM study WHERE uid = '3.15'"
    assert person.running.server.spool.database.row(query) is None


def test_dead_letters_are_shown_and_sent_again(person: Person) -> None:
    address = person.study(image(16, "3.16"))
    database, job = person.running.server.spool.database, job_of(address)
    database.move(job, DEAD, failure="unreachable")
    page = person.see("/page/undelivered")
    assert "unreachable The PACS does not answer." in page.text
    assert "The objects of this result were not made" in person.see(address).text
    database.execute("INSERT INTO made_object (sop, job, file) VALUES ('9.16', ?, 'x')", job)
    assert "The objects of this result were not delivered" in person.see(address).text
    assert person.post(f"{address}/retry").status == 400
    assert database.value("SELECT state FROM job WHERE id = ?", job) == DEAD
    assert person.post(f"{address}/retry", csrf=page.csrf()).status == 303
    assert database.value("SELECT state FROM job WHERE id = ?", job) in (MADE, SENT)
    assert person.running.server.spool.audit.events()[-1]["event"] in ("retried", "sent")
    assert "There are none." in person.see("/page/undelivered").text
    # neither objects nor a model that could make them
    other = job_of(person.study(image(17, "3.17")))
    database.move(other, DEAD, failure="model_gone", model="gone")
    reply = person.post(f"/page/studies/{other}/retry", csrf=page.csrf())
    assert "model_gone" in Parsed(reply.body.decode()).text
    database.move(other, SENT, failure=None)


def test_models_and_health(person: Person) -> None:
    page = person.see("/page/models")
    assert "m" * 64 in page.text
    assert "UNSIGNED" in page.text
    assert "No report of this model was found." in page.text
    assert "The server takes files in" in person.see("/page/health").text
    assert "There is no such page." in person.see("/page/other", 404).text
    assert person.ask("GET", "/").headers["Location"] == "/page/"


def test_the_policy_allows_nothing_from_elsewhere_and_no_script_in_a_page(person: Person) -> None:
    for path in ("/page/", "/page/page.css", "/page/drop.js", "/page/other", "/page/login"):
        headers = person.ask("GET", path).headers
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    assert "*" not in POLICY


def test_no_identifier_in_addresses_and_file_names_of_an_upload_stay_private(
    person: Person,
) -> None:
    data = dicom(with_canaries(2))
    reply = person.upload(("CANARY-NAME.dcm", data))
    address = reply.headers["Location"]
    addresses = [address]
    for path in ("/page/", address, "/page/undelivered"):
        addresses += person.see(path).addresses()
    bad = person.upload(("CANARY-NAME.dcm", data[:-2] + b"zz"))
    assert "CANARY-NAME.dcm" in bad.body.decode()  # told to the person who sent it, and to no log
    audit = repr(person.running.server.spool.audit.events())
    told = [*addresses, audit, person.running.log.getvalue()]
    assert "other_bytes" in audit
    for canary in (*CANARIES, "CANARY-NAME"):
        for form in encodings(canary):
            assert not any(form in text.encode() for text in told)


def test_text_of_files_and_models_is_escaped(person: Person) -> None:
    dataset = dcmread(io.BytesIO(image(18, "3.18")))
    dataset.PatientName = "<script>alert(1)</script>"
    dataset.StudyDate = "20260131"
    person.model.answers = [prediction(probabilities={"<img src=x onerror=alert(1)>": 0.5})]
    page = person.see(person.study(dicom(dataset)))
    assert "<script>alert(1)</script>" in page.text
    assert "Study date 2026-01-31" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text


def test_people_log_in_with_the_token(tmp_path: Path) -> None:
    with Running(tmp_path, token=TOKEN) as running:
        person = Person(running)
        study = ("", "/result.json", "/images/1.png", "/drawings/0-0.png")
        closed = ["", "models", "health", "undelivered", "x", *(f"studies/x{one}" for one in study)]
        for path in closed:
            reply = person.ask("GET", f"/page/{path}")
            assert (reply.status, reply.headers["Location"]) == (303, "/page/login")
        for path in ("/page/upload", "/page/logout", "/page/studies/x/retry"):
            assert person.ask("POST", path, form("")).headers["Location"] == "/page/login"
        csrf = person.see("/page/login").csrf()
        assert person.post("/page/login", token=TOKEN).status == 400
        wrong = person.post("/page/login", csrf=csrf, token=TOKEN[:-1] + "x")
        assert "This is not the token." in Parsed(wrong.body.decode()).text
        assert (wrong.status, person.cookie) == (401, "")
        reply = person.post("/page/login", csrf=csrf, token=TOKEN)
        cookie = reply.headers["Set-Cookie"]
        for flag in ("HttpOnly", "SameSite=strict", "Path=/page", "Max-Age=28800"):
            assert flag in cookie
        assert "Secure" not in cookie  # http, on loopback
        page = person.see("/page/")
        assert page.csrf() != csrf
        # the cookie is for the page alone
        assert person.ask("GET", "/v1/models").status == 401
        assert person.ask("POST", "/v1/studies", image(1)).status == 401
        assert person.upload(("a.dcm", image(1)), csrf=csrf).status == 400
        assert person.upload(("a.dcm", image(1))).status == 303
        assert person.post("/page/logout", csrf=page.csrf()).headers["Location"] == "/page/login"
        assert person.ask("GET", "/page/").status == 303
        events = [event["event"] for event in running.server.spool.audit.events()]
    assert events.count("logged_in") == 1
    assert events.count("wrong_token") == 3  # one on the page, two of the API


def test_whoever_guesses_the_token_on_the_page_waits(tmp_path: Path) -> None:
    with Running(tmp_path, token=TOKEN) as running:
        person = Person(running)
        csrf = person.see("/page/login").csrf()
        replies = [person.post("/page/login", csrf=csrf, token="x" * 32) for _ in range(6)]
        assert [reply.status for reply in replies] == [401] * 5 + [429]
        assert person.post("/page/login", csrf=csrf, token=TOKEN).status == 429
        assert person.cookie == ""


def test_the_report_beside_the_model_is_believed_if_it_is_of_this_model(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "report").mkdir()
    report = {
        "title": "nodule: test split",
        "analysis_unit": "image",
        "n": {"patients": 20, "units": 120, "images": 120},
        "findings": {
            "positive": {
                "title": "nodule",
                "auc": AUC,
                "operating_points": [{"name": "default", "sensitivity": {**AUC, "flag": None}}],
            }
        },
        "warnings": [{"text": "Only 12 patients."}],
        "provenance": {"model_sha256": "m" * 64, "split": "test"},
    }
    place = tmp_path / "report" / "report.json"
    model = tmp_path / "run" / "model.keras"
    with Running(tmp_path / "server") as running:
        person = Person(running)
        settings = running.server.settings
        object.__setattr__(settings, "models", (model,))
        place.write_text(json.dumps(report))
        address = person.study(image(1))
        text = person.see(address).text
        assert "AUC 0.831 (95% interval 0.554 to 0.946)" in text
        assert "with care: few" in text
        assert "120 images of 20 patients, test split" in text
        assert "while this server answers by study" in text
        assert "Only 12 patients." in person.see("/page/models").text
        report["provenance"]["model_sha256"] = "n" * 64
        place.write_text(json.dumps(report))
        assert "No report of this model was found." in person.see(address).text
        masks = {
            "title": "Segmentation: test split",
            "n_cases": 53,
            "n_patients": 9,
            "findings": {"lung": {"title": "lung", "dice": AUC}, "heart": {"dice": AUC}},
            "provenance": {"model_sha256": "m" * 64},
        }
        place.write_text(json.dumps(masks))
        text = person.see("/page/models").text
        assert "Dice 0.831 (95% interval 0.554 to 0.946)" in text
        assert "53 cases of 9 patients" in text
        place.write_text("{")
        assert "No report of this model was found." in person.see("/page/models").text
