"""Ask TensorFlow Serving for the answer to one DICOM file. Needs numpy and pydicom, not medres.

    medres export run/model.keras --format saved_model --out models/medres/1
    docker run --rm -p 127.0.0.1:8501:8501 -e MODEL_NAME=medres \\
        -v "$PWD/models/medres:/models/medres:ro" tensorflow/serving
    python client.py models/medres/1 image.dcm
    python client.py models/medres/1            # compare with the golden vectors of the export

A tensor server knows nothing of windows, refusals and thresholds: all of that is here, and follows
serving.json. The header of the image is not compared with the training images
(docs/reference/refusals.md).
Triton takes the same folder as its backend `tensorflow`, or the ONNX export as `onnxruntime`.
Research use only. Not a medical device.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serving"))
from preprocess import model_input, prepare

URL = os.environ.get("TF_SERVING_URL", "http://127.0.0.1:8501/v1/models/medres:predict")


def outputs_of(image: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of the signature for an image, float32 (1, rows, cols, 1)."""
    body = json.dumps({"signature_name": "serving_default", "inputs": {"image": image.tolist()}})
    request = urllib.request.Request(URL, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        outputs = json.load(response)["outputs"]
    # with a single output, TensorFlow Serving leaves its name out
    named = outputs if isinstance(outputs, dict) else {"probability": outputs}
    return {name: np.asarray(values, np.float32) for name, values in named.items()}


def answer(file: Path, serving: dict) -> dict:
    """The answer for one image; a study is pooled as serving.json says. Raises ValueError for a
    file that cannot be prepared.
    """
    outputs = outputs_of(model_input(prepare(file, serving["preprocess"]), serving["preprocess"]))
    for name, values in outputs.items():
        limit = serving["outputs"][name].get("refused_above")
        if limit is not None and not (values <= limit).all():
            return {"refused": name}
    probabilities = dict(zip(serving["names"], outputs["probability"][0].tolist(), strict=True))
    positive = {name: probabilities[name] >= at for name, at in serving["thresholds"].items()}
    return {"refused": None, "probabilities": probabilities, "positive": positive}


def check(folder: Path, serving: dict) -> float:
    """The largest difference between probabilities of the server and of the golden vectors."""
    differences = []
    for vector in json.loads((folder / "golden" / "index.json").read_text())["vectors"]:
        file = folder / "golden" / vector["files"][0]["path"]
        image = model_input(prepare(file, serving["preprocess"]), serving["preprocess"])
        difference = np.abs(outputs_of(image)["probability"] - vector["probability"]).max()
        differences.append(float(difference))
    return max(differences)


def main(folder: Path, file: Path | None = None) -> int:
    serving = json.loads((folder / "serving.json").read_text())
    if file is None:
        difference = check(folder, serving)
        print(f"largest difference from the golden vectors: {difference:.1e}")
        return 0 if difference < 1e-5 else 1
    print("Research use only. Not a medical device.", answer(file, serving))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
