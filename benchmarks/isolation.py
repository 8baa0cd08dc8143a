"""Measure what it costs to decode in isolated workers, over the bare graph of the model.

    python benchmarks/isolation.py [--model resnet18] [--side 224] [--files 100] [--rounds 5]

Trains the model for one epoch on made-up radiographs (what it learns does not matter), and times,
in turns of ten files of its own size: the compiled graph alone; `Predictor.predict` from the path
of a DICOM file, decoding in this process and in a worker; `predict_many`, which decodes the next
files in two workers meanwhile; and the same predictions from two threads. Prints the lower quartile
of the turns, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

TURN = 10  # files


def trained(folder: Path, name: str, side: int) -> Path:
    """The model file of a short training."""
    import medres
    from data_pipelines import ingest, make_cohort

    cohort = make_cohort(folder / "cohort", patients=30, only="radiograph")
    ingest(cohort, cohort / "labels.csv", folder / "work", seed=0)
    run = medres.train(
        folder / "work",
        model=name,
        preset=f"xray-{side}",
        recipe="small",
        epochs=1,
        seed=0,
        out=folder / "run",
    )
    return Path(run.artefact)


def write_files(folder: Path, count: int, side: int) -> list[Path]:
    """CR files of noise, each of its own patient."""
    from pydicom.uid import ExplicitVRLittleEndian

    from data_pipelines.dicom.writer import derived_uid, new_dataset, save, set_pixels

    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for number in range(count):
        uids = {
            level: derived_uid("benchmark", level, number) for level in ("study", "series", "sop")
        }
        dataset = new_dataset(
            "CR", ExplicitVRLittleEndian, patient_id=f"B{number}", patient="", **uids
        )
        set_pixels(dataset, rng.integers(0, 4096, (side, side)).astype(np.uint16), bits=12)
        dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
        files.append(folder / f"{number:04d}.dcm")
        save(dataset, files[-1])
    return files


def per_image(work: Callable[[list[Path]], object], files: list[Path]) -> float:
    """Milliseconds per image."""
    start = time.perf_counter()
    work(files)
    return 1000 * (time.perf_counter() - start) / len(files)


def ways(model: Path, files: list[Path]) -> dict[str, Callable[[list[Path]], object]]:
    """Each way to predict files, by its name."""
    import tensorflow as tf

    from data_pipelines.preprocessing.preparation import to_model_units
    from medres.artefact.archive import load
    from medres.inference.predictor import Predictor

    artefact = load(model)
    open_to_all = {"domain": None, "novelty_threshold": None}
    artefact = replace(
        artefact, card=artefact.card.model_copy(update=open_to_all), orientation_model=None
    )
    here, isolated = (Predictor(artefact, isolate=isolate) for isolate in (False, True))
    bare = tf.function(lambda x: artefact.model(x, training=False))
    shape = artefact.model.input.shape[1:]
    bare = bare.get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    spec = artefact.card.preprocess
    image = tf.constant(to_model_units(np.zeros((1, *spec.prepared_shape), spec.dtype), spec))

    def graph(_: Path) -> object:
        return bare(image)[0].numpy()

    def two_threads(function: Callable[[Path], object], files: list[Path]) -> list[object]:
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(function, files))

    refused = {p.refused for predictor in (here, isolated) for p in predictor.predict_many(files)}
    if refused != {None}:
        raise SystemExit(f"refused: {refused}")
    return {
        "bare graph": lambda files: [graph(file) for file in files],
        "predict, in this process": lambda files: [here.predict(file) for file in files],
        "predict, isolated": lambda files: [isolated.predict(file) for file in files],
        "predict_many, isolated": lambda files: list(isolated.predict_many(files)),
        "bare graph, two threads": lambda files: two_threads(graph, files),
        "predict, isolated, two threads": lambda files: two_threads(isolated.predict, files),
    }


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--model", default="resnet18")
    p.add_argument("--side", type=int, default=224)
    p.add_argument("--files", type=int, default=100)
    p.add_argument("--rounds", type=int, default=5)
    given = p.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_files(folder / "files", given.files, given.side)
        every = ways(trained(folder, given.model, given.side), files)
        times: dict[str, list[float]] = {name: [] for name in every}
        for _ in range(given.rounds):
            for start in range(0, len(files), TURN):
                turn = files[start : start + TURN]
                for name, work in every.items():
                    times[name].append(per_image(work, turn))
    quartiles = {name: float(np.quantile(each, 0.25)) for name, each in times.items()}
    for name, milliseconds in quartiles.items():
        base = quartiles["bare graph, two threads" if "threads" in name else "bare graph"]
        print(f"{name:<32}{milliseconds:8.2f} ms  {100 * (milliseconds / base - 1):+6.1f} %")


if __name__ == "__main__":
    main()
