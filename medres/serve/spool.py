"""The spool: every file is on the disk, with its row in the database, before it is acknowledged.

spool/ (mode 0700)   spool.db   pseudonym.key   lock
    incoming/        files that are being received; emptied at the start
    files/           received files, under random names
    work/            the files of a study while a model reads them; emptied at the start
    objects/<job>/   DICOM objects made of a result
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, NamedTuple

from data_pipelines.errors import CodedError
from data_pipelines.pseudonyms import KEY_NAME, PseudonymKey, find_key
from data_pipelines.runtime.atomic_files import sync_folder, write_atomic
from medres.errors import ServeError
from medres.serve.audit import AuditLog
from medres.serve.database import READY, Database
from medres.serve.instances import Instance, own_output, read_instance

UNFINISHED = ".new"  # the end of the name of a folder of objects that is being written
#: refusals that end by themselves: the sender should try again
TEMPORARY = frozenset({"queue_full", "spool_full"})


class Capacity(NamedTuple):
    """The limits of the spool. studies: int, that wait to be read. n_bytes: int, of received files.
    free_bytes: int, that the file system keeps free.
    """

    studies: int = 256
    n_bytes: int = 20 << 30
    free_bytes: int = 1 << 30


@dataclass(frozen=True)
class Receipt:
    """What became of one file. code: None if it is held, else why it was refused. is_new: whether
    these bytes were not held before. `repr` hides the UIDs.
    """

    code: str | None = None
    message: str = ""
    is_new: bool = False
    sop: str = field(default="", repr=False)
    sop_class: str = field(default="", repr=False)
    study: str = field(default="", repr=False)


class Spool:
    """The folder, its database, its key and its audit log. One process at a time."""

    def __init__(self, folder: Path, capacity: Capacity | None = None) -> None:
        """Raises ServeError: spool_in_use, spool_open_to_others (mode not 0700)."""
        self.folder, self.capacity = Path(folder), capacity or Capacity()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(self.folder)
        self._lock_file = _locked(self.folder / "lock")
        for name in ("incoming", "files", "work", "models", "objects"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        self.key: PseudonymKey = _key_of(self.folder)
        self.database = Database(self.folder / "spool.db")
        self.audit = AuditLog(self.database, self.key.secret)
        self._accepting = threading.Lock()
        self.recover()

    def close(self) -> None:
        self.database.close()
        self._lock_file.close()

    def recover(self) -> None:
        """After a crash: files without a row were not acknowledged and are removed; a row without
        its file is an event, and the image is taken when it is sent again; the quiet time of open
        studies begins again, since the server could not receive meanwhile.
        """
        for name in ("incoming", "work", "models"):
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir(mode=0o700)
        for folder in (self.folder / "objects").glob(f"*{UNFINISHED}"):
            shutil.rmtree(folder)
        rows = self.database.rows("SELECT file FROM instance WHERE file != ''")
        held = {row["file"] for row in rows}
        present = {path.name for path in (self.folder / "files").iterdir()}
        for name in present - held:
            (self.folder / "files" / name).unlink()
        with self.database.transaction():
            for name in held - present:
                self.database.execute("UPDATE instance SET file = '' WHERE file = ?", name)
                self.audit.add("file_missing", file=name)
        self.database.execute("UPDATE study SET touched = ? WHERE is_open", time.time())

    @contextlib.contextmanager
    def incoming(self) -> Iterator[IncomingFiles]:
        """Files being received. What is not accepted by the end of the block is removed."""
        files = IncomingFiles(self)
        try:
            yield files
        finally:
            files.discard()

    def new_model_folder(self) -> Path:
        folder = self.folder / "models" / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        return folder

    def require_space(self, n_bytes: int) -> None:
        """Raises ServeError (spool_full) if the limits do not allow so many bytes more."""
        held = self.database.value("SELECT total(bytes) FROM instance WHERE file != ''")
        free = shutil.disk_usage(self.folder).free
        if held + n_bytes > self.capacity.n_bytes or free - n_bytes < self.capacity.free_bytes:
            raise spool_full()

    def accept(
        self, paths: Sequence[Path], *, source: str, is_complete: bool = False, whole: bool = False
    ) -> list[Receipt]:
        """Take received files in; when this returns, every file without a code is safe.

        paths: files in incoming/. source: for the audit log, such as 'http'. is_complete: their
        studies are complete now. whole: if one file is refused, none is held.

        Codes: those of `read_instance`; other_bytes (the SOP Instance UID is held with other
        bytes), other_patient (the study is held for another patient), queue_full, spool_full.
        """
        instances = [_read_or_refuse(path) for path in paths]
        with self._accepting:
            receipts = self._receipts(instances, paths, is_complete, whole)
        self._audit_refusals(receipts, source)
        return receipts

    def _receipts(
        self,
        instances: Sequence[Instance | Receipt],
        paths: Sequence[Path],
        is_complete: bool,
        whole: bool,
    ) -> list[Receipt]:
        moved: list[Path] = []
        try:
            with self.database.transaction():
                receipts = [
                    item if isinstance(item, Receipt) else self._receive(item, path, moved)
                    for item, path in zip(instances, paths, strict=True)
                ]
                if whole and any(receipt.code for receipt in receipts):
                    raise _RefusedTogether(receipts)
                if is_complete:
                    self._ask(receipts)
                if moved:
                    sync_folder(self.folder / "files")
        except _RefusedTogether as refusal:
            _remove(moved)
            return refusal.receipts
        except (OSError, sqlite3.OperationalError) as error:
            _remove(moved)
            if not is_disk_full(error):
                raise
            return [_refused(spool_full(), item) for item in instances]
        return receipts

    def _receive(self, instance: Instance, path: Path, moved: list[Path]) -> Receipt:
        """Move the file and write its row, in the caller's transaction."""
        receipt = Receipt(
            sop=instance.sop, sop_class=instance.sop_class, study=instance.study, is_new=True
        )
        try:
            is_known, is_stored = self._check(instance)
        except ServeError as error:
            return _refused(error, instance)
        if is_stored:
            return replace(receipt, is_new=False)
        name = uuid.uuid4().hex
        target = self.folder / "files" / name
        path.rename(target)
        moved.append(target)
        if is_known:  # its file was removed after the retention time
            self.database.execute("UPDATE instance SET file = ? WHERE sop = ?", name, instance.sop)
            return replace(receipt, is_new=False)
        self._insert(instance, name)
        return receipt

    def _check(self, instance: Instance) -> tuple[bool, bool]:
        """Whether the instance is known, and whether its file is held. Raises ServeError."""
        database = self.database
        study = database.row("SELECT patient, is_open FROM study WHERE uid = ?", instance.study)
        if study is not None and study["patient"] != self.patient(instance):
            raise ServeError(
                "the study is held for another patient (PatientID or its issuer differ)",
                code="other_patient",
            )
        held = database.row("SELECT sha256, study, file FROM instance WHERE sop = ?", instance.sop)
        if held is not None:
            if (held["sha256"], held["study"]) != (instance.sha256, instance.study):
                raise ServeError(
                    "this SOP Instance UID is held with other bytes: an image cannot be replaced",
                    code="other_bytes",
                )
            return True, bool(held["file"])
        if database.row("SELECT 1 FROM made_object WHERE sop = ?", instance.sop):
            raise own_output()
        if (study is None or not study["is_open"]) and self.n_waiting() >= self.capacity.studies:
            raise queue_full()
        return False, False

    def _insert(self, instance: Instance, name: str) -> None:
        now = time.time()
        self.database.execute(
            "INSERT INTO study (uid, patient, touched, is_open, is_asked) VALUES (?, ?, ?, 1, 0)"
            " ON CONFLICT (uid) DO UPDATE SET touched = excluded.touched, is_open = 1",
            instance.study,
            self.patient(instance),
            now,
        )
        self.database.execute(
            "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            instance.sop,
            instance.study,
            instance.sha256,
            name,
            instance.n_bytes,
            instance.modality,
            instance.body_part,
            instance.view,
            now,
        )

    def _ask(self, receipts: Sequence[Receipt]) -> None:
        for study in {receipt.study for receipt in receipts if not receipt.code}:
            self.database.execute("UPDATE study SET is_asked = 1 WHERE uid = ? AND is_open", study)

    def _audit_refusals(self, receipts: Sequence[Receipt], source: str) -> None:
        """Refusals that the sender cannot mend by trying again are events."""
        refusals = [r for r in receipts if r.code and r.code not in TEMPORARY]
        if not refusals:
            return
        with self.database.transaction():
            for receipt in refusals:
                study = self.key.pseudonym("study", receipt.study) if receipt.study else None
                self.audit.add("refused", code=receipt.code, source=source, study=study)

    def patient(self, instance: Instance) -> str:
        return self.key.pseudonym("patient", instance.patient)

    def n_waiting(self) -> int:
        """Studies that are being received or wait for a model."""
        return self.database.value(
            "SELECT (SELECT count(*) FROM study WHERE is_open)"
            " + (SELECT count(*) FROM job WHERE state = ?)",
            READY,
        )


