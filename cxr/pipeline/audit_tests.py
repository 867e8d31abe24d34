"""The eight tests of the audit, each fed from an evaluated run."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxr.audit.attention import audit_attention
from cxr.audit.baseline_inputs import read_inputs
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import Images
from cxr.audit.copy_search import read_files
from cxr.audit.leakage import audit_leak
from cxr.audit.map_faithfulness import audit_faithfulness
from cxr.audit.occlusion import audit_lungs
from cxr.audit.pooled_features import pooled_features
from cxr.audit.result import AuditResult
from cxr.audit.robustness import audit_robustness
from cxr.audit.subgroups import age_bands, audit_subgroups
from cxr.audit.within_class_sources import audit_sources, source_rows
from cxr.console import images_bar, log
from cxr.errors import MissingInputError
from cxr.explain.pointing import read_masks
from cxr.files import atomic_write, digest, digest_of, read_json, write_json
from cxr.imaging.preprocess import PreprocessSpec
from cxr.models.ensemble import WEIGHTED
from cxr.pipeline.config import AuditConfig
from cxr.pipeline.run_folder import command
from cxr.pipeline.trained_run import Explainer, open_explainer

AUDIT_VERSION = 2
"""Raised when a test would give other figures, so that kept results are measured anew."""
WORKERS = 2
"""Threads that decode the original files."""


@dataclass(frozen=True)
class Subject:
    """What the tests look at.

    Attributes:
        run: the opened run with its test predictions.
        images: its images, for the tests that show altered ones to the networks.
        out: the folder ``audit/``.
        config: of the stage.
        key: digest of everything that the results depend on.
    """

    run: Explainer
    images: Images
    out: Path
    config: AuditConfig
    key: str

    @property
    def root(self) -> Path:
        """Folder of the original images."""
        return Path(self.run.prepared.info["root"])

    def column(self, name: str) -> NDArray[np.str_]:
        """Return a column of the prepared table, all "" where it is missing."""
        table = self.run.prepared.table
        return table[name].to_numpy(str) if name in table else np.full(len(table), "")


def open_subject(config: AuditConfig) -> Subject:
    """Open an evaluated run for the audit.

    Raises:
        MissingInputError: the run was not evaluated.
    """
    run = open_explainer(config)
    if run.split != "test":
        raise MissingInputError(
            f"{run.folder} was not evaluated, and the audit sets the model's test predictions "
            f"beside its own: first give {command('evaluate', config)}"
        )
    table, info = run.prepared.table, run.prepared.info
    masks = table["mask"].tolist() if "mask" in table else [""] * len(table)
    root = Path(info["root"])
    if any(masks) and not (root / next(filter(None, masks))).is_file():
        log.warning("the lung masks are not at %s any more: what needs them is skipped", root)
        masks = [""] * len(table)
    split = table["split"].to_numpy(str)
    images = Images(
        pixels=run.prepared.pixels,
        targets=run.prepared.targets,
        groups=table["group"].to_numpy(str),
        labels=run.ensemble.labels,
        fit_rows=np.flatnonzero(split != "test"),
        test_rows=run.rows,
        has_mask=np.array([bool(name) for name in masks]),
        read_masks=partial(_read_masks, root, masks, PreprocessSpec(**info["preprocess"])),
    )
    key = audit_key(run, config.seed, config.resamples)
    return Subject(run, images, run.folder / "audit", config, key)


def _read_masks(
    root: Path, names: Sequence[str], spec: PreprocessSpec, rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return read_masks(root, [names[row] for row in rows], spec)


def audit_key(run: Explainer, seed: int, resamples: int) -> str:
    """Digest what the results depend on: images, weights, predictions, seed, resamples."""
    files = [run.folder / "members" / name / "weights.safetensors" for name in run.members]
    files.append(run.folder / "evaluation" / "predictions.csv")
    shas = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    settings = {"version": AUDIT_VERSION, "seed": seed, "resamples": resamples}
    return digest(
        run.prepared.info["fingerprint"],
        *shas,
        digest_of(run.ensemble.to_dict()),
        digest_of(settings),
    )


def _leak(subject: Subject) -> AuditResult:
    prepared = subject.run.prepared
    names = prepared.table["image"].tolist()
    files = read_files(
        subject.root,
        names,
        prepared.pixels,
        PreprocessSpec(**prepared.info["preprocess"]),
        workers=WORKERS,
        progress=images_bar,
    )
    split, patients, groups = (subject.column(name) for name in ("split", "patient_id", "group"))
    return audit_leak(
        prepared.pixels, split, patients, groups, names, files=files, progress=images_bar
    )


def _baselines(subject: Subject) -> AuditResult:
    run, images = subject.run, subject.images
    inputs = read_inputs(
        images.pixels,
        subject.column("width"),
        subject.column("height"),
        root=subject.root,
        names=run.prepared.table["image"].tolist(),
        progress=images_bar,
    )
    probs = {
        name: run.predictions[[f"prob_{name}_{label}" for label in images.labels]].to_numpy(float)
        for name in (*run.ensemble.members, WEIGHTED)
    }
    return audit_baselines(
        inputs,
        images.targets,
        images.groups,
        images.labels,
        fit_rows=images.fit_rows,
        test_rows=images.test_rows,
        model_probs=probs,
        model=WEIGHTED,
        seed=subject.config.seed,
        progress=images_bar,
    )


def _sources(subject: Subject) -> AuditResult:
    run, seed = subject.run, subject.config.seed
    split, labels, sources = (subject.column(name) for name in ("split", "label", "source"))
    rows = source_rows(split, labels, sources, seed=seed)
    features = {name: _features(subject, name, rows) for name in run.members if len(rows)}
    return audit_sources(
        run.prepared.table, run.ensemble.labels, features, rows, seed=seed, progress=images_bar
    )


def _features(subject: Subject, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a member's pooled features, from ``features-<member>.npy`` where they fit."""
    path = subject.out / f"features-{name}.npy"
    card = path.with_suffix(".json")
    wanted = {"key": subject.key, "rows": digest(np.ascontiguousarray(rows).tobytes())}
    if path.exists() and card.exists() and read_json(card, mend=f"remove {card}") == wanted:
        kept: NDArray[np.float32] = np.load(path)
        return kept
    with images_bar(f"features, {name}", len(rows)) as done:
        found = pooled_features(
            subject.run.members[name],
            subject.images.pixels,
            rows,
            batch_size=subject.config.batch_size,
            on_image=done,
        )
    with atomic_write(path) as file:
        np.save(file, found)
    write_json(card, wanted)
    return found


