"""What holds for the masks and the boxes of many studies alike."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest
from fake_cluster import FakeCluster

import medres
from data_pipelines.ingestion.manifest import Manifest
from data_pipelines.runtime.engines.distributed import DistributedEngine
from medres.inference import batch
from medres.inference.annotated_batch import predict_annotated


def check_on_a_cluster(
    run: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that loses tasks writes the same files as one machine, refusals included."""
    folder = tmp_path / "in"
    folder.mkdir()
    table = Manifest.load(work).table
    for n, row in enumerate(table.iloc[:5].itertuples()):
        shutil.copy(Path(row.source) / row.path, folder / f"{n}{Path(row.path).suffix}")
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes([1] * 9))
    (folder / "link.dcm").symlink_to(folder / "broken.dcm")
    reopen = functools.partial(medres.load, run / "model.keras", isolate=False)
    with reopen() as predictor:
        here = predict_annotated(predictor, [folder], tmp_path / "here", objects=True)
        monkeypatch.setattr(batch, "_open_predictors", {predictor.artefact.sha256: predictor})
        cluster = FakeCluster(lost=[1, 0, 2])
        there = predict_annotated(
            predictor,
            [folder],
            tmp_path / "there",
            engine=DistributedEngine(cluster),
            reopen=reopen,
            objects=True,
        )
    assert (here["given"], here["answered"]) == (7, 5)
    assert here == there
    assert len(cluster.submitted) > 3 + 4  # more than one task a step, and three lost ones
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    assert {"predictions.json", "00005_overlay.png"} <= set(names)
    dated = {name for study in here["studies"] for name in study["objects"]}  # they hold the time
    for name in set(names) - dated:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
