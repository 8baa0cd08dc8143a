"""Verbs that look and change nothing: doctor, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.runtime.backend import require_tensorflow
from medres.cli.console import Json, Work, report


def doctor(as_json: Json = False) -> None:
    """What this machine can do: TensorFlow, processor, GPUs, memory, disk, decoders by transfer
    syntax, optional packages.
    """
    from medres.inspection.environment import examine

    found = examine(Path.cwd())
    report(found, as_json, _doctor_lines(found))


def inspect(
    work: Work,
    out: Annotated[Path | None, typer.Option(help="The page; default: WORK/inspect.html.")] = None,
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Show what each augmentation preset makes of these images."),
    ] = False,
    as_json: Json = False,
) -> None:
    """One HTML page to look at before training: contact sheets, grey values, confounders,
    quarantine, audit.
    """
    from medres.inspection.dataset_report import inspect as run
    from medres.progress import Bars

    sections = []
    if augment:
        require_tensorflow()
        from medres.inspection.augmentation_preview import augmentation_section

        sections.append(augmentation_section(work))
    with Bars().task("inspect") as update:
        page = run(work, out, sections=sections, progress=update)
    report({"page": str(page)}, as_json, [f"page: {page}"])


def _doctor_lines(found: dict[str, Any]) -> list[str]:
    tensorflow, processor, gpus = found["tensorflow"], found["processor"], found["gpus"]
    lines = [f"Python      {found['python']['version']} on {found['python']['system']}"]
    if "error" in tensorflow:
        lines.append(f"TensorFlow  {tensorflow['error']}")
    else:
        cuda = (
            f"CUDA {tensorflow['cuda']}, cuDNN {tensorflow['cudnn']}"
            if tensorflow["cuda_build"]
            else "for processors"
        )
        lines.append(f"TensorFlow  {tensorflow['version']} ({cuda}), Keras {tensorflow['keras']}")
    features = " ".join(processor["features"]) or "features unknown"
    bf16 = "native bfloat16" if processor["bf16"] else "no native bfloat16"
    lines.append(
        f"Processor   {processor['name']}, {processor['usable']} usable; {features}; {bf16}"
    )
    lines += [f"GPU         {_gpu(gpu)}" for gpu in gpus["seen_by_tensorflow"]] or [
        "GPU         none in use"
    ]
    lines += [f"Driver      {name}" for name in gpus["driver"]]
    memory, disk = found["memory"], found["disk"]
    limit = (
        f", container limit {_gib(memory['container_limit_bytes'])}"
        if memory["container_limit_bytes"]
        else ""
    )
    lines.append(
        f"Memory      {_gib(memory['available_bytes'])} free of "
        f"{_gib(memory['total_bytes'])}{limit}"
    )
    lines.append(f"Disk        {_gib(disk['free_bytes'])} free of {_gib(disk['total_bytes'])} here")
    lines.append(
        "Packages    "
        + ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    )
    lines += ["", "Decoders by transfer syntax"]
    for one in found["decoders"]:
        used = one["used"] or f"CANNOT BE READ: pip install {' or '.join(one['missing'])}"
        more = f"; then {', '.join(one['others'])}" * bool(one["others"])
        more += f"; not installed: {', '.join(one['missing'])}" * bool(
            one["missing"] and one["used"]
        )
        lines.append(f"  {one['name']}: {used}{more}")
    lines += ["", "Optional packages"]
    for name, packages in found["extras"].items():
        missing = [package for package, version in packages.items() if version is None]
        lines.append(
            f"  medres[{name}]: " + (f"missing {', '.join(missing)}" if missing else "complete")
        )
    return [
        *lines,
        "",
        *([f"problem: {text}" for text in found["problems"]] or ["No problem found."]),
    ]


def _gpu(gpu: dict[str, Any]) -> str:
    capability = gpu["compute_capability"]
    said = f", compute capability {'.'.join(map(str, capability))}" if capability else ""
    return gpu["name"] + said + (", native bfloat16" if capability and capability >= [8, 0] else "")


def _gib(amount: int | None) -> str:
    return "unknown" if amount is None else f"{amount / 2**30:.1f} GiB"
