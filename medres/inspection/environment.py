"""What this machine can do: Python and TensorFlow, processor and GPUs, memory and disk, decoders
and optional packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipelines.pixels.decoders import IMAGECODECS, capabilities, syntax_name
from data_pipelines.pixels.stored_values import NATIVE

CORE = (
    "medres",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "pydicom",
    "imagecodecs",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pillow",
)
FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "neon",
    "bf16",
)
_START_S = 180
_ASK_TENSORFLOW = """
import json, os
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras, tensorflow as tf
build = dict(tf.sysconfig.get_build_info())
found = tf.config.list_physical_devices("GPU")
gpus = [tf.config.experimental.get_device_details(gpu) for gpu in found]
print("\\n" + json.dumps({
    "version": tf.__version__, "keras": keras.__version__, "keras_backend": keras.backend.backend(),
    "cuda_build": bool(build.get("is_cuda_build")),
    "cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version"),
    "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
    "gpus": [
        {"name": g.get("device_name", "unknown"),
         "compute_capability": list(g.get("compute_capability") or ())}
        for g in gpus
    ],
}))
"""


def examine(
    folder: Path | str = ".", *, ask: Callable[[], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Everything that `medres doctor` says, as plain data; `problems` holds sentences with a fix
    each.

    `folder`: whose disk is looked at. TensorFlow is imported in a process of its own; `ask`
        replaces that in tests.
    """
    tensorflow = (ask or ask_tensorflow)()
    packages = {name: version for name in CORE if (version := _version(name)) is not None}
    found = {
        "python": {
            "version": platform.python_version(),
            "system": platform.platform(),
            "machine": platform.machine(),
        },
        "packages": packages,
        "tensorflow": tensorflow,
        "processor": processor(),
        "gpus": {"driver": _nvidia(), "seen_by_tensorflow": tensorflow.get("gpus", [])},
        "memory": memory(),
        "disk": {
            "free_bytes": shutil.disk_usage(folder).free,
            "total_bytes": shutil.disk_usage(folder).total,
        },
        "decoders": decoders(),
        "extras": extras(),
    }
    return found | {"problems": problems(found)}


def ask_tensorflow() -> dict[str, Any]:
    """What TensorFlow says of itself in a fresh process; {"error": why} where it does not start."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TENSORFLOW],
            capture_output=True,
            text=True,
            timeout=_START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"TensorFlow did not start within {_START_S} s"}
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        code = f"killed by signal {-done.returncode}" if done.returncode < 0 else last[0][:300]
        return {"error": f"TensorFlow cannot be imported: {code}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def processor() -> dict[str, Any]:
    """Name, processors that may be used, and the vector instructions that matter here; bf16 =
    native bfloat16 products.
    """
    text = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(listed[1].split()) if listed else set()
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return {
        "name": name[1].strip() if name else platform.processor() or "unknown",
        "usable": usable,
        "features": [flag for flag in FLAGS if flag in flags],
        "bf16": bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}),
    }


def memory() -> dict[str, int | None]:
    """Bytes of memory in all, free to use now, and allowed by the container, None where unknown."""
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, amount = line.partition(":")
            known[name] = int(amount.split()[0]) << 10
    allowed = None
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            allowed = int(Path(path).read_text())
            break
    total = known.get("MemTotal")
    limit = allowed if allowed is not None and (total is None or allowed < total) else None
    return {
        "total_bytes": total,
        "available_bytes": known.get("MemAvailable"),
        "container_limit_bytes": limit,
    }


def decoders() -> list[dict[str, Any]]:
    """Each transfer syntax with the decoder that would be used (None: it cannot be read), the
    others, and missing packages.
    """
    plain = [
        {"syntax": s, "name": syntax_name(s), "used": "medres", "others": [], "missing": []}
        for s in sorted(NATIVE)
    ]
    known = {capability.syntax: capability for capability in capabilities()}
    return plain + [
        {
            "syntax": syntax,
            "name": syntax_name(syntax),
            "used": known[syntax].installed[0] if known[syntax].installed else None,
            "others": list(known[syntax].installed[1:]),
            "missing": sorted(set(known[syntax].missing)),
        }
        for syntax in IMAGECODECS
    ]


def extras() -> dict[str, dict[str, str | None]]:
    """Optional groups of packages of medres -> package -> installed version, None where it is
    missing.
    """
    found: dict[str, dict[str, str | None]] = {}
    for requirement in metadata.requires("medres") or []:
        package = re.match(r"[\w.-]+", requirement)
        group = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package and group and package[0].lower() != "medres" and _applies(requirement):
            found.setdefault(group[1], {})[package[0]] = _version(package[0])
    return found


def problems(found: dict[str, Any]) -> list[str]:
    """What stands in the way, and what to do about it."""
    said = []
    if "error" in found["tensorflow"]:
        said.append(
            f'{found["tensorflow"]["error"]}. Install it with pip install "medres[cpu]" or '
            f'"medres[gpu]"'
        )
    if {"tensorflow", "tensorflow-cpu"} <= set(found["packages"]):
        said.append(
            "both tensorflow and tensorflow-cpu are installed and overwrite each other: uninstall "
            "both, then install one"
        )
    if found["gpus"]["driver"] and not found["gpus"]["seen_by_tensorflow"]:
        said.append(
            "the driver shows a GPU that TensorFlow does not use: in a fresh environment, pip "
            'install "medres[gpu]"'
        )
    for decoder in found["decoders"]:
        if decoder["used"] is None:
            said.append(
                f"{decoder['name']} cannot be read: pip install {' or '.join(decoder['missing'])}"
            )
    free = found["disk"]["free_bytes"]
    if free < 2 << 30:
        said.append(
            f"{free / 2**30:.1f} GiB of disk are free: a cache of 10,000 images of 224 x 224 "
            f"takes 1 GiB"
        )
    return said


def _applies(requirement: str) -> bool:
    """Whether the platform part of a requirement's marker names this platform (TensorFlow has one
    wheel a system).
    """
    marker = requirement.partition(";")[2]
    linux_x86 = sys.platform == "linux" and platform.machine() == "x86_64"
    if "sys_platform" not in marker:
        return True
    return ("==" in marker.split("extra")[0]) == (linux_x86 or sys.platform == "win32")


def _nvidia() -> list[str]:
    """The GPUs that NVIDIA's driver lists; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        ask = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        done = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
        return (
            [line.strip() for line in done.stdout.splitlines() if line.strip()]
            if done.returncode == 0
            else []
        )
    return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
