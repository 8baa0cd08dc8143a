"""Measure how long one model takes to predict, in every runtime.

    python benchmarks/inference.py RUN/model.keras WORK [--torch PYTHON]

One run on one machine, with batches of 1 and 16, times: Keras predict, the compiled graph, the
graph with folded batch normalization, ONNX Runtime, OpenVINO in float32, bfloat16 and int8 (with
the resulting differences in probability and AUC on the test split of WORK), and the network of
torchvision with the same name, eager and compiled (--torch: an interpreter that has torch and
torchvision). Then it compares `Predictor` on a DICOM file of the model's own size with its bare
graph. All use the same number of threads. Times are medians of repeated calls.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 16)
SECONDS = 1.5  # per timing, with at least five calls

TORCH = """
import json, statistics, sys, time
import torch, torchvision
name, side, seconds, threads = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
model = getattr(torchvision.models, name)(num_classes=1)
model.conv1 = torch.nn.Conv2d(1, model.conv1.out_channels, 7, 2, 3, bias=False)
model.eval()
out = {"version": torch.__version__}
with torch.inference_mode():
    for kind in ("eager", "compiled"):
        try:
            run = model if kind == "eager" else torch.compile(model)
            for batch in (1, 16):
                x = torch.rand(batch, 1, side, side)
                for _ in range(3):
                    run(x)
                times, begun = [], time.perf_counter()
                while time.perf_counter() - begun < seconds or len(times) < 5:
                    start = time.perf_counter()
                    torch.sigmoid(run(x)).numpy()
                    times.append(time.perf_counter() - start)
                out[f"{kind} {batch}"] = statistics.median(times)
        except Exception as error:
            out[f"{kind} failed"] = type(error).__name__
print(json.dumps(out))
"""


def median_time(call: Callable[[], Any], seconds: float = SECONDS) -> float:
    for _ in range(3):
        call()
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def int8_model(path: Path, images: np.ndarray, out: Path) -> Path:
    """Return the ONNX model with weights and activations in int8 (quantize, dequantize), with
    ranges from `images`.
    """
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image[np.newaxis]}

    quant_pre_process(str(path), str(out.with_suffix(".pre.onnx")), skip_symbolic_shape=True)
    quantize_static(str(out.with_suffix(".pre.onnx")), str(out), Reader(), per_channel=True)
    return out


def ways(
    model: Path, folder: Path, calibration: np.ndarray
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return all runtimes by name, each as a function images -> probabilities."""
    import tensorflow as tf

    from medres.artefact.archive import load
    from medres.backbones import fold_batch_norm
    from medres.inference.exporting import export, runtime
    from medres.inference.predictor import Predictor

    artefact = load(model)
    keras_model, light = artefact.model, fold_batch_norm(artefact.model)
    graph = tf.function(lambda x: keras_model(x, training=False))
    light_graph = tf.function(lambda x: light(x, training=False))
    exported = {
        name: export(artefact, name, folder / name, optimise=True).path
        for name in ("onnx", "openvino")
    }
    small = int8_model(exported["onnx"], calibration, folder / "int8.onnx")
    return {
        "Keras predict": lambda x: keras_model.predict(x, batch_size=16, verbose=0),
        "Predictor.forward": Predictor(artefact).forward,
        "graph": lambda x: graph(tf.constant(x)).numpy(),
        "graph, folded": lambda x: light_graph(tf.constant(x)).numpy(),
        "ONNX Runtime": runtime("onnx", exported["onnx"]),
        "OpenVINO f32": runtime("openvino", exported["openvino"]),
        "OpenVINO bf16": runtime(
            "openvino", exported["openvino"], hints={"INFERENCE_PRECISION_HINT": "bf16"}
        ),
        "OpenVINO int8": runtime("openvino", small),
    }


