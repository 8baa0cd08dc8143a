"""What kinds of files were skipped, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from data_pipelines.ingestion.index import RejectedFile
from data_pipelines.ingestion.leakage_audit import counted
from data_pipelines.sources.image_source import RASTER_SUFFIXES

_BY_REASON = {
    "symbolic_link": "symbolic link",
    "same_file": "hard link",
    "broken_link": "broken link",
    "special_file": "special file",
    "unreadable_folder": "unreadable folder",
    "file_name": "name that is not UTF-8",
}
_BY_SUFFIX = {
    **dict.fromkeys(RASTER_SUFFIXES, "PNG, JPEG or .npz file"),
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".tar", ".tgz", ".bz2", ".xz"), "archive"),
    **dict.fromkeys((".nii", ".nrrd", ".mha", ".mhd", ".hdr"), "NIfTI or other volume file"),
    **dict.fromkeys((".txt", ".csv", ".json", ".xml", ".md", ".pdf", ".html"), "text or document"),
}
_FIXES = {
    "symbolic link": "links that lead out of SOURCE are read with --follow-links",
    "PNG, JPEG or .npz file": "declare with --units what the values of the image files are",
    "archive": "unpack archives of other kinds than .zip and .tar",
    "NIfTI or other volume file": "volume files of other formats than DICOM are not read",
}


def kinds_of_skipped(rejected: Sequence[RejectedFile]) -> dict[str, int]:
    """Return how many skipped files there are of each kind, most frequent first."""
    return dict(Counter(_kind(file) for file in rejected if file.skipped).most_common())


def describe_skipped(rejected: Sequence[RejectedFile]) -> str:
    """Return the counts by kind as one sentence, and another one with what to do."""
    kinds = kinds_of_skipped(rejected)
    counts = ", ".join(counted(count, kind) for kind, count in kinds.items())
    fixes = [fix for kind, fix in _FIXES.items() if kind in kinds]
    advice = "; ".join(fixes) or "check SOURCE"
    return f"{counts or 'no file'}. {advice[0].upper()}{advice[1:]}."


def _kind(file: RejectedFile) -> str:
    if file.reason in _BY_REASON:
        return _BY_REASON[file.reason]
    path = PurePosixPath(file.path.lower().removesuffix(".gz") or file.path)
    suffix = path.suffix or PurePosixPath(file.path.lower()).suffix
    return _BY_SUFFIX.get(suffix, "other file")
