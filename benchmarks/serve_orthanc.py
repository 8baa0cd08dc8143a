"""Check `medres serve` beside a real PACS: Orthanc from Debian, and the programs of DCMTK.

    python benchmarks/serve_orthanc.py MODEL.keras FOLDER [--down 60] [--studies 5]

FOLDER holds the DICOM files of one study that the model accepts. storescu sends them to Orthanc,
Orthanc sends them to medres, and medres sends its results back. Then Orthanc is stopped for a
while, further studies (the same images with other UIDs) come, and Orthanc starts again.

Prints one JSON object: what Orthanc holds (found by QIDO-RS, by modality), whether the text of
dsrdump has the numbers of the JSON to the digit, whether `medres predict` gives the same numbers,
how many objects a study that is sent again adds, the seconds until everything was delivered after
Orthanc had been down, whether each study has the same objects there, and how many objects were sent
more than once. Needs: apt install orthanc orthanc-dicomweb dcmtk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import generate_uid

from data_pipelines.dicomweb.client import DicomWeb, parse_endpoint, value_of

TEMPLATE = Path(__file__).parent.parent / "examples" / "orthanc" / "orthanc.json.in"
PLUGINS = Path("/usr/share/orthanc/plugins")
MODALITY = "00080060"
PATIENCE = 600.0  # seconds


def what_is_missing() -> str:
    """Which program is not installed, '' if all are."""
    programs = [name for name in ("Orthanc", "storescu", "dsrdump") if not shutil.which(name)]
    if not (PLUGINS / "libOrthancDicomWeb.so").exists():
        programs.append("orthanc-dicomweb")
    return ", ".join(programs)


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [one.getsockname()[1] for one in sockets]


class Orthanc:
    """Orthanc on loopback with a storage folder that outlives it."""

    def __init__(self, folder: Path, medres_port: int) -> None:
        self.http, self.dicom = free_ports(2)
        (folder / "storage").mkdir(parents=True, exist_ok=True)
        values = {"FOLDER": folder, "PLUGINS": PLUGINS, "HTTP": self.http, "DICOM": self.dicom}
        text = TEMPLATE.read_text()
        for name, value in {**values, "MEDRES": medres_port}.items():
            text = text.replace(f"@{name}@", str(value))
        self._config = folder / "orthanc.json"
        self._config.write_text(text)
        self.url = f"http://127.0.0.1:{self.http}/dicom-web"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["Orthanc", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: self.ask("/system"), "Orthanc")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.http}{path}"
        with urllib.request.urlopen(url, data, timeout=60) as response:
            return json.loads(response.read())

    def send_to_medres(self, study: str) -> None:
        ids = self.ask("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
        images = [
            one
            for series in self.ask(f"/studies/{ids[0]}/series")
            if series["MainDicomTags"].get("Modality") not in ("SR", "OT", "SEG")
            for one in series["Instances"]
        ]
        self.ask("/modalities/medres/store", images)

    def modalities(self, study: str) -> dict[str, int]:
        """Instances of the study by modality, as QIDO-RS says."""
        client = DicomWeb(parse_endpoint(self.url))
        counts: Counter[str] = Counter()
        for series in client.search(f"studies/{study}/series", {}):
            uid = value_of(series, "0020000E")
            instances = list(client.search(f"studies/{study}/series/{uid}/instances", {}))
            counts[value_of(series, MODALITY)] += len(instances)
        client.close()
        return dict(sorted(counts.items()))


def wait_for(condition: Any, what: str) -> Any:
    """The first true value of the condition."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        time.sleep(0.2)
    raise SystemExit(f"{what}: nothing for {PATIENCE:g} seconds")


