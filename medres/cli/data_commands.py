"""Verbs about data: ingest, cache, wrap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medres.cli.console import Json, Limit, Work, report

_RECORDS = {"image": "images", "stack": "stacks of slices", "volume": "volumes"}


def ingest(
    source: Annotated[
        list[Path],
        typer.Argument(help="Folders or files with DICOM; with --units also PNG, JPEG and .npz."),
    ],
    out: Annotated[Path, typer.Option(help="New work folder.")],
    labels: Annotated[Path | None, typer.Option(help="CSV of labels.")] = None,
    finding: Annotated[
        list[str] | None, typer.Option(help="Finding column of the CSV; repeatable.")
    ] = None,
    readers: Annotated[
        Literal["error", "majority", "any", "uncertain"],
        typer.Option(
            help="Several rows a key: an error, more than half, present where any, or uncertain "
            "unless all agree."
        ),
    ] = "error",
    seed: Annotated[int, typer.Option(help="Seed of the split by patient.")] = 0,
    fractions: Annotated[
        str, typer.Option(help="Shares of train, tune and test.")
    ] = "0.7,0.15,0.15",
    split_mode: Annotated[
        Literal["stratified", "hash"],
        typer.Option(
            help="Drawn by label; or by a keyed hash of each patient, so that later patients move "
            "nobody."
        ),
    ] = "stratified",
    splits_from: Annotated[
        Path | None,
        typer.Option(
            help="Earlier work folder: its patients keep their split, newcomers are drawn."
        ),
    ] = None,
    external_site: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Images with this site, manufacturer, model or meta:* are the test split.",
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Folds of train and tune, by patient, in a column fold.")
    ] = 0,
    max_bad: Annotated[
        float | None,
        typer.Option(help="Fail when more than this share of the files is quarantined, 0 to 1."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the key of the pseudonyms.")
    ] = None,
    for_processing: Annotated[
        bool, typer.Option("--for-processing", help="Accept FOR PROCESSING radiographs.")
    ] = False,
    units: Annotated[
        Literal["display", "HU"] | None,
        typer.Option(
            help="Let PNG, JPEG and MedMNIST's .npz in, and say what their values are; HU: int16 "
            ".npz only."
        ),
    ] = None,
    class_folders: Annotated[
        bool,
        typer.Option(
            "--class-folders",
            help="The folder of each file is its class: [train|tune|test/]CLASS/x.png.",
        ),
    ] = False,
    leaks: Annotated[
        Literal["error", "drop"],
        typer.Option(
            help="A patient or equal pixels in two given splits: refuse, or drop from train, then "
            "tune."
        ),
    ] = "error",
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Index, check, group and split images into a work folder."""
    from data_pipelines.ingestion.pipeline import ingest as run
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.progress import Bars

    with limited(**parse_limits(limit or [])):
        manifest = run(
            source,
            labels,
            out,
            findings=tuple(finding or ()),
            readers=readers,
            seed=seed,
            fractions=_fractions(fractions),
            split_mode=split_mode,
            splits_from=splits_from,
            external_site=_column_value(external_site),
            folds=folds,
            max_bad=max_bad,
            key_file=key_file,
            for_processing=for_processing,
            units=units,
            class_folders=class_folders,
            on_leak=leaks,
            stages=Bars().task,
        )
    report(manifest.summary, as_json, _ingest_lines(manifest.summary, out))


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--fractions takes three numbers with commas between, received {text!r}"
        ) from None