class IncomingFiles:
    """Files of one upload while it is received."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: list[IO[bytes]] = []

    def open(self) -> IO[bytes]:
        """A new file, mode 0600. Write to it, then `finish` it."""
        path = self._spool.folder / "incoming" / uuid.uuid4().hex
        file = open(path, "xb", opener=_private_opener)  # noqa: SIM115
        self._files.append(file)
        return file

    def require_space(self, n_bytes: int) -> None:
        """Raises ServeError (spool_full)."""
        self._spool.require_space(n_bytes)

    def finish(self, file: IO[bytes]) -> Path:
        """Force the file to the disk. Raises ServeError (spool_full)."""
        with full_disk_refused(), file:
            file.flush()
            os.fsync(file.fileno())
        return Path(file.name)

    def add(self, data: bytes) -> Path:
        """A whole file. Raises ServeError (spool_full)."""
        self.require_space(len(data))
        with full_disk_refused():
            file = self.open()
            file.write(data)
        return self.finish(file)

    def discard(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):  # what is not written yet may not fit on the disk
                file.close()
        _remove([Path(file.name) for file in self._files])


class _RefusedTogether(Exception):
    """Rolls the transaction back."""

    def __init__(self, receipts: list[Receipt]) -> None:
        self.receipts = [replace(receipt, is_new=False) for receipt in receipts]


@contextlib.contextmanager
def full_disk_refused() -> Iterator[None]:
    """A full disk in the block is a refusal: ServeError (spool_full)."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise spool_full() from None
        raise


