"""What the doctor of a server finds."""

from __future__ import annotations

import json
from pathlib import Path

from fake_pacs import DicomWebPacs, DimsePacs
from helpers import medres

from medres.serve.delivery.outbox import bury
from medres.serve.spool import Capacity, Spool

from .test_scheduler import job_of
from .test_spool import image


def told(spool: Path, *options: object) -> tuple[int, dict[str, bool]]:
    done = medres("serve", "doctor", "--spool", spool, *options, "--json")
    return done.exit_code, {one["name"]: one["is_ok"] for one in json.loads(done.stdout)}


def test_a_sound_spool_and_a_pacs_that_answers(tmp_path: Path) -> None:
    sound = {"results": True, "spool": True, "space": True}
    assert told(tmp_path / "new") == (0, sound)
    spool = Spool(tmp_path / "spool", Capacity(free_bytes=0))
    sound |= {"audit log": True, "dead letters": True, "PACS": True}
    with DicomWebPacs() as pacs:
        assert told(spool.folder, "--pacs-dicomweb", pacs.url) == (0, sound)
    with DimsePacs() as pacs:
        assert told(spool.folder, "--pacs", f"127.0.0.1:{pacs.port}:PACS") == (0, sound)
    assert told(spool.folder, "--pacs", "127.0.0.1:1:PACS") == (1, sound | {"PACS": False})
    spool.close()


def test_dead_letters_an_altered_log_and_an_open_folder_fail(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", Capacity(free_bytes=0))
    bury(spool, job_of(spool, image(1)), "refused_by_pacs")
    spool.database.execute("UPDATE audit SET fields = '{}' WHERE number = 1")
    spool.folder.chmod(0o755)
    code, checks = told(spool.folder)
    assert code == 1
    assert [name for name, is_ok in checks.items() if not is_ok] == [
        "spool", "audit log", "dead letters",
    ]  # fmt: skip
    spool.close()
