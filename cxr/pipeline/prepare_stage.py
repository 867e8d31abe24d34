"""Stage 1: a manifest from whatever the data is, and the prepared set from it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from cxr.console import images_bar, log
from cxr.data.groups import Copies, describe_limits, find_overlap
from cxr.data.manifest import join_manifests, patients_unknown, read_manifest
from cxr.data.phantom.writer import write_phantom
from cxr.data.prepared import Prepared, prepare
from cxr.data.sources.folder import read_folder
from cxr.data.splits import SPLITS
from cxr.errors import InputError, MissingInputError, command
from cxr.files import run_folder
from cxr.imaging.preprocess import NAMED, PreprocessSpec
from cxr.labels import label_fault, order_labels
from cxr.pipeline.config import DataConfig, PrepareConfig, given_data_settings

KINDS = ("phantom", "manifest", "folder")


def prepare_stage(config: PrepareConfig) -> Prepared:
    """Make or reuse the prepared set that a configuration asks for.

    Raises:
        InputError: see cxr.data.prepared.prepare.
    """
    return _prepare(config, config.data, *_read(config, config.data))


def _read(config: PrepareConfig, data: DataConfig) -> tuple[pd.DataFrame, Path, list[str]]:
    """Return a manifest, the folder that its paths start from, and the images left out of it."""
    folder = run_folder(Path(config.output_root), data.name, "prepared").parent
    manifest, root = read_source(data, folder)
    patterns, names = data.exclude, manifest["image"].map(lambda image: Path(image).name)
    hit = names.map(lambda name: any(fnmatchcase(name, pattern) for pattern in patterns))
    hit = hit.astype(bool)
    if hit.all():
        raise InputError(
            f"data.exclude {patterns} leaves out all {len(manifest)} images: correct the patterns"
        )
    return manifest[~hit].reset_index(drop=True), root, manifest["image"][hit].tolist()


def _prepare(
    config: PrepareConfig, data: DataConfig, manifest: pd.DataFrame, root: Path, excluded: list[str]
) -> Prepared:
    parent = Path(config.output_root) / data.name / "prepared"
    workers = data.workers
    prepared = prepare(
        manifest, root, parent, data, excluded=excluded, workers=workers, progress=images_bar
    )
    _report(prepared)
    return prepared


def overlap_of(local: Prepared, trained: Prepared) -> Copies:
    """Return pairs of rows of two prepared sets that show the same exposure."""
    with images_bar("images that both sets hold", len(local.table) + len(trained.table)) as done:
        return find_overlap(
            local.pixels,
            local.table["sha256"].tolist(),
            trained.pixels,
            trained.table["sha256"].tolist(),
            on_progress=done,
        )


def prepare_whole(
    config: PrepareConfig, spec: PreprocessSpec, labels: Sequence[str]
) -> tuple[Prepared, dict[str, int]]:
    """Prepare every image of a data set as test, for a run that was trained on other data.

    The images are prepared by ``spec``, as the run's own were; ``labels`` are the run's classes.

    Returns:
        The prepared set with those of the classes that it has, and how many images were left
        out of each class that the run does not know.

    Raises:
        InputError: a setting of preparation that is not the run's, no image of a class that the
            run knows, and see cxr.data.prepared.prepare.
    """
    _refuse_settings(config, spec)
    same = {key: getattr(spec, key) for key in ("fit", "lungs", "lungs_margin", "lungs_fallback")}
    data = replace(config.data, labels=None, size=spec.size_px, split="whole", leave_out=[], **same)
    if data.spec != spec:
        raise InputError(
            f"the run was trained with the lung finder {spec.finder[:8]}, installed is "
            f"{data.spec.finder[:8]}: train it again, or install the cxr of its training"
        )
    manifest, root, excluded = _read(config, data)
    known = manifest["label"].map(lambda label: not label_fault(label, labels)).astype(bool)
    unknown = Counter(manifest["label"][~known].tolist())
    manifest = manifest[known].reset_index(drop=True)
    if manifest.empty:
        raise InputError(
            f"no image of data={data.name} is of a class that the run knows ({', '.join(labels)}): "
            f"it has {', '.join(sorted(unknown))}; rename the labels or measure other data"
        )
    for label, count in unknown.items():
        log.warning(
            "%d images of class %s are left out: the run does not know it, but %s",
            *(count, label, ", ".join(labels)),
        )
    occurring = order_labels(manifest["label"])
    data = replace(data, labels=[label for label in labels if label in occurring])
    return _prepare(config, data, manifest, root, excluded), dict(unknown)


def _refuse_settings(config: PrepareConfig, spec: PreprocessSpec) -> None:
    """Refuse what the command line says of preparing the images, which follows the run."""
    allowed = {**asdict(spec), "size": spec.size_px, "split": "whole"}
    for key in ("size", *NAMED, "lungs_margin", "labels", "split", "fractions", "split_seed"):
        value = getattr(config.data, key)
        if key in given_data_settings(config) and value != allowed.get(key):
            raise InputError(
                f"data.{key} is {value!r}: the images are prepared as the run's own were, "
                "and all of them are used; leave it out"
            )


def read_source(data: DataConfig, folder: Path) -> tuple[pd.DataFrame, Path]:
    """Return the manifest of a data configuration and the folder that its paths start from.

    ``folder`` receives the phantom's images.

    Raises:
        InputError: an unknown kind, a missing folder, a bad manifest.
    """
    if data.kind not in KINDS:
        raise InputError(f"data.kind is {data.kind!r}: allowed are {', '.join(KINDS)}")
    if data.kind == "phantom":
        phantom = data.phantom
        root = folder / f"images-{phantom.digest[:8]}"
        if not (root / "manifest.csv").exists():
            count = phantom.patients_per_class * 4 * sum(phantom.images_per_patient) // 2
            with images_bar("synthetic images", count) as done:
                write_phantom(root, phantom, on_image=done)
        return read_manifest(root / "manifest.csv", labels=data.labels), root
    if not data.root:
        raise InputError(
            f"data.root is empty and data={data.name} needs a folder: give data.root=PATH"
        )
    root = Path(data.root).expanduser()
    if not root.is_dir():
        hint = "give data.root=PATH"
        if data.name in ("cxr4", "cxr4plus"):
            fetch = command("download", data=data.name, **{"data.root": str(root)})
            hint += f", or fetch the public sources with {fetch}"
        raise MissingInputError(f"data.root {root} is no folder: {hint}")
    if data.kind == "manifest" and data.parts:
        return join_manifests(root, data.parts, labels=data.labels), root
    if data.kind == "manifest":
        return read_manifest(root / "manifest.csv", labels=data.labels), root
    return read_folder(root, split_names=data.split_folders or None), root


def _report(prepared: Prepared) -> None:
    counts, disjoint = prepared.info["counts"], prepared.info["disjoint"]
    split = prepared.table["split"].value_counts()
    kinds = ("identical", "near", "conflicting", "unreadable")
    log.info(
        "%s %s: %d images of %d groups (train %d, val %d, test %d); left out %d excluded, %d "
        "identical and %d near copies, %d with conflicting labels, %d unreadable; %d groups cross "
        "a split%s",
        *("reusing" if prepared.reused else "prepared", prepared.folder),
        *(counts["kept"], disjoint["groups"], *(split.get(name, 0) for name in SPLITS)),
        *(counts.get("excluded", 0), *(counts[f"dropped_{kind}"] for kind in kinds)),
        disjoint["crossing_groups"],
        " (forced by the published split)" if disjoint["crossing_groups"] else "",
    )
    if lungs := prepared.info.get("lungs"):
        fallback = ", ".join(f"{label} {count}" for label, count in lungs["fallback"].items())
        log.info("fewer than two lungs found, so shown by data.lungs_fallback: %s", fallback)
    if prepared.info["settings"]["near_duplicates"] and not prepared.reused:
        log.info("copies: %s", describe_limits(counts["rows"]))
    if unknown := patients_unknown(prepared.table):
        log.warning("%s", unknown)
