"""A made-up reader study, from its table to its page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.runtime.atomic_files import require_new, write_atomic

if TYPE_CHECKING:
    from medres.evaluate import ReaderStudyReport

RESULT_FILE = "demo.json"  # marks the folder of a demo
POSITIVE = 3.0
MARGIN = EFFECT = 0.05


def run_readers(out: Path, *, seed: int = 0) -> tuple[dict[str, Any], ReaderStudyReport]:
    """Write readers.csv and its report into `out`; the paths, the first contrast and the report.

    An earlier demo in `out` is replaced; any other content is an error.
    """
    from medres.evaluate.readers.made_up import MODEL, THRESHOLD, WITH, WITHOUT, made_up_study
    from medres.evaluate.readers.study import reader_study

    out = Path(out)
    if (out / RESULT_FILE).exists():
        shutil.rmtree(out)
    require_new(out, what="the demo")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RESULT_FILE, b"{}")
    table = out / "readers.csv"
    made_up_study(seed).to_csv(table, index=False)
    study = reader_study(
        table,
        pair=(WITH, WITHOUT),
        standalone=MODEL,
        positive=POSITIVE,
        threshold=THRESHOLD,
        margin=MARGIN,
        effect=EFFECT,
        title="A made-up reader study",
    )
    folder = study.save(out / "report")
    result = {
        "readers": str(table),
        "report": str(folder / "report.html"),
        "contrasts": study.numbers["reader_study"]["contrasts"],
    }
    write_atomic(out / RESULT_FILE, json.dumps(result, indent=1).encode())
    return result, study
