"""The verbs about data: ingest, cache, wrap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from data_pipelines.kinds import ColorRule, DeclaredUnitName, KindName, NiftiUnitName
from data_pipelines.labels.task import LABEL_TASKS
from data_pipelines.runtime.plain_text import counted
from medres.cli.console import Address, EngineOption, Json, Limit, Work, Workers, report

_RECORDS = {"image": "images", "stack": "stacks of slices", "volume": "volumes"}


def ingest(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files or URLs (s3://, gs://): DICOM; with --units also PNG, JPEG and "
            ".npz, with --nifti-units also NIfTI. Or a DICOMweb server: "
            "dicomweb://HOST/PATH?ATTRIBUTE=VALUE."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New work folder.")],
    download: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files of DICOMweb servers, which are kept. Default: OUT-dicom. "
            "Repeat the command to resume."
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="CSV file with the labels. Repeatable: several tables are joined."),
    ] = None,
    finding: Annotated[
        list[str] | None, typer.Option(help="Finding column of the CSV file. Repeatable.")
    ] = None,
    drop_class: Annotated[
        list[str] | None,
        typer.Option(help="Class whose images become unlabeled. Repeatable."),
    ] = None,
    merge_classes: Annotated[
        list[str] | None,
        typer.Option(metavar="NEW=A,B", help="Classes that get one new name. Repeatable."),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="Text file with one line per class, its folder and its name, such as "
            "LOC_synset_mapping.txt of ImageNet."
        ),
    ] = None,
    readers: Annotated[
        Literal["error", "majority", "any", "uncertain"],
        typer.Option(
            help="Several rows (raters) per key: an error; the majority; present if any rater says "
            "so; or uncertain unless all agree."
        ),
    ] = "error",
    seed: Annotated[int, typer.Option(help="Seed of the splits by patient.")] = 0,
    fractions: Annotated[
        str, typer.Option(help="Fractions of train, tune (validation) and test.")
    ] = "0.7,0.15,0.15",
    split_mode: Annotated[
        Literal["stratified", "hash"],
        typer.Option(
            help="Random and stratified by label; or by a keyed hash of each patient, so that new "
            "patients never change the split of others."
        ),
    ] = "stratified",
    splits_from: Annotated[
        Path | None,
        typer.Option(
            help="Earlier work folder: its patients keep their split; new patients are assigned."
        ),
    ] = None,
    external_site: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Images with this site, manufacturer, model or meta:* value are the test split.",
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Number of folds by patient of train and tune, in the column fold.")
    ] = 0,
    no_split: Annotated[
        bool,
        typer.Option(
            "--no-split",
            help="Make no splits, to only look at the images or predict them: all are in test.",
        ),
    ] = False,
    patients_per_uid: Annotated[
        int,
        typer.Option(
            help="Number of patients who may share a study or series UID and are then kept in one "
            "split; a UID of more patients identifies nothing."
        ),
    ] = 2,
    max_bad: Annotated[
        float | None,
        typer.Option(help="Fail if more than this fraction of the files (0 to 1) is quarantined."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="File with the key for the pseudonyms.")
    ] = None,
    for_processing: Annotated[
        bool, typer.Option("--for-processing", help="Accept FOR PROCESSING radiographs.")
    ] = False,
    kind: Annotated[
        KindName | None,
        typer.Option(
            help="Read files of this kind only, in all its formats. rgb: color pictures (PNG, "
            "JPEG, .npz, binary CIFAR), three channels. mr: DICOM MR and NIfTI, each volume in its "
            "own standard deviations."
        ),
    ] = None,
    units: Annotated[
        DeclaredUnitName | None,
        typer.Option(
            help="Accept PNG, JPEG and .npz (MedMNIST); declare their pixel units. HU: int16 .npz "
            "only."
        ),
    ] = None,
    nifti_units: Annotated[
        NiftiUnitName | None,
        typer.Option(
            help="Accept .nii and .nii.gz, each one CT volume; declare the units of their voxels. "
            'Needs: pip install "medres[nifti]".'
        ),
    ] = None,
    class_folders: Annotated[
        bool,
        typer.Option(
            "--class-folders",
            help="Folders are classes: CLASS/x.png or CLASS/PATIENT/x.png, below train, tune and "
            "test where there are such folders. The level that was taken is printed.",
        ),
    ] = False,
    patient_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Find the patient, or another group that must stay in one split, in the path of "
            "each file: the first group of the pattern, else the whole match. Town[0-9]+ for "
            "Town01_000060.jpg.",
        ),
    ] = None,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Also read what links out of SOURCE lead to."),
    ] = False,
    color: Annotated[
        ColorRule,
        typer.Option(
            help="Radiographs that are truly in color: refuse them, or take their luminance. A few "
            "colored pixels (an arrow, a marker) never exclude an image."
        ),
    ] = "refuse",
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of masks, or a masks.csv: PNG and NIfTI label maps, DICOM SEG, RTSTRUCT."
        ),
    ] = None,
    resample_masks: Annotated[
        bool,
        typer.Option(
            "--resample-masks", help="Resample masks that lie on another grid than their image."
        ),
    ] = False,
    label_order: Annotated[
        str | None,
        typer.Option(metavar="A<B<C", help="Which class wins where classes overlap: the last one."),
    ] = None,
    mask_classes: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL=CLASS,...",
            help="Names of the labels of masks. * stands for all others, an empty class for "
            "background: 1=liver,2=tumor or *=nucleus.",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Boxes: boxes.csv, COCO JSON, or a folder of Pascal VOC XML, YOLO text, DICOM SR "
            "or PNG masks."
        ),
    ] = None,
    box_classes: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL=CLASS,...",
            help="Names of the classes of boxes. * stands for all others, an empty class leaves "
            "boxes out: 0=car,1=truck or *=nucleus.",
        ),
    ] = None,
    mask_objects: Annotated[
        Literal["labels", "components"] | None,
        typer.Option(
            help="Where --boxes are masks, one object is each label, or each connected component "
            "of a label."
        ),
    ] = None,
    leaks: Annotated[
        Literal["error", "drop"],
        typer.Option(
            help="If a patient or identical pixels are in two given splits: fail, or drop images "
            "from train, then from tune."
        ),
    ] = "error",
    engine: EngineOption = "local",
    address: Address = None,
    workers: Workers = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Index, check and group images, and split them by patient, into a new work folder."""
    from data_pipelines.ingestion.pipeline import ingest as run
    from data_pipelines.runtime.engines.opening import opened_engine
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.progress import Bars

    folder = download or out.with_name(f"{out.name}-dicom")
    with limited(**parse_limits(limit or [])), opened_engine(engine, address) as opened:
        manifest = run(
            _downloaded(source, folder),
            labels,
            out,
            findings=tuple(finding or ()),
            drop_classes=tuple(drop_class or ()),
            merge_classes=_merged_classes(merge_classes or []),
            class_names=class_names,
            readers=readers,
            seed=seed,
            fractions=_fractions(fractions),
            split_mode=split_mode,
            splits_from=splits_from,
            external_site=_column_value(external_site),
            folds=folds,
            patients_per_uid=patients_per_uid,
            no_split=no_split,
            max_bad=max_bad,
            key_file=key_file,
            for_processing=for_processing,
            units=units,
            nifti_units=nifti_units,
            kind=kind,
            class_folders=class_folders,
            patient_pattern=patient_pattern,
            follow_links=follow_links,
            color=color,
            on_leak=leaks,
            masks=masks,
            resample_masks=resample_masks,
            label_order=label_order,
            mask_classes=_class_names(mask_classes, "--mask-classes"),
            boxes=boxes,
            box_classes=_class_names(box_classes, "--box-classes"),
            mask_objects=mask_objects,
            engine=opened,
            workers=workers,
            stages=Bars().task,
        )
    report(manifest.summary, as_json, _ingest_lines(manifest.summary, out))


