"""A minimal clinical prototype: the input is a DICOM file or folder, the output is a probability
and a decision, or a refusal.

    python examples/prototype.py model.keras STUDY [overlay.png]

Research use only. Not a medical device; not for diagnosis or treatment of patients. `Predictor`
also accepts bytes and pydicom data sets, and keeps no state between calls. A web service, a DICOM
SR writer or a PACS listener can start from this script.
"""

from __future__ import annotations

import sys
from pathlib import Path

import medres
from data_pipelines.runtime.plain_text import escaped
from medres.errors import ArtefactError


def main(model: str, study: str, overlay: str | None = None) -> int:
    """Return 0 with a result, 3 after a refusal (the reason is printed), or 1 if the model file
    failed its checks.
    """
    try:
        # Checks the file before any of it is run, then reproduces its golden outputs.
        predictor = medres.load(model)
    except ArtefactError as error:
        print(f"model refused: {error}", file=sys.stderr)
        return 1
    card = predictor.card
    names = escaped(", ".join(card.names))  # a file's text must not move the cursor
    print(f"model {predictor.artefact.sha256[:12]}: {card.task}, {names}. {card.intended_use}")

    prediction = predictor.predict(Path(study))
    if prediction.refused is not None:
        print(f"no answer: {prediction.refused}")
        return 3
    for name, probability in prediction.probabilities.items():
        print(f"{escaped(name)}: probability {probability:.3f}")
    for name, decision in prediction.decisions.items():
        text = decision if isinstance(decision, str) else ("present" if decision else "absent")
        uncertain = name in prediction.abstained
        note = " (uncertain: a human reader must decide)" if uncertain else ""
        print(escaped(f"{name}: {text}{note}"))

    if overlay is not None:
        prediction.saliency().save(overlay)
        print(f"saliency map, which does not prove anything: {overlay}")
    return 0


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: prototype.py MODEL.keras STUDY [OVERLAY.png]")
    sys.exit(main(*sys.argv[1:]))
