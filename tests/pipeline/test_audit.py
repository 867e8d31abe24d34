"""The audit stage on a tiny run: whole, interrupted, done again; and planted shortcuts found."""

import json
from pathlib import Path

import numpy as np
import pytest

from cxr.audit.baseline_inputs import thumbnails
from cxr.audit.baselines import audit_baselines
from cxr.audit.context import AuditContext
from cxr.audit.leakage import audit_leak
from cxr.audit.linear import fit_linear
from cxr.audit.result import AUDIT_VERSION
from cxr.audit.subgroups import audit_subgroups
from cxr.errors import InputError, MissingInputError
from cxr.pipeline import audit_stage as audit
from cxr.pipeline.audit_stage import audit_stage
from cxr.pipeline.audit_tests import TESTS
from cxr.pipeline.config import compose
from cxr.pipeline.prepare_stage import prepare_stage

CHEAP = "tests=[leak,baselines,sources,subgroups]"
PLANTED = {"none": "clear", "marker": "shortcut", "exposure": "shortcut"}


@pytest.fixture
def folder(tiny_run, tmp_path):
    """Return a copy of the tiny run's folder, whose audit is nobody else's, and its overrides."""
    copy = tmp_path / tiny_run.data / "copied"
    copy.mkdir(parents=True)
    for path in tiny_run.folder.iterdir():
        if path.name != "audit":
            (copy / path.name).symlink_to(path)
    for path in tiny_run.folder.parent.iterdir():
        if path != tiny_run.folder:
            (copy.parent / path.name).symlink_to(path)
    where = [f"data={tiny_run.data}", "run=copied", f"output_root={tmp_path}"]
    return copy, [*where, "resamples=20"]


def run(overrides, *more):
    return audit_stage(compose("audit", [*overrides, *more]))


def read(folder):
    return json.loads((folder / "audit" / "audit.json").read_text())


def numbers(values):
    return {
        result["id"]: (result["statistic"], result["values"], result["tables"])
        for result in values["results"]
    }


@pytest.mark.long
def test_all_eight_tests_give_a_result(folder, monkeypatch):
    copy, overrides = folder
    values = run(overrides)
    assert values["complete"]
    assert [result["id"] for result in values["results"]] == list(TESTS)
    for result in values["results"]:
        assert result["verdict"] in ("clear", "suspicious", "shortcut", "skipped")
        assert result["what"]
        assert result["sentence"]
        for name in result["plots"]:
            assert (copy / "audit" / name).is_file()
    assert "synthetic phantom" in values["note"]
    assert read(copy)["headline"].startswith("Of 9 audit tests: ")
    reasons = {result["id"]: result["reason"] for result in values["results"]}
    assert reasons["sources"] == "all images come from one source, phantom"

    def never(_context):
        raise AssertionError("done before")

    monkeypatch.setattr(audit, "TESTS", dict.fromkeys(TESTS, never))
    assert numbers(run(overrides)) == numbers(read(copy))


@pytest.mark.long
def test_an_interrupted_audit_goes_on(folder, monkeypatch):
    copy, overrides = folder

    def stop(_context):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit, "TESTS", TESTS | {"sources": stop})
        with pytest.raises(KeyboardInterrupt):
            run(overrides, CHEAP)
    assert [result["id"] for result in read(copy)["results"]] == ["leak", "baselines"]
    went_on = run(overrides, CHEAP)
    whole = run(overrides, CHEAP, "force=true")
    assert numbers(went_on) == numbers(whole)
    assert not whole["complete"]


@pytest.mark.long
def test_another_seed_is_another_audit(folder):
    copy, overrides = folder
    run(overrides, "tests=[leak,subgroups]")
    before = read(copy)["key"]
    again = run(overrides, "tests=[subgroups]", "seed=1")
    assert again["key"] != before
    assert [result["id"] for result in again["results"]] == ["subgroups"]


@pytest.mark.long
def test_an_audit_of_an_earlier_version_is_done_anew(folder, caplog):
    copy, overrides = folder
    run(overrides, "tests=[subgroups]")
    old = read(copy)
    del old["version"]
    (copy / "audit" / "audit.json").write_text(json.dumps(old))
    with caplog.at_level("INFO"):
        again = run(overrides, "tests=[subgroups]", "force=true")
    assert "of an earlier version of the audit: every test is done anew" in caplog.text
    assert again["version"] == AUDIT_VERSION


@pytest.mark.long
def test_unknown_tests_are_refused(folder):
    with pytest.raises(InputError, match="allowed are leak, baselines, lungs"):
        run(folder[1], "tests=[leaks]")


@pytest.mark.long
def test_a_run_that_was_not_evaluated_is_refused(folder):
    copy, overrides = folder
    (copy / "evaluation").unlink()
    with pytest.raises(MissingInputError, match="was not evaluated"):
        run(overrides)


@pytest.mark.long
@pytest.mark.parametrize("shortcut", PLANTED)
def test_planted_shortcuts_are_found_and_the_clean_phantom_is_clear(shortcut, tmp_path):
    overrides = [
        "data=phantom",
        "data.size=64",
        "data.phantom.size_px=64",
        f"output_root={tmp_path}",
        "data.phantom.patients_per_class=100",
        "data.phantom.images_per_patient=[2,2]",
        "data.fractions=[0.6,0.1,0.3]",
        f"data.phantom.shortcut={shortcut}",
    ]
    prepared = prepare_stage(compose("prepare", overrides))
    found = {result.id: result.verdict for result in audit_without_networks(prepared)}
    assert found["baselines"] == PLANTED[shortcut]
    assert found["leak"] == "clear"
    if shortcut == "none":
        assert found["subgroups"] in ("clear", "skipped")


def audit_without_networks(prepared):
    """Return the tests that need no network; a linear model on thumbnails stands for one."""
    table, labels = prepared.table, prepared.labels
    test = np.flatnonzero(table["split"] == "test")
    fit = np.flatnonzero(table["split"] != "test")
    thumbs = thumbnails(prepared.pixels, np.arange(len(table))).reshape(len(table), -1)
    groups = table["group"].to_numpy(str)[fit]
    model = fit_linear(thumbs[fit], prepared.targets[fit], groups, n_classes=len(labels))
    context = AuditContext(
        table=table,
        pixels=prepared.pixels,
        labels=labels,
        test_rows=test,
        members={},
        ensemble=None,
        probs={"thumbnail model": model.probs(thumbs[test])},
        root=Path(prepared.info["root"]),
        resamples=300,
    )
    return [audit(context) for audit in (audit_leak, audit_baselines, audit_subgroups)]
