"""A student that learns from a run's ensemble."""

import json

import numpy as np
import pytest
import torch

from cxr.errors import InputError
from cxr.evaluation.evaluate import read_predictions
from cxr.models.ensemble import Ensemble, all_probs
from cxr.pipeline.config import RunConfig, compose
from cxr.pipeline.distil_stage import distil_stage
from cxr.pipeline.evaluate_stage import evaluate_stage
from cxr.pipeline.trained_run import TrainedRun
from cxr.training.teacher import distillation_loss, teacher_of
from cxr.training.trainer_settings import TeacherSettings


def overrides(run, *extra):
    return [
        *run.where(),
        "model.pretrained=none",
        "model.input_size=64",
        "trainer.max_epochs=1",
        "trainer.batch_size=8",
        "trainer.progress=false",
        *extra,
    ]


@pytest.fixture(scope="module")
def student(tiny_run):
    return distil_stage(compose("distil", overrides(tiny_run)))


def test_the_student_is_a_run_of_its_own(tiny_run, student):
    assert student == tiny_run.folder.with_name("tiny-student")
    run = TrainedRun(RunConfig("phantom", "tiny-student", str(tiny_run.output_root)))
    card = json.loads((student / "members/mobilenetv2/member.json").read_text())
    teacher = TrainedRun(RunConfig("phantom", "tiny", str(tiny_run.output_root)))

    assert run.prepared.folder.resolve() == teacher.prepared.folder.resolve()
    assert run.info["data_config"] == teacher.info["data_config"]
    assert list(run.members) == ["mobilenetv2"]
    assert card["teacher"] == {
        "run": "tiny",
        "state": teacher.state,
        "temperature": 2.0,
        "weight": 0.7,
    }


def test_the_student_is_evaluated_as_any_run(tiny_run, student):
    metrics = evaluate_stage(
        compose(
            "evaluate",
            [
                "data=phantom",
                "run=tiny-student",
                f"output_root={tiny_run.output_root}",
                "resamples=20",
            ],
        )
    )
    assert set(metrics["models"]) >= {"mobilenetv2"}
    student_, teacher_ = (
        read_predictions(student.with_name(name) / "evaluation/predictions.csv")
        for name in ("tiny-student", "tiny")
    )
    right = [(part["prediction"] == part["label"]).mean() for part in (student_, teacher_)]
    assert metrics["less_teacher"]["accuracy"]["value"] == pytest.approx(right[0] - right[1])
    assert "the ensemble of tiny" in (student / "report.html").read_text()


def test_it_goes_on_or_reuses(tiny_run, student, caplog):
    before = (student / "members/mobilenetv2/weights.safetensors").read_bytes()
    distil_stage(compose("distil", overrides(tiny_run)))
    assert (student / "members/mobilenetv2/weights.safetensors").read_bytes() == before

    with pytest.raises(InputError, match=r"teacher\.weight 0\.7, now 0\.2"):
        distil_stage(compose("distil", overrides(tiny_run, "teacher.weight=0.2")))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["run=tiny-student"], "a student itself"),
        (["run=none"], "there is no run"),
        (["data.split_seed=7"], "data.split_seed is 7"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tiny_run, extra, message):
    with pytest.raises(InputError, match=message):
        distil_stage(compose("distil", overrides(tiny_run, *extra)))


@pytest.mark.parametrize("key", [{"weight": 1.5}, {"weight": -0.1}, {"temperature": 0.0}])
def test_settings_are_checked(key):
    with pytest.raises(InputError, match=f"teacher.{next(iter(key))} is"):
        TeacherSettings(**key)


@pytest.mark.parametrize("pool", ["linear", "logarithmic"])
def test_the_teacher_says_what_the_ensemble_says(tiny_run, pool):
    run = TrainedRun(RunConfig("phantom", "tiny", str(tiny_run.output_root)))
    values = run.ensemble.to_dict() | {"pool": pool, "temperature": 1.3}
    ensemble = Ensemble.from_dict(values)
    pixels = torch.from_numpy(np.array(run.prepared.pixels[:5]))[:, None]

    log_probs = teacher_of(run.members, ensemble)(pixels.float() / 255)

    with torch.no_grad():
        logits = {
            name: member(member.prepare(pixels)).numpy() for name, member in run.members.items()
        }
    expected = all_probs(logits, ensemble)["ensemble"]
    np.testing.assert_allclose(log_probs.exp().numpy(), expected, atol=2e-5)
    assert not log_probs.requires_grad


def test_the_loss_is_hintons():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).log()

    loss = distillation_loss(logits, teacher, 3.0)

    soft = teacher.exp() ** (1 / 3)
    soft = soft / soft.sum(1, keepdim=True)
    student = (logits / 3).softmax(1)
    expected = 9 * (soft * (soft.log() - student.log())).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    # At its teacher's own logits nothing is left to learn.
    assert distillation_loss(teacher, teacher, 3.0).abs() < 1e-6
