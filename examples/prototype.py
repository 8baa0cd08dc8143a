"""The shortest honest clinical prototype: a DICOM file or folder in; a probability and a decision,
or a refusal, out.

    python examples/prototype.py model.keras STUDY [overlay.png]

Research use only. Not a medical device; not for diagnosis or treatment of patients. `Predictor`
takes bytes and pydicom data sets as well as paths and keeps no state between calls, so a web
service, a DICOM SR writer or a PACS listener starts where this ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import medres
from medres.errors import ArtefactError


def main(model: str, study: str, overlay: str | None = None) -> int:
    """0: answered; 3: refused, with the reason; 1: the model file is not to be trusted."""
    try:
        predictor = medres.load(
            model
        )  # checks the file before any of it runs, then its golden probabilities
    except ArtefactError as error:
        print(f"model refused: {error}", file=sys.stderr)
        return 1
    card = predictor.card
    print(
        f"model {predictor.artefact.sha256[:12]}: {card.task}, {', '.join(card.names)}. "
        f"{card.intended_use}"
    )

    prediction = predictor.predict(Path(study))
    if prediction.refused is not None:
        print(f"no answer: {prediction.refused}")
        return 3
    for name, probability in prediction.probabilities.items():
        print(f"{name}: probability {probability:.3f}")
    for name, decision in prediction.decisions.items():
        unsure = name in prediction.abstained
        said = decision if isinstance(decision, str) else ("present" if decision else "absent")
        print(
            f"{name}: {said}" + (" (the model abstains: a reader has to decide)" if unsure else "")
        )

    if overlay is not None:
        prediction.saliency().save(overlay)
        print(f"where the model looked, which is no proof of anything: {overlay}")
    return 0


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: prototype.py MODEL.keras STUDY [OVERLAY.png]")
    sys.exit(main(*sys.argv[1:]))