@contextlib.contextmanager
def medres_server(model: Path, spool: Path, port: int, orthanc: Orthanc) -> Iterator[int]:
    """A running server; its HTTP port."""
    command = [sys.executable, "-m", "medres", "serve", str(model), "--http", "127.0.0.1:0"]
    command += ["--spool", str(spool), "--dicom", f"127.0.0.1:{port}", "--allow-aet", "ORTHANC"]
    command += ["--pacs-dicomweb", orthanc.url, "--quiet-seconds", "3"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with server:
        try:
            for line in server.stdout or ():
                if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    yield int(match[1])
                    break
        finally:
            server.terminate()
            server.wait(60)


def result_of(port: int, study: str, state: str = "sent") -> dict[str, Any]:
    """The result of the study when it has come to this state."""

    def asked() -> Any:
        body = json.dumps({"study_uid": study}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/complete", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            (result,) = json.loads(response.read())["results"]
        return result if result["state"] in (state, "dead") else None

    return wait_for(asked, f"the result of the study ({state})")


def dsrdump(orthanc: Orthanc, study: str, folder: Path) -> str:
    """The text of the report that Orthanc holds."""
    client = DicomWeb(parse_endpoint(orthanc.url))
    for instance in client.instances(study):
        path = folder / "object.dcm"
        with path.open("wb") as file:
            client.retrieve(instance, file)
        if dcmread(path, stop_before_pixels=True).Modality == "SR":
            break
    client.close()
    done = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=True)
    return done.stdout


def numbers_of(text: str, name: str) -> list[str]:
    """The numbers of a concept in the text of dsrdump, as they are written."""
    return re.findall(rf'NUM:\({name}[^)]*\)="([^"]+)"', text)


def is_equal_to_the_digit(written: str, value: float) -> bool:
    """A number of DICOM has at most 16 characters: equal as far as they go."""
    return float(written) == value or (len(written) == 16 and abs(float(written) - value) < 5e-14)


def with_new_uids(files: list[Path], folder: Path) -> str:
    """Copies of the files as another study; its UID."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    for file in files:
        dataset = dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / file.name)
    return str(study)


def storescu(port: int, called: str, folder: Path) -> None:
    command = ["storescu", "-aet", "ORTHANC", "-aec", called, "+sd", "127.0.0.1", str(port)]
    subprocess.run([*command, str(folder)], check=True, capture_output=True)


def deliveries(port: int) -> int:
    """How many objects the server has sent."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        text = response.read().decode()
    match = re.search(r'medres_deliveries_total\{outcome="delivered"\} ([\d.]+)', text)
    return int(float(match[1])) if match else 0


def measure(model: Path, files: list[Path], *, down: float, studies: int = 1) -> dict[str, Any]:
    """See the docstring of the module."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        first = with_new_uids(files, folder / "first")
        (medres_dicom,) = free_ports(1)
        orthanc = Orthanc(folder / "orthanc", medres_dicom)
        orthanc.start()
        stack.callback(orthanc.stop)
        port = stack.enter_context(medres_server(model, folder / "spool", medres_dicom, orthanc))
        storescu(orthanc.dicom, "ORTHANC", folder / "first")
        since = time.monotonic()
        orthanc.send_to_medres(first)
        result = result_of(port, first)
        seconds = time.monotonic() - since
        held = orthanc.modalities(first)
        text = dsrdump(orthanc, first, folder)
        orthanc.send_to_medres(first)
        time.sleep(5)
        again = result_of(port, first)
        added = sum(orthanc.modalities(first).values()) - sum(held.values())
        orthanc.stop()
        late = [with_new_uids(files, folder / f"late{number}") for number in range(studies)]
        for number, study in enumerate(late):
            storescu(medres_dicom, "MEDRES", folder / f"late{number}")
            result_of(port, study, "made")
        time.sleep(down)
        orthanc.start()
        since = time.monotonic()
        results = [result_of(port, study) for study in late]
        delivered = time.monotonic() - since
        held_late = [orthanc.modalities(study) for study in late]
        n_objects = sum(len(one["objects"]) for one in [result, *results])
        return {
            "images": len(files),
            "seconds_from_pacs_to_pacs": round(seconds, 1),
            "held": held,
            "state": result["state"],
            "objects": Counter(one["role"] for one in result["objects"]),
            "report_equals_json": _report_equals(text, result["predictions"]),
            "cli_equals_json": _cli_equals(model, folder / "first", result["predictions"]),
            "revisions": again["revision"],
            "added_by_sending_again": added,
            "down_seconds": down,
            "seconds_until_delivered": round(delivered, 1),
            "studies_while_down": studies,
            "states_after_down": Counter(one["state"] for one in results),
            "held_after_down": held_late[0],
            "all_hold_the_same": all(one == held_late[0] for one in held_late),
            "objects_sent_twice": deliveries(port) - n_objects,
        }


def _report_equals(text: str, predictions: list[dict[str, Any]]) -> bool:
    (prediction,) = predictions
    if "masks" in prediction:
        volumes = [mask["volumes"] for mask in prediction["masks"]]
        expected = {"Volume": [size["ml"] for one in volumes for size in one.values()]}
    elif prediction["refused"] is not None:
        return str(prediction["code"]) in text
    else:
        expected = {
            "Probability": [*prediction["probabilities"].values()],
            "Threshold": [*prediction["thresholds"].values()],
        }
    return all(
        is_equal_to_the_digit(number, value)
        for name, values in expected.items()
        for number, value in zip(numbers_of(text, f"[^)]*{name}"), values, strict=True)
    )


def _cli_equals(model: Path, folder: Path, predictions: list[dict[str, Any]]) -> bool:
    command = [sys.executable, "-m", "medres", "predict", str(model), str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = ("probabilities", "thresholds", "decisions", "conformal", "masks", "refused")
    told = [{name: one.get(name) for name in names} for one in json.loads(done.stdout)]
    return told == [{name: one.get(name) for name in names} for one in predictions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--down", type=float, default=60.0)
    parser.add_argument("--studies", type=int, default=5)
    options = parser.parse_args()
    if missing := what_is_missing():
        raise SystemExit(f"not installed: {missing}")
    files = sorted(path for path in options.folder.rglob("*") if path.is_file())
    result = measure(options.model, files, down=options.down, studies=options.studies)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
