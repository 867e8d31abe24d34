"""What evaluating opens and draws: each member once, the test images once, the bootstrap once."""

from collections import Counter

import pytest

from cxr.errors import InputError
from cxr.evaluation import bootstrap
from cxr.pipeline import evaluate_stage as stage
from cxr.pipeline import trained_run
from cxr.pipeline.config import compose
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.report_stage import report_stage
from cxr.pipeline.trained_run import TrainedRun


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Count what is dear, wherever a stage asks for it."""
    counts: Counter = Counter()

    def count(module, name):
        original = getattr(module, name)

        def counted(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    for module, names in {
        trained_run: ("load_member", "predict_logits", "find_run", "read_predictions"),
        bootstrap: ("weight_blocks",),
        stage: ("write_report", "measure_confidence"),
    }.items():
        for name in names:
            count(module, name)
    return counts


def test_evaluate_opens_everything_once(own_run, calls):
    evaluate_stage(compose("evaluate", [*own_run.where(), "resamples=20"]))
    assert calls == {
        "find_run": 1,
        "load_member": 2,
        "predict_logits": 2,
        "weight_blocks": 1,
        "measure_confidence": 1,
        "write_report": 1,
    }


def test_the_report_alone_opens_no_test_split(own_run, calls):
    openings = (own_run.folder / "evaluation" / "test_openings.json").read_bytes()
    before = (own_run.folder / "evaluation" / "metrics.json").read_bytes()
    (own_run.folder / "report.html").unlink()
    path = report_stage(compose("report", own_run.where()))
    assert "How often it is right" in path.read_text()
    assert not {"predict_logits", "weight_blocks", "measure_confidence"} & set(calls)
    assert (own_run.folder / "evaluation" / "test_openings.json").read_bytes() == openings
    assert (own_run.folder / "evaluation" / "metrics.json").read_bytes() == before


def test_reading_thresholds_never_writes_them(own_run):
    path = own_run.folder / "uncertainty.json"
    path.unlink()
    with pytest.raises(InputError, match=r"no uncertainty\.json: fit it \(.*scripts/ensemble.py"):
        _ = TrainedRun(compose("evaluate", own_run.where())).uncertainty
    with pytest.raises(InputError, match=r"no uncertainty\.json"):
        evaluate_stage(compose("evaluate", own_run.where()))
    assert not path.exists()


@pytest.mark.parametrize("name", ["evaluate", "explain", "audit", "export", "ensemble", "report"])
def test_a_data_setting_of_another_run_is_refused(tiny_run, name):
    from cxr.pipeline.ensemble_stage import ensemble_stage

    opened = ensemble_stage if name == "ensemble" else TrainedRun
    with pytest.raises(InputError, match=r"data\.split is .published., but run .tiny. was made"):
        opened(compose(name, [*tiny_run.where(), "data.split=published"]))


def test_a_data_setting_of_the_run_itself_is_no_fault(tiny_run):
    run = TrainedRun(compose("evaluate", [*tiny_run.where(), "data.size=64"]))
    assert run.info["data_config"]["size"] == 64