def objects_folder(spool: Spool, job: str) -> Path:
    """Where the objects of a job are."""
    return spool.folder / "objects" / job


def is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def spool_full() -> ServeError:
    return ServeError("the spool is full: nothing was stored; try again later", code="spool_full")


def queue_full() -> ServeError:
    return ServeError("too many studies are waiting: try again later", code="queue_full")


def _read_or_refuse(path: Path) -> Instance | Receipt:
    try:
        return read_instance(path)
    except CodedError as error:
        return Receipt(error.code, str(error))


def _refused(error: ServeError, item: Instance | Receipt) -> Receipt:
    if isinstance(item, Receipt):
        return item
    return Receipt(error.code, str(error), sop=item.sop, sop_class=item.sop_class, study=item.study)


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _require_private(folder: Path) -> None:
    if folder.stat().st_mode & 0o077:
        raise ServeError(
            f"{folder} can be read by other users: run chmod 700 {folder}, or choose another "
            f"folder with --spool",
            code="spool_open_to_others",
        )


def _locked(path: Path) -> IO[bytes]:
    file = os.fdopen(os.open(path, os.O_CREAT | os.O_RDWR, 0o600), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ServeError(
            f"{path.parent} is in use by another server: stop it, or choose another folder with "
            f"--spool",
            code="spool_in_use",
        ) from None
    return file


def _key_of(folder: Path) -> PseudonymKey:
    path = folder / KEY_NAME
    if not path.exists():
        write_atomic(path, find_key().secret, mode=0o600)
    return find_key(path)