def _subgroups(subject: Subject) -> AuditResult:
    run, images = subject.run, subject.images
    names = list(images.labels)
    predicted = np.array([names.index(label) for label in run.predictions["prediction"]])
    attributes = {
        name: subject.column(name)[images.test_rows] for name in ("sex", "view", "source")
    }
    attributes["age"] = age_bands(subject.column("age")[images.test_rows].tolist())
    return audit_subgroups(
        images.targets[images.test_rows],
        predicted,
        images.groups[images.test_rows],
        names,
        {name: attributes[name] for name in ("sex", "age", "view", "source")},
        seed=subject.config.seed,
        resamples=subject.config.resamples,
    )


def _on_images(
    audit: Callable[..., AuditResult], number: int, subject: Subject, *, resampled: bool = True
) -> AuditResult:
    """Run a test that shows altered images to the networks."""
    run = subject.run
    options = {"resamples": subject.config.resamples} if resampled else {}
    return audit(
        run.members,
        run.ensemble,
        subject.images,
        # Each test has a stream of its own, so an interrupted audit ends like a whole one.
        rng=np.random.default_rng([subject.config.seed, number]),
        folder=subject.out,
        note=run.note,
        batch_size=subject.config.batch_size,
        progress=images_bar,
        **options,
    )


TESTS: dict[str, Callable[[Subject], AuditResult]] = {
    "leak": _leak,
    "baselines": _baselines,
    "lungs": partial(_on_images, audit_lungs, 3, resampled=False),
    "attention": partial(_on_images, audit_attention, 4),
    "sources": _sources,
    "robustness": partial(_on_images, audit_robustness, 6),
    "faithfulness": partial(_on_images, audit_faithfulness, 7),
    "subgroups": _subgroups,
}