def _downloaded(sources: list[str], folder: Path) -> list[Path | str]:
    """The sources as paths or URLs; what DICOMweb servers give is below the folder."""
    from data_pipelines.dicomweb.download import download, is_address
    from data_pipelines.runtime.object_stores import is_url
    from medres.progress import Bars

    paths: list[Path | str] = []
    for source in sources:
        if not is_address(source):
            paths.append(source if is_url(source) else Path(source))
            continue
        with Bars().task("download") as update:
            files = download(source, folder, progress=update)
        typer.echo(
            f"{counted(files.studies, 'study')}: {counted(files.new, 'file')} downloaded to "
            f"{folder}, {files.known} were there",
            err=True,
        )
        if folder not in paths:
            paths.append(folder)
    return paths


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"--fractions takes three numbers separated by commas, received {text!r}"
        ) from None


def _merged_classes(texts: list[str]) -> dict[str, str]:
    """Old name -> new name of NEW=A,B."""
    names: dict[str, str] = {}
    for text in texts:
        new, equals, old = text.partition("=")
        if not (new.strip() and equals and old.strip()):
            raise typer.BadParameter("--merge-classes takes NEW=A,B, such as other=cyst,scar")
        names |= {name.strip(): new.strip() for name in old.split(",") if name.strip()}
    return names


def _class_names(text: str | None, option: str) -> dict[str, str]:
    """Label -> class of LABEL=CLASS,LABEL=CLASS."""
    names: dict[str, str] = {}
    for part in (text or "").split(",") if text else []:
        label, equals, name = part.rpartition("=")
        if not (label.strip() and equals) or label.strip() in names:
            raise typer.BadParameter(
                f"{option} takes LABEL=CLASS,..., such as 1=liver,2=tumor or *=nucleus"
            )
        names[label.strip()] = name.strip()
    return names


