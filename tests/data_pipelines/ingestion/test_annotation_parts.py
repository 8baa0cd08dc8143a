"""Masks and boxes in parts: what a killed ingest keeps of them; a cluster reads the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fake_cluster import FakeCluster
from helpers import work_in_process
from mask_writers import write_png

from data_pipelines.errors import DicomError
from data_pipelines.ingestion import ingest
from data_pipelines.runtime.engines.distributed import DistributedEngine

COUNT = 60
VOC = """<annotation><filename>{name}.png</filename>
<size><width>12</width><height>12</height></size>
<object><name>dot</name><bndbox><xmin>2</xmin><ymin>{top}</ymin><xmax>6</xmax><ymax>9</ymax></bndbox>
</object></annotation>"""


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """60 images, a mask and a box of each, and a mask and a box file that are damaged."""
    rng = np.random.default_rng(0)
    (tmp_path / "boxes").mkdir()
    for n in range(COUNT):
        name = f"{n:03}"
        write_png(tmp_path / f"images/{name}.png", rng.integers(0, 256, (12, 12)).astype(np.uint8))
        mask = (rng.random((12, 12)) < 0.3).astype(np.uint8)
        write_png(tmp_path / f"masks/{name}.png", mask)
        (tmp_path / f"boxes/{name}.xml").write_text(VOC.format(name=name, top=n % 5 + 1))
    (tmp_path / "masks/007.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (tmp_path / "boxes/007.xml").write_text("<annotation>")
    return tmp_path


def count_reads(patch: pytest.MonkeyPatch, *, until: float = np.inf) -> list[object]:
    """What is given to the workers from now on; the process is interrupted after so many."""
    reads: list[object] = []

    def answers(function: Callable, items: Sequence, **_: object) -> Iterator[tuple]:
        for item in items:
            if len(reads) >= until:
                raise KeyboardInterrupt
            reads.append(item)
            try:
                yield item, function(item)
            except DicomError as error:
                yield item, error

    for module in ("data_pipelines.ingestion.index.parts", "data_pipelines.runtime.engines.engine"):
        patch.setattr(f"{module}.map_isolated", answers)
    return reads


def options_of(cohort: Path, kind: str) -> dict:
    return {"units": "display", "no_split": True, kind: cohort / kind}


def contents(work: Path) -> dict[str, bytes]:
    return {
        path.relative_to(work).as_posix(): path.read_bytes()
        for path in sorted(work.rglob("*"))
        if path.is_file() and path.name not in ("pseudonym.key", "ingest.json")
    }


@pytest.mark.parametrize(("kind", "share"), [("masks", 0.5), ("masks", 0.85), ("boxes", 0.5)])
def test_a_killed_ingest_reads_the_other_annotations_only(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, kind: str, share: float
) -> None:
    monkeypatch.delenv("MEDRES_KEY", raising=False)
    options, source = options_of(cohort, kind), cohort / "images"
    reads = count_reads(monkeypatch)
    ingest(source, None, cohort / "whole", **options)
    total = len(reads)  # masks are read twice: what they are, and their pixels
    assert total == COUNT * (3 if kind == "masks" else 2)
    count_reads(monkeypatch, until=int(share * total))
    with pytest.raises(KeyboardInterrupt):
        ingest(source, None, cohort / "work", **options)
    assert not (cohort / "work").exists()
    parts = cohort / ".work.parts"
    assert {path.stat().st_mode & 0o777 for path in parts.iterdir()} == {0o600}
    reads = count_reads(monkeypatch)
    ingest(source, None, cohort / "work", **options)
    assert (1 - share) * total <= len(reads) <= (1 - share + 0.05) * total
    assert not parts.exists()
    key = cohort / "work/pseudonym.key"
    ingest(source, None, cohort / "again", key_file=key, **options)
    assert contents(cohort / "work") == contents(cohort / "again")


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_a_cluster_writes_the_same_annotations(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MEDRES_KEY", "ab" * 32)
    work_in_process(monkeypatch)
    options, source = options_of(cohort, kind), cohort / "images"
    ingest(source, None, cohort / "here", **options)
    cluster = FakeCluster(lost=[0, 1, 0, 2])
    ingest(source, None, cohort / "there", engine=DistributedEngine(cluster), **options)
    assert len(cluster.submitted) > (16 if kind == "masks" else 8)  # all steps ran as tasks
    assert contents(cohort / "here") == contents(cohort / "there")
    summaries = [(cohort / name / "ingest.json").read_bytes() for name in ("here", "there")]
    assert summaries[0] == summaries[1]
