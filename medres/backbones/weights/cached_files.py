"""The files of named weights in the cache of Keras: found, downloaded and verified.

A file is in its place only with the right hash: it is downloaded into a temporary folder beside it.
Only the first digits of the hash are published for torchvision's files, so the whole hash of the
first use is written into FILE.sha256 and holds from then on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import urllib.error
from pathlib import Path
from typing import NamedTuple

from data_pipelines.runtime.atomic_files import file_sha256
from medres.backbones.weights.table import NamedWeights, is_named, named_weights
from medres.errors import WeightsError


class WeightsFile(NamedTuple):
    """A file of initial weights. source: from whom, or the file's name. input_scaling: see
    NamedWeights.
    """

    path: Path
    source: str
    sha256: str
    input_scaling: str | None = None


def weights_file(weights: str | Path, variant: str) -> WeightsFile:
    """The file behind a value of `weights`: a path, or a name of the table for a variant such as
    "resnet18", which is downloaded at its first use.

    Raises WeightsError (codes no_such_file, no_such_weights, not_in_cache, download_failed,
    wrong_hash).
    """
    if not is_named(weights):
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(
                f"weights {path}: there is no such file, and no weights of this name (medres "
                f"weights lists the names, for instance imagenet)",
                code="no_such_file",
            )
        return WeightsFile(path, path.name, file_sha256(path))
    row = named_weights(str(weights), variant)
    path = cached_path(row)
    sha256 = _verified(path, row) if path.is_file() else _fetched(path, row)
    return WeightsFile(path, f"{row.name} {row.variant}: {row.source}", sha256, row.input_scaling)


def cached_path(row: NamedWeights) -> Path:
    """Where the file of a row lies or belongs: in models/ of KERAS_HOME, which is ~/.keras if it is
    not set.
    """
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models" / row.file


def _verified(path: Path, row: NamedWeights) -> str:
    """The SHA-256 of a file in the cache, which is recorded at its first use."""
    sha256, record = file_sha256(path), _record(path)
    recorded = record.read_text().split()[:1] if record.is_file() else []
    expected = [*recorded, *([row.sha256] if row.sha256 else [])]
    if not all(sha256.startswith(digits) for digits in expected):
        raise WeightsError(
            f"{path} has the SHA-256 {sha256}, and {' and '.join(expected)} is expected (the whole "
            f"hash of its first use is in {record.name}, and its first digits are published): the "
            f"file is damaged or another one. Delete it and {record.name}, and get it again",
            code="wrong_hash",
        )
    if not recorded:
        with contextlib.suppress(OSError):  # a cache that others share may be read-only
            record.write_text(f"{sha256}  {row.file}\n")
    return sha256


def _fetched(path: Path, row: NamedWeights) -> str:
    """Download a file into its place and return its SHA-256. If that fails, nothing is left."""
    if row.url is None:
        raise WeightsError(
            f"weights {row.name} of {row.variant} cannot be downloaded by a program: get them from "
            f"{row.source}; terms: {row.terms}. Save the file as {path}, or give its path",
            code="not_in_cache",
        )
    import keras

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".medres-", dir=path.parent) as folder:
            with contextlib.redirect_stdout(sys.stderr):  # its progress; results go to stdout
                file = Path(
                    keras.utils.get_file(row.file, row.url, cache_dir=folder, cache_subdir="new")
                )
            sha256 = file_sha256(file)
            if not sha256.startswith(row.sha256 or ""):
                raise WeightsError(
                    f"{row.file} from {row.url} has the SHA-256 {sha256}, which should begin with "
                    f"{row.sha256}: the download was damaged or altered, and was deleted. Try "
                    f"again, if possible through another network",
                    code="wrong_hash",
                )
            file.replace(path)
            _record(path).write_text(f"{sha256}  {row.file}\n")
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001 - get_file raises Exception itself for a failed URL
        if isinstance(error.__context__, urllib.error.HTTPError):
            error.__context__.close()  # the connection, which Keras leaves open
        size = "" if row.megabytes is None else f" ({row.megabytes:.0f} MB)"
        raise WeightsError(
            f"{row.file}{size} could not be downloaded from {row.url} ({error}). Without a "
            f"network, download it on another machine and put it here: {path}",
            code="download_failed",
        ) from None
    return sha256


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
