"""What this machine supports: Python and TensorFlow, processor and GPUs, memory and disk, decoders
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
from data_pipelines.runtime.hosts import (
    TENSORFLOWS,
    host_name,
    install_command,
    repair_command,
    stacked,
)

CORE = (
    "medres",
    "keras",
    *TENSORFLOWS,
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
_TIMEOUT_S = 180
_TENSORFLOW_SCRIPT = """
import json, os
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras, tensorflow as tf
build = dict(tf.sysconfig.get_build_info())
devices = tf.config.list_physical_devices("GPU")
gpus = [tf.config.experimental.get_device_details(gpu) for gpu in devices]
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
    """Everything that `medres doctor` reports, as data for JSON; `problems` are sentences, each
    with a fix.

    folder: the disk of this folder is examined. ask: replaces the process in which TensorFlow is
    imported (for tests).
    """
    tensorflow = (ask or ask_tensorflow)()
    packages = {name: version for name in CORE if (version := _version(name)) is not None}
    facts = {
        "python": {
            "version": platform.python_version(),
            "system": platform.platform(),
            "machine": platform.machine(),
            "host": host_name(os.environ),
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
    return facts | {"problems": problems(facts)}


def ask_tensorflow() -> dict[str, Any]:
    """Versions, build and GPUs of TensorFlow, from a separate process; {"error": why} if it does
    not start.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TENSORFLOW_SCRIPT],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"TensorFlow did not start within {_TIMEOUT_S} s"}
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        killed = done.returncode < 0
        cause = f"killed by signal {-done.returncode}" if killed else last_line[:300]
        return {"error": f"TensorFlow cannot be imported: {cause}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def processor() -> dict[str, Any]:
    """Name, number of usable processors, and the vector instructions that matter here; bf16: native
    bfloat16 multiplication.
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
    """Bytes of memory: total, available, and the limit of the container; None if unknown."""
    amounts: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, amount = line.partition(":")
            amounts[name] = int(amount.split()[0]) << 10
    allowed = None
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            allowed = int(Path(path).read_text())
            break
    total = amounts.get("MemTotal")
    limit = allowed if allowed is not None and (total is None or allowed < total) else None
    return {
        "total_bytes": total,
        "available_bytes": amounts.get("MemAvailable"),
        "container_limit_bytes": limit,
    }


def decoders() -> list[dict[str, Any]]:
    """Each transfer syntax with the decoder that is used (None: it cannot be decoded), the other
    decoders, and the missing packages.
    """
    native = [
        {"syntax": s, "name": syntax_name(s), "used": "medres", "others": [], "missing": []}
        for s in sorted(NATIVE)
    ]
    by_syntax = {capability.syntax: capability for capability in capabilities()}
    return native + [
        {
            "syntax": syntax,
            "name": syntax_name(syntax),
            "used": by_syntax[syntax].installed[0] if by_syntax[syntax].installed else None,
            "others": list(by_syntax[syntax].installed[1:]),
            "missing": sorted(set(by_syntax[syntax].missing)),
        }
        for syntax in IMAGECODECS
    ]


def extras() -> dict[str, dict[str, str | None]]:
    """Extra of medres -> package -> installed version, or None if it is missing."""
    groups: dict[str, dict[str, str | None]] = {}
    for requirement in metadata.requires("medres") or []:
        package = re.match(r"[\w.-]+", requirement)
        group = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package and group and package[0].lower() != "medres" and _applies(requirement):
            groups.setdefault(group[1], {})[package[0]] = _version(package[0])
    return groups


def problems(facts: dict[str, Any]) -> list[str]:
    """One sentence per problem, with its fix."""
    sentences = []
    host, several = facts["python"]["host"], stacked(facts["packages"])
    if several:
        sentences.append(
            f"{' and '.join(several)} are installed and overwrite each other: "
            f"{repair_command(several, host)}"
        )
    elif "error" in facts["tensorflow"]:
        sentences.append(f"{facts['tensorflow']['error']}. To install it, {install_command(host)}")
    if facts["gpus"]["driver"] and not facts["gpus"]["seen_by_tensorflow"]:
        sentences.append(
            "TensorFlow does not use the GPU that the driver reports: in a new environment, "
            'run pip install "medres[gpu]"'
        )
    for decoder in facts["decoders"]:
        if decoder["used"] is None:
            packages = " or ".join(decoder["missing"])
            sentences.append(f"{decoder['name']} cannot be decoded: pip install {packages}")
    free = facts["disk"]["free_bytes"]
    if free < 2 << 30:
        sentences.append(
            f"only {free / 2**30:.1f} GiB of disk space are free: a cache of 10,000 images of "
            f"224 x 224 takes 1 GiB"
        )
    return sentences


def _applies(requirement: str) -> bool:
    """Whether the marker of a requirement includes this platform (TensorFlow has one wheel per
    system).
    """
    marker = requirement.partition(";")[2]
    linux_x86 = sys.platform == "linux" and platform.machine() == "x86_64"
    if "sys_platform" not in marker:
        return True
    return ("==" in marker.split("extra")[0]) == (linux_x86 or sys.platform == "win32")


def _nvidia() -> list[str]:
    """The GPUs that the driver of NVIDIA lists; empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
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
