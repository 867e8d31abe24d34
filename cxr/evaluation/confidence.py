"""Everything about certainty on test: calibration, prediction sets, referral; to plain values.

Computed from the predictions table and what was fitted on validation; no model runs here.
N samples, K classes.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cxr.evaluation.bootstrap import RESAMPLES, resample
from cxr.evaluation.calibration import (
    BINS,
    IMAGES_PER_BIN,
    bins_for,
    events,
    gap_statistics,
    measure_calibration,
    reliability_curve,
)
from cxr.evaluation.evaluate import columns_of
from cxr.evaluation.intervals import CONFIDENCE
from cxr.evaluation.metrics import Floats
from cxr.evaluation.selective import measure_selective
from cxr.evaluation.set_coverage import KINDS, fitted_sets, mean_sizes, measure_sets
from cxr.evaluation.summary import count_images
from cxr.evaluation.tables import Row, show_interval, show_number
from cxr.labels import label_indices
from cxr.models.ensemble import EQUAL, WEIGHTED, Ensemble, all_probs
from cxr.plotting import RESEARCH_USE

TOP = "named class"
"""Key of the reliability curve of whichever class is named."""

KIND_SHOWN = {"plain": "one threshold", "per_class": "per class"}

CALIBRATION_METHOD = {
    "shares": "Wilson's score interval of as many images as the patients are worth",
    "nll, brier, aurc, accuracy at a coverage": "Student's t by patient from influences, on the "
    "log or logit scale",
    "calibration errors": "whole groups resampled, inverted",
}
"""How each figure gets its interval."""

logger = logging.getLogger(__name__)


def probs_before_and_after(
    predictions: pd.DataFrame, ensemble: Ensemble
) -> dict[str, dict[str, Floats]]:
    """Return each model's probabilities before and after its temperatures.

    Returns:
        Per member, "equal" and "ensemble": ``before``, with all T = 1, the members' own and those
        behind the pools, and ``after``, each (N, K).
    """
    logits = {
        name: columns_of(predictions, "logit", name, ensemble.labels) for name in ensemble.members
    }
    plain = replace(
        ensemble,
        temperatures=dict.fromkeys(ensemble.members, 1.0),
        temperature=1.0,
        equal_temperature=1.0,
    )
    return {
        name: {"before": before, "after": columns_of(predictions, "prob", name, ensemble.labels)}
        for name, before in all_probs(logits, plain).items()
    }


def measure_confidence(
    predictions: pd.DataFrame,
    *,
    ensemble: Ensemble,
    uncertainty: Mapping[str, Any],
    resamples: int = RESAMPLES,
    seed: int = 0,
    note: str = "",
) -> dict[str, Any]:
    """Compute the content of calibration.json.

    Args:
        predictions: the table of ``build_predictions``; classes may be absent from it.
        ensemble: what made them.
        uncertainty: uncertainty.json, fitted on validation.
        resamples: of whole groups.
        seed: of the resamples.
        note: what the images are; stands in the result.

    Returns:
        Head as in metrics.json; ``calibration`` per model (see ``measure_calibration``);
        ``reliability`` of the ensemble (before and after, each class and ``TOP``);
        ``prediction_sets`` (see ``measure_sets``); ``referral`` per model (see
        ``measure_selective``); ``skipped``, part to reason.

    Raises:
        InputError: a label that the ensemble does not know.
    """
    labels = list(ensemble.labels)
    targets = np.asarray(label_indices(predictions["label"], labels), np.int64)
    groups = predictions["group"].to_numpy(str)
    models = probs_before_and_after(predictions, ensemble)
    served = models[WEIGHTED]["after"]
    sets = fitted_sets(served, uncertainty)
    statistics: dict[Any, Any] = {"sizes": partial(mean_sizes, sets)}
    for name, stages in models.items():
        statistics |= {(name, *key): gaps for key, gaps in gap_statistics(targets, stages).items()}
    rng = np.random.default_rng(seed)
    draws = resample(groups, statistics, rng=rng, resamples=resamples)
    drawn = {"resamples": resamples, "seed": seed}
    result: dict[str, Any] = {
        "note": note,
        "use": RESEARCH_USE,
        "labels": labels,
        "members": list(ensemble.members),
        **count_images(targets, groups, labels),
        "interval": {"level": CONFIDENCE, "method": CALIBRATION_METHOD} | drawn,
        "temperatures": dict(ensemble.temperatures),
        "bins": bins_for(len(targets)),
        "calibration": {
            name: measure_calibration(
                *(targets, stages, groups, labels),
                {key[1:]: gaps for key, gaps in draws.items() if key[0] == name},
            )
            for name, stages in models.items()
        },
        "reliability": {
            stage: {
                name: reliability_curve(*event, groups)
                for name, event in zip((TOP, *labels), events(targets, probs), strict=True)
            }
            for stage, probs in models[WEIGHTED].items()
        },
        "prediction_sets": measure_sets(targets, served, groups, uncertainty, sets, draws["sizes"]),
        "referral": {
            name: measure_selective(
                targets,
                stages["after"],
                groups,
                threshold=uncertainty["referral"]["threshold"] if name == WEIGHTED else None,
            )
            for name, stages in models.items()
        },
        "fitted": {
            key: uncertainty[key]
            for key in ("fitted_on", "n", "n_patients", "counts", "patients", "warning")
        },
    }
    result["skipped"] = _skip(result, uncertainty)
    return result


def calibration_table(found: Mapping[str, Any], stage: str) -> list[Row]:
    """Return a row per model: its calibration ``before`` or ``after`` the temperatures."""
    return [
        {
            "model": name,
            "NLL": show_interval(values["nll"]),
            "Brier": show_number(values["brier"]["value"]),
            "ECE": show_number(values["ece"]["value"]),
            "debiased": show_interval(values["ece_debiased"]),
        }
        for name in (*found["members"], EQUAL, WEIGHTED)
        for values in [found["calibration"][name][stage]]
    ]


def sets_table(found: Mapping[str, Any]) -> list[Row]:
    """Return a row per level and kind: coverage, mean size, and the coverage of each class."""
    rows = []
    for level, kinds in found["prediction_sets"].items():
        for kind in KINDS:
            values = kinds[kind]
            row = {
                "sets": f"{float(level):.0%}, {KIND_SHOWN[kind]}",
                "coverage": show_interval(values["coverage"]),
                "mean size": show_interval(values["size"], digits=2),
            }
            for label, value in values["per_class"].items():
                # Version 0.1 did not count the patients that a class's coverage rests on.
                counted = f", {value['patients']} patients" if "patients" in value else ""
                row[f"{label}{counted}"] = show_interval(value)
            rows.append(row)
    return rows


def referral_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what referring the least confident images to a human gives, for the ensemble."""
    values = found["referral"][WEIGHTED]
    share = values["at_coverage"]["coverage"]
    sentences = [
        f"when the ensemble answers the {share:.0%} of images of which it is most confident and "
        "the rest goes to a human, it is right on "
        f"{show_interval(values['at_coverage']['accuracy'])} of "
        f"those answered (on all images: {show_interval(values['accuracy_all'])}); area under the "
        f"risk-coverage curve {show_interval(values['aurc'])}"
    ]
    if fixed := values.get("at_threshold"):
        sentences.append(
            f"with the threshold {fixed['threshold']:.3f} fixed on validation for {share:.0%} it "
            f"answers {show_interval(fixed['coverage'])} and is right on "
            f"{show_interval(fixed['accuracy'])} of those"
        )
    return sentences


def _skip(result: dict[str, Any], uncertainty: Mapping[str, Any]) -> dict[str, str]:
    """Take out what an absent class leaves undefined; return the parts and why, and say so."""
    skipped = {}
    if not result["bins"]:
        skipped["calibration error"] = (
            f"{result['n']} images are too few for two bins of {IMAGES_PER_BIN}, so it is NaN"
        )
    elif result["bins"] < BINS:
        skipped[f"{BINS} bins"] = f"{result['n']} images allow {result['bins']}"
    for label in (label for label, count in result["counts"].items() if not count):
        skipped[f"class {label}"] = "no image of it, so no coverage and no calibration of its own"
        for values in result["calibration"].values():
            for stage in ("before", "after"):
                del values[stage]["per_class"][label]
        for curves in result["reliability"].values():
            del curves[label]
        for kinds in result["prediction_sets"].values():
            for kind in KINDS:
                del kinds[kind]["per_class"][label]
    for level, values in uncertainty["conformal"]["levels"].items():
        if values["note"]:
            skipped[f"sets at {level}"] = values["note"]
    for part, reason in skipped.items():
        logger.warning("%s: %s", part, reason)
    return skipped
