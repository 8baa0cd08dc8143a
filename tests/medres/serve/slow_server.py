"""A server whose steps take a moment, for test_crashes: python slow_server.py SPOOL URL. The model
counts files and makes one object per job, which goes to the PACS at the URL by STOW-RS.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian

from data_pipelines.dicom.writer import new_dataset
from medres.results.identity import result_uid
from medres.serve.delivery.stow import StowSender
from medres.serve.parts import MadeObject, MakeOrder
from medres.serve.routing import ServedModel
from medres.serve.server import Server
from medres.serve.settings import Address, Peer, Settings
from medres.serve.spool import Capacity

STEP_SECONDS = 0.04
DOMAIN: dict[str, dict] = {"modalities": {}, "body_parts": {}, "views": {}}


class SlowModel:
    facts = ServedModel("m" * 64, "p" * 64, None, {"task": "binary", "domain": DOMAIN})

    def predict(self, folder: Path, seconds: float) -> list[dict[str, Any]]:
        time.sleep(STEP_SECONDS)
        n_files = len(list(folder.iterdir()))
        return [{"probabilities": {"n": n_files}, "refused": None, "code": None}]

    def make(self, order: MakeOrder, seconds: float) -> list[MadeObject]:
        time.sleep(STEP_SECONDS)
        out, sop = Path(order["out"]), result_uid(order["key"], "report")
        out.mkdir(exist_ok=True)
        dataset = new_dataset(
            "CR", ExplicitVRLittleEndian, patient_id="P1", patient="P", study="1.2", series="1.3",
            sop=sop,
        )  # fmt: skip
        dataset.save_as(out / "0.dcm", enforce_file_format=True)
        return [MadeObject(sop=sop, file="0.dcm", role="report")]

    def close(self) -> None:
        pass


def main(spool: Path, url: str) -> None:
    deliver = StowSender(url)

    def send(path: Path) -> None:
        time.sleep(STEP_SECONDS)
        deliver(path)
        time.sleep(STEP_SECONDS)

    settings = Settings(
        models=(),
        spool=spool,
        http=Address("127.0.0.1", 0),
        dicom=Address("127.0.0.1", 0),
        peers=(Peer("PACS", ""),),
        quiet_seconds=0.3,
        requests_per_second=1e6,
        capacity=Capacity(studies=10_000, free_bytes=0),
        maker="slow",
    )
    server = Server(settings, models=[SlowModel()], send=send)
    server.handle_signals()
    print(server.http_address, server.dicom_address, flush=True)
    server.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