def split_images(model: Path, work: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, ...) in model units and the labels of the first output (nan if there is
    none).
    """
    from data_pipelines.cache.store import ensure_cache
    from data_pipelines.cache.tf_dataset import eval_batches, targets_of
    from data_pipelines.ingestion.manifest import Manifest
    from medres.artefact.archive import read_contents

    cache = ensure_cache(work, read_contents(model).card.preprocess)
    batches = eval_batches(cache, targets_of(Manifest.load(work), cache.images["image"]), 16, split)
    parts = [(x["image"].numpy(), y.numpy(), w.numpy()) for x, y, w in batches]
    images, labels, weights = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return images, np.where(weights > 0, labels, np.nan)[:, 0]


def predictor_times(model: Path, image: np.ndarray) -> dict[str, float]:
    """Return the seconds for one DICOM file of the model's own size: for the bare graph on the
    image, and from the bytes of the file to the result.
    """
    import tensorflow as tf

    from medres.artefact.archive import load
    from medres.inference.predictor import Predictor

    predictor = Predictor(load(model))
    bare = tf.function(lambda x: predictor.artefact.model(x, training=False))
    bare = bare.get_concrete_function(tf.TensorSpec((1, *image.shape), tf.float32))
    given, file = tf.constant(image[np.newaxis]), dicom_file(image)
    refused = predictor.predict(file).refused
    if refused is not None:
        raise SystemExit(f"the predictor refuses the test file: {refused}")
    turns = [
        (median_time(lambda: bare(given).numpy()), median_time(lambda: predictor.predict(file)))
        for _ in range(3)
    ]
    return dict(
        zip(("bare graph", "Predictor, from bytes"), np.median(turns, axis=0).tolist(), strict=True)
    )


def dicom_file(image: np.ndarray) -> bytes:
    """Return the bytes of a CR file that holds display values 0 to 1 in 16 bits."""
    import io

    from pydicom.uid import ExplicitVRLittleEndian

    from data_pipelines.dicom.writer import derived_uid, new_dataset, set_pixels

    uids = {name: derived_uid("benchmark", name) for name in ("study", "series", "sop")}
    dataset = new_dataset("CR", ExplicitVRLittleEndian, patient_id="BENCH", patient="", **uids)
    set_pixels(dataset, np.rint(image[..., 0] * 65535).astype(np.uint16), bits=16)
    dataset.WindowCenter, dataset.WindowWidth = 32768, 65536
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def torch_times(interpreter: str, peer: str, side: int, threads: int) -> dict[str, Any]:
    command = [interpreter, "-c", TORCH, peer, str(side), str(SECONDS), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"torch failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("model", type=Path)
    p.add_argument("work", type=Path)
    p.add_argument("--torch", metavar="PYTHON", help="an interpreter with torch and torchvision")
    p.add_argument("--peer", default="resnet18", help="network of torchvision with the same size")
    given = p.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    warnings.simplefilter("ignore")
    threads = len(os.sched_getaffinity(0))
    images, labels = split_images(given.model, given.work, "test")
    calibration = split_images(given.model, given.work, "tune")[0][:64]
    peer = torch_times(given.torch, given.peer, images.shape[1], threads) if given.torch else {}
    with tempfile.TemporaryDirectory() as folder:
        answers = ways(given.model, Path(folder), calibration)
        rows = {
            name: [median_time(functools.partial(run, images[:batch])) for batch in BATCHES]
            for name, run in answers.items()
        }
        scores = {
            name: np.concatenate([run(image[np.newaxis]) for image in images])[:, 0]
            for name, run in answers.items()
        }
    tell(rows, scores, labels, peer, threads)
    for name, seconds in predictor_times(given.model, images[0]).items():
        print(f"{name:<24}{1000 * seconds:8.2f} ms")


def tell(
    rows: dict[str, list[float]],
    scores: dict[str, np.ndarray],
    labels: np.ndarray,
    peer: dict[str, Any],
    threads: int,
) -> None:
    from medres.evaluate.metrics.roc import auc_from_counts
    from medres.evaluate.scores.sample import rank_counts

    names = ("keras", "tensorflow-cpu", "tensorflow", "onnxruntime", "openvino")
    found = [
        f"{name} {metadata.version(name)}"
        for name in names
        if any(True for _ in metadata.distributions(name=name))
    ]
    print(
        f"{threads} threads; {', '.join(found)}; torch {peer.get('version', 'not given')}; "
        f"{len(labels)} test images"
    )
    print(
        f"{'ms per image':<24}{'batch 1':>9}{'batch 16':>10}"
        f"{'x torch eager':>18}{'max difference':>16}{'AUC':>8}"
    )
    known = np.isfinite(labels)
    for name, times in rows.items():
        ratio = (
            "".join(f"{peer[f'eager {b}'] / t:9.2f}" for b, t in zip(BATCHES, times, strict=True))
            if peer
            else " " * 18
        )
        difference = float(np.abs(scores[name] - scores["graph"]).max())
        auc = auc_from_counts(
            rank_counts(labels[known] == 1, scores[name][known].astype(np.float64))
        )
        each = "".join(
            f"{1000 * t / b:{w}.2f}" for b, t, w in zip(BATCHES, times, (9, 10), strict=True)
        )
        print(f"{name:<24}{each}{ratio}{difference:>16.1e}{auc:>8.4f}")
    for kind in ("eager", "compiled"):
        if f"{kind} 1" in peer:
            print(
                f"{'torch ' + kind:<24}"
                + "".join(
                    f"{1000 * peer[f'{kind} {b}'] / b:{w}.2f}"
                    for b, w in zip(BATCHES, (9, 10), strict=True)
                )
            )
        elif peer:
            print(f"torch {kind}: {peer.get(f'{kind} failed', 'no time')}")


if __name__ == "__main__":
    main()
