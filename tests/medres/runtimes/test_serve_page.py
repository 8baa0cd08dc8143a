"""The page on serving shows code that runs, as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "serve.md"


def test_the_code_without_medres_runs_as_printed(tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    section = PAGE.read_text().split("\n## Without medres\n")[1].split("\n### ")[0]
    (tmp_path / "run").mkdir()
    shutil.copy(tiny_run / "model.keras", tmp_path / "run")
    (command,) = re.findall(r"^```bash\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True
    )
    block_medres = "import sys\nsys.modules['medres'] = sys.modules['keras'] = None\n"
    answers = """
prepared = np.full((2, 32, 32), 20000, serving["preprocess"]["dtype"])
del serving["outputs"]["novelty"]["refused_above"]
print("ANSWER", answer(prepared))
"""
    done = subprocess.run(
        [sys.executable, "-c", block_medres + code + answers],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" expected [[") == 14
    assert re.search(r"ANSWER \{'probabilities': \{'square': 0\.\d+\}, 'positive': \{", done.stdout)