def _column_value(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    column, equals, value = text.partition("=")
    if not (column.strip() and equals and value.strip()):
        raise typer.BadParameter("--external-site takes COLUMN=VALUE, for instance site=north")
    return column.strip(), value.strip()


def _ingest_lines(summary: dict[str, Any], out: Path) -> list[str]:
    reasons = ", ".join(f"{code} {count}" for code, count in summary["reasons"].items())
    lines = [
        f"{summary['given']} files: {summary['ok']} ok, {summary['repaired']} repaired, "
        f"{summary['quarantined']} quarantined, {summary['skipped']} skipped"
        + (f" ({reasons})" if reasons else "")
    ]
    for name, split in summary["splits"].items():
        lines.append(
            f"{name:5s} {split['patients']} patients, {split['studies']} studies, "
            f"{split['images']} images"
        )
    if summary["task"] != "none":
        lines.append(_labels_line(summary))
    if summary["pseudonym_key"] == "made":
        lines.append(
            f"a new pseudonym key was made in {out}: keep it as safe as the data, and give it to "
            f"later ingests with --key-file"
        )
    return [
        *lines,
        *(f"warning: {text}" for text in summary.get("warnings", [])),
        f"work folder: {out}",
    ]


def _labels_line(summary: dict[str, Any]) -> str:
    """What was taken for labels, so that a column taken by mistake is seen."""
    splits = [split["classes"] for split in summary["splits"].values()]
    if summary["task"] == "multiclass":
        return "classes: " + ", ".join(
            f"{name} {sum(s[name] for s in splits)}" for name in summary["classes"]
        )
    counts = {
        name: {v: sum(s[name][v] for s in splits) for v in ("1", "0")}
        for name in summary["findings"]
    }
    return "findings: " + ", ".join(
        f"{name} ({n['1']} present, {n['0']} absent)" for name, n in counts.items()
    )


def cache(
    work: Work,
    preset: Annotated[
        str | None,
        typer.Option(
            help="xray-SIZE, ct-SIZE, ct25d-SIZE (a slice between its neighbours) or ctvol-SIZE "
            "(a cube)."
        ),
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="JSON file with a preprocessing spec.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte of every cache of WORK; build none.")
    ] = False,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Decode once into verified shards of integers, or --verify those that are there."""
    if ((preset is None) == (spec is None)) != verify or (verify and preset is not None):
        raise typer.BadParameter("give one of --preset NAME, --spec FILE and --verify")
    if verify:
        _verify(work, as_json)
        return
    from data_pipelines.cache.store import ensure_cache
    from data_pipelines.preprocessing.spec import spec_from
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.progress import Bars

    chosen, bars = spec_from(preset if preset is not None else _read_json(spec)), Bars()
    with limited(**parse_limits(limit or [])), bars.task(f"cache {chosen.name}") as update:
        made = ensure_cache(work, chosen, progress=update, log=bars.line)
    counts = {name: int((made.images["split"] == name).sum()) for name in made.shards}
    result = {
        "cache": str(made.folder),
        "spec": chosen.model_dump(),
        "images": counts,
        "left_out": made.left_out,
    }
    report(result, as_json, [f"{sum(counts.values())} {_RECORDS[chosen.form]} in {made.folder}"])


def _verify(work: Path, as_json: bool) -> None:
    from data_pipelines.cache.store import verify_caches

    found = verify_caches(work)
    lines = [line for name, problems in found.items() for line in problems or [f"{name}: sound"]]
    report(found, as_json, lines or [f"no cache in {work}"])
    if any(found.values()):
        raise typer.Exit(1)


def wrap(
    source: Annotated[Path, typer.Argument(help="Folder of PNG and JPEG files.")],
    out: Annotated[Path, typer.Option(help="New folder for the DICOM files.")],
    labels: Annotated[
        Path | None, typer.Option(help="CSV with a path column; copied with the new paths.")
    ] = None,
    modality: Annotated[str, typer.Option(help="CR, or SC for secondary capture objects.")] = "CR",
    body_part: Annotated[str, typer.Option(help="BodyPartExamined, for instance CHEST.")] = "",
    burned_in: Annotated[
        Literal["YES", "NO"] | None, typer.Option(help="Is text burned into the pictures?")
    ] = None,
    as_json: Json = False,
) -> None:
    """Wrap PNG and JPEG images as DICOM, marked as derived and, for JPEG, as lossy; no spacing is
    invented.
    """
    from data_pipelines.sources.dicom_wrapper import wrap as run
    from medres.progress import Bars

    with Bars().task("wrap") as update:
        summary = run(
            source,
            out,
            labels=labels,
            modality=modality,
            body_part=body_part,
            burned_in=burned_in,
            progress=update,
        )
    report(summary, as_json, [f"{key}: {value}" for key, value in summary.items()])


def _read_json(path: Path | None) -> Any:
    from data_pipelines.errors import SpecError

    try:
        return json.loads(Path(path or "").read_text())
    except ValueError:
        raise SpecError(f"{path}: no JSON") from None
