"""The verbs doctor, inspect and weights, which report and change nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from data_pipelines.runtime.backend import require_tensorflow
from medres.cli.console import Json, Work, report


def doctor(as_json: Json = False) -> None:
    """Report what this machine supports: TensorFlow, processor, GPUs, memory, disk, decoders per
    transfer syntax, optional packages; and measure which engine predicts fastest.
    """
    from medres.inspection.environment import examine
    from medres.runtimes import engine_speed

    facts = examine(Path.cwd())
    engines: dict[str, Any] = {"error": "TensorFlow, which makes the exports, does not start"}
    if "error" not in facts["tensorflow"]:
        engines = engine_speed.ask_engines()
    facts["engines"] = engines
    report(facts, as_json, doctor_lines(facts))


def weights(as_json: Json = False) -> None:
    """List the pretrained weights that have a name: for which network, from whom, under which
    terms, their size, and whether they lie in the cache. Nothing is downloaded.
    """
    from medres.backbones.weights.cached_files import cached_path
    from medres.backbones.weights.table import WEIGHTS

    rows = [
        {**vars(row), "path": str(cached_path(row)), "cached": cached_path(row).is_file()}
        for row in WEIGHTS
    ]
    report(rows, as_json, weights_lines(rows))


def weights_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One line per network, under the source and the terms of its weights."""
    lines: list[str] = []
    for name, group in itertools.groupby(rows, key=lambda row: row["name"]):
        for first, row in enumerate(group):
            if first == 0:
                lines += [f"{name}: {row['source'].partition(', file')[0]}", f"  {row['terms']}"]
            missing = "not cached" if row["url"] else "fetch it yourself"
            size = "" if row["megabytes"] is None else f"{row['megabytes']:.0f} MB"
            lines.append(
                f"  {row['variant']:<12} {size:>7}  {'cached' if row['cached'] else missing:<17}  "
                f"{row['file']:<26}  {row['note']}".rstrip()
            )
    return [*lines, f"cache: {Path(rows[0]['path']).parent}"]


def inspect(
    work: Work,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write. Default: WORK/inspect.html.")
    ] = None,
    augment: Annotated[
        bool,
        typer.Option("--augment", help="Show random augmentations of these images per preset."),
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|CENTER,WIDTH",
            help="Window of every CT, such as brain or 40,80 (HU). Default: by body part, else the "
            "one in each file.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page to check before training: contact sheets, volumes with their gaps, gray
    values, labels by patient and subgroup, exclusions, quarantine, leakage audit.
    """
    from medres.inspection.dataset_report import inspect as run
    from medres.progress import Bars

    sections = []
    if augment:
        require_tensorflow()
        from medres.inspection.augmentation_preview import augmentation_section

        sections.append(augmentation_section(work))
    page = run(work, out, sections=sections, window=window, stages=Bars().task)
    report({"page": str(page)}, as_json, [f"page: {page}"])


def doctor_lines(facts: dict[str, Any]) -> list[str]:
    tensorflow, processor, gpus = facts["tensorflow"], facts["processor"], facts["gpus"]
    lines = [f"Python      {facts['python']['version']} on {facts['python']['system']}"]
    if "error" in tensorflow:
        lines.append(f"TensorFlow  {tensorflow['error']}")
    else:
        cuda = (
            f"CUDA {tensorflow['cuda']}, cuDNN {tensorflow['cudnn']}"
            if tensorflow["cuda_build"]
            else "CPU build"
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
    memory, disk = facts["memory"], facts["disk"]
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
        + ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    )
    lines += ["", "Decoders by transfer syntax"]
    lines += [f"  {decoder['name']}: {_decoder(decoder)}" for decoder in facts["decoders"]]
    lines += ["", "Optional packages"]
    for name, packages in facts["extras"].items():
        missing = [package for package, version in packages.items() if version is None]
        lines.append(
            f"  medres[{name}]: " + (f"missing {', '.join(missing)}" if missing else "complete")
        )
    lines += _engine_lines(facts.get("engines", {}))
    return [
        *lines,
        "",
        *([f"problem: {text}" for text in facts["problems"]] or ["No problem found."]),
    ]


def _engine_lines(engines: dict[str, Any]) -> list[str]:
    if not engines:
        return []
    lines = ["", "Engines for prediction (medres.load(..., engine=NAME))"]
    if "error" in engines:
        return [*lines, f"  not measured: {engines['error']}"]
    for row in engines["engines"]:
        if row["milliseconds"] is None:
            lines.append(f"  {row['engine']}: {row['missing']}")
        else:
            lines.append(
                f"  {row['engine']}: {row['milliseconds']:.1f} ms for an image of ResNet-18 at "
                f"112 x 112, difference {row['difference']:.0e}"
            )
    return [*lines, f"  fastest exact engine on this machine: {engines['fastest']}"]


def _decoder(decoder: dict[str, Any]) -> str:
    missing = ", ".join(decoder["missing"])
    if decoder["used"] is None:
        return f"CANNOT BE DECODED: pip install {' or '.join(decoder['missing'])}"
    others = f"; then {', '.join(decoder['others'])}" if decoder["others"] else ""
    return decoder["used"] + others + (f"; not installed: {missing}" if missing else "")


def _gpu(gpu: dict[str, Any]) -> str:
    capability = gpu["compute_capability"]
    suffix = f", compute capability {'.'.join(map(str, capability))}" if capability else ""
    return (
        gpu["name"] + suffix + (", native bfloat16" if capability and capability >= [8, 0] else "")
    )


def _gib(amount: int | None) -> str:
    return "unknown" if amount is None else f"{amount / 2**30:.1f} GiB"
