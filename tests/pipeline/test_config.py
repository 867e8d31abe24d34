"""Configuration: every script composes, and a misspelled key is refused with one line."""

import ast
import inspect
from pathlib import Path

import pytest
import yaml

from cxr.errors import InputError, MissingInputError
from cxr.pipeline import config as config_module
from cxr.pipeline.config import CONFIGS, SCHEMAS, TrainConfig, compose, fail
from cxr.training import trainer_settings
from cxr.training.trainer_settings import TrainerSettings

NEEDED = {"folder": ["data.root=x"], "seed": ["data.root=x"]}


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def line_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a script prints for an error."""
    with pytest.raises(SystemExit) as caught:
        fail(error)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_script_composes_with_its_defaults(name):
    found = compose(name, [])
    assert type(found) is SCHEMAS[name]


def test_every_root_file_has_a_schema():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {
        *SCHEMAS,
        "leak",
        "published",
        "mitigation",
    }


def test_every_data_set_can_be_trained_with_every_model():
    for data in names("data"):
        for model in names("model"):
            found = compose("train", [f"data={data}", f"model={model}", *NEEDED.get(data, [])])
            assert found.data.name == data
            assert found.model.name == model
            assert isinstance(found.trainer, TrainerSettings)


def test_every_experiment_composes():
    for name in names("experiment"):
        compose("train", [f"experiment={name}"])


def test_phantom_is_the_default_said_to_be_synthetic_and_needs_no_hub():
    found = compose("train", [])
    assert (found.data.name, found.data.synthetic) == ("phantom", True)
    assert found.model.pretrained == "none"
    for data in names("data"):
        found = compose("train", [f"data={data}", *NEEDED.get(data, [])])
        assert found.data.synthetic == (data == "phantom")
        assert (found.model.pretrained == "none") == (data == "phantom")


def test_overrides_arrive_with_their_types():
    found: TrainConfig = compose("train", ["trainer.lr=3", "model.freeze=[a,b]", "run='1'"])
    assert found.trainer.lr == 3.0
    assert found.model.freeze == ["a", "b"]
    assert found.run == "1"


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("trainer.epochs=3", "epochs"),
        ("+trainer.epochs=3", "epochs"),
        ("++data.sise=64", "sise"),
        ("+new=1", "new"),
        ("+data.phantom.patients=3", "data.phantom.patients"),
        ("trainer.max_epochs=three", "three"),
        ("trainer.augment.noise=[1]", "noise"),
        ("data=x-ray", "x-ray"),
        ("model=resnet", "resnet"),
        ("trainer.lr=", "lr"),
        ("data.size", "data.size"),
        ("run=[a", "[a"),
    ],
)
def test_a_wrong_override_is_refused_with_one_line(override, word, capsys):
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        compose("train", [override])
    line = line_of(caught.value, capsys)
    assert word in line
    assert len(line) < 900


def test_our_errors_are_printed_as_they_are(capsys):
    assert line_of(InputError("x is 3: allowed are 1, 2"), capsys) == (
        "error: x is 3: allowed are 1, 2\n"
    )
    assert line_of(MissingInputError("no file x: make it"), capsys) == (
        "error: no file x: make it\n"
    )


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError("x"), SystemExit(0)])
def test_a_bug_keeps_its_traceback(error, capsys):
    assert fail(error) is None
    assert capsys.readouterr() == ("", "")


def test_interruption_says_that_the_same_command_goes_on(capsys):
    with pytest.raises(SystemExit) as caught:
        fail(KeyboardInterrupt())
    assert caught.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_every_field_is_explained():
    modules = (config_module, trainer_settings)
    for node in [node for module in modules for node in ast.parse(inspect.getsource(module)).body]:
        if not isinstance(node, ast.ClassDef):
            continue
        for place, item in enumerate(node.body):
            if isinstance(item, ast.AnnAssign):
                after = node.body[place + 1] if place + 1 < len(node.body) else None
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert said, f"{node.name}.{ast.unparse(item.target)} has no docstring"


def test_model_files_hold_only_what_a_member_is():
    for path in Path(CONFIGS / "model").glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        assert values["name"] == path.stem
        assert "architecture" in values


FAST = [f"experiment={name}" for name in names("experiment")]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@pytest.mark.parametrize("override", [*FAST, "debug=default"])
def test_every_script_takes_every_experiment_and_the_debug_settings(name, override):
    found = compose(name, [override, "data.root=x"])
    assert type(found) is SCHEMAS[name]


def test_an_experiment_chooses_its_data_unless_the_command_line_does():
    assert compose("evaluate", ["experiment=published"]).run == "published"
    assert compose("train", ["experiment=published"]).data.split == "published"
    found = compose("train", ["experiment=published", "data=phantom", "run=mine"])
    assert (found.data.name, found.run) == ("phantom", "mine")


@pytest.mark.parametrize("group", ["experiment", "debug", "sweep"])
def test_such_files_begin_with_their_command(group):
    for name in names(group):
        lines = (CONFIGS / group / f"{name}.yaml").read_text().splitlines()
        assert lines[0] == "# @package _global_"
        assert lines[1].startswith(("# python scripts/", "# make train")), name


def test_hydra_is_set_up_once_and_no_default_is_interpolated():
    for path in CONFIGS.rglob("*.yaml"):
        text = path.read_text()
        assert "job_logging" not in text or path == CONFIGS / "hydra" / "default.yaml"
        defaults = yaml.safe_load(text) or {}
        for entry in defaults.get("defaults", []) if isinstance(defaults, dict) else []:
            assert "${" not in str(entry), path


def test_what_suits_the_data_gives_way_to_the_command_line():
    found = compose("train", ["data=cxr4", "model=inceptionv3"])
    assert (found.trainer.max_epochs, found.model.input_size) == (3, 224)
    assert found.trainer.lr == TrainerSettings().lr
    found = compose("train", ["data=cxr4", "model=inceptionv3", "trainer.max_epochs=7"])
    assert found.trainer.max_epochs == 7
    with pytest.raises(InputError, match=r"unknown key data\.suited\.\*\.epochs"):
        compose("train", ["+data.suited.any.epochs=7"])


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("audit", "again=true", "force=true", "again is now called force"),
        ("download", "root=x", "data.root=x", "root is now called data.root"),
        ("train", "make=true", "seed=0", "make=true does nothing any more"),
        ("train", "trainer=phantom", "seed=0", "trainer=phantom does nothing any more"),
    ],
)
def test_old_spellings_are_read_and_named(name, old, new, said, caplog):
    found, now = compose(name, [old]), compose(name, [new])
    found.overrides = now.overrides = []
    assert found == now
    assert said in caplog.text