def _column_value(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    column, equals, value = text.partition("=")
    if not (column.strip() and equals and value.strip()):
        raise typer.BadParameter("--external-site takes COLUMN=VALUE, such as site=north")
    return column.strip(), value.strip()


def _ingest_lines(summary: dict[str, Any], out: Path) -> list[str]:
    from data_pipelines.labels.exclusion_bias import exclusion_lines

    reasons = ", ".join(f"{code} {count}" for code, count in summary["reasons"].items())
    lines = [
        f"{counted(summary['given'], 'file')}: {summary['ok']} ok, {summary['repaired']} repaired, "
        f"{summary['quarantined']} quarantined, {summary['skipped']} skipped"
        + (f" ({reasons})" if reasons else "")
    ]
    for name, split in summary["splits"].items():
        lines.append(
            f"{name:5s} {counted(split['patients'], 'patient')}, "
            f"{counted(split['studies'], 'study')}, {counted(split['images'], 'image')}"
        )
    if summary["task"] != "none":
        lines.append(_labels_line(summary))
    if "annotations" in summary:
        lines.append(_annotations_line("masks", summary["annotations"]))
    if "boxes" in summary:
        lines.append(_annotations_line("boxes", summary["boxes"]))
    lines += exclusion_lines(summary["exclusions_by_label"])
    if summary["pseudonym_key"] == "made":
        lines.append(
            f"a new pseudonym key was created in {out}: protect it like the data, and pass it to "
            f"later ingests with --key-file"
        )
    return [
        *lines,
        *(f"warning: {text}" for text in summary.get("warnings", [])),
        f"work folder: {out}",
    ]


def _annotations_line(what: str, annotations: dict[str, Any]) -> str:
    images = ", ".join(
        f"{count} {state.replace('_', ' ')}" for state, count in annotations["images"].items()
    )
    return (
        f"{annotations['given']} {what}: {annotations['used']} used, {annotations['rejected']} "
        f"rejected, {annotations['unmatched']} unmatched, {annotations['skipped']} skipped; "
        f"images: {images}; classes: {', '.join(annotations['classes']) or 'none'}"
    )


def _labels_line(summary: dict[str, Any]) -> str:
    """The columns that were read as labels, so that a wrong column is noticed."""
    splits = [split["classes"] for split in summary["splits"].values()]
    if LABEL_TASKS[summary["task"]].exclusive:
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
            help="xray-SIZE, ct-SIZE, ct25d-SIZE (a slice with its neighbors as channels) or "
            "ctvol-SIZE (a volume); mr-, mr25d- and mrvol-SIZE likewise; rgb-SIZE (color)."
        ),
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="JSON file with a preprocessing specification.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Check every byte of the existing caches of WORK; build nothing."
        ),
    ] = False,
    engine: EngineOption = "local",
    address: Address = None,
    workers: Workers = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Decode the images once into verified shards of integers, or --verify the existing shards."""
    if ((preset is None) == (spec is None)) != verify or (verify and preset is not None):
        raise typer.BadParameter("give one of --preset NAME, --spec FILE and --verify")
    if verify:
        _verify(work, as_json)
        return
    from data_pipelines.cache.store import ensure_cache
    from data_pipelines.preprocessing.spec import spec_from
    from data_pipelines.runtime.engines.opening import opened_engine
    from data_pipelines.runtime.limits import limited, parse_limits
    from medres.progress import Bars

    chosen, bars = spec_from(preset if preset is not None else _read_json(spec)), Bars()
    with (
        limited(**parse_limits(limit or [])),
        opened_engine(engine, address) as opened,
        bars.task(f"cache {chosen.name}") as update,
    ):
        made = ensure_cache(
            work, chosen, engine=opened, workers=workers, progress=update, log=bars.line
        )
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

    problems = verify_caches(work)
    lines = [line for name, texts in problems.items() for line in texts or [f"{name}: intact"]]
    report(problems, as_json, lines or [f"no cache in {work}"])
    if any(problems.values()):
        raise typer.Exit(1)


def wrap(
    source: Annotated[Path, typer.Argument(help="Folder of PNG and JPEG files.")],
    out: Annotated[Path, typer.Option(help="New folder for the DICOM files.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV file with a path column; it is copied with the new paths."),
    ] = None,
    modality: Annotated[str, typer.Option(help="CR, or SC for secondary capture objects.")] = "CR",
    body_part: Annotated[str, typer.Option(help="BodyPartExamined, such as CHEST.")] = "",
    burned_in: Annotated[
        Literal["YES", "NO"] | None, typer.Option(help="Whether text is burned into the images.")
    ] = None,
    color: Annotated[
        ColorRule,
        typer.Option(
            help="Images that are truly in color: skip them, or take their luminance. A few "
            "colored pixels (an arrow, a marker) never exclude an image."
        ),
    ] = "refuse",
    as_json: Json = False,
) -> None:
    """Wrap PNG and JPEG images as DICOM, marked as derived and, for JPEG, as lossy compressed. No
    pixel spacing is added.
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
            color=color,
            progress=update,
        )
    report(summary, as_json, [f"{key}: {value}" for key, value in summary.items()])


def _read_json(path: Path | None) -> Any:
    from data_pipelines.errors import SpecError

    try:
        return json.loads(Path(path or "").read_text())
    except ValueError:
        raise SpecError(f"{path} is not a valid JSON file", code="not_json") from None
