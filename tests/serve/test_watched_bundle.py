"""The model that answers now: watched, tried, swapped, kept."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cxr.errors import InputError
from cxr.serve.watched_bundle import Busy, WatchedBundle


@dataclass
class Answer:
    probs: dict[str, float]


@dataclass
class Named:
    """A model read from a one-line file; 'nan' answers with what is no number."""

    fingerprint: str
    labels: tuple[str, ...] = ("a", "b")
    members: tuple[str, ...] = ("m",)
    info: dict[str, object] = field(default_factory=dict)
    note: str = ""

    def predict_each(self, images, *, level, maps, names):
        for _ in images:
            value = float("nan") if self.fingerprint == "nan" else 0.5
            yield Answer(dict.fromkeys(self.labels, value))


def load(bundle: Path) -> Named:
    text = (bundle / "bundle.json").read_text()
    if text == "bad":
        raise InputError("digest of model.onnx differs")
    return Named(text)


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle.json").write_text("one")
    return tmp_path


@pytest.fixture
def live(bundle):
    model = WatchedBundle(bundle, load, watch_s=0.02)
    yield model
    model.stop()


def wait_for(live: WatchedBundle, fingerprint: str) -> None:
    until = time.monotonic() + 5
    while live.predictor.fingerprint != fingerprint:
        assert time.monotonic() < until, live.predictor.fingerprint
        time.sleep(0.005)


def test_a_changed_bundle_is_taken_over_by_itself(live, bundle):
    live.start()
    assert live.wait(5)
    assert live.predictor.fingerprint == "one"
    (bundle / "bundle.json").write_text("another")
    wait_for(live, "another")


@pytest.mark.parametrize("text", ["bad", "nan"])
def test_a_bad_bundle_changes_nothing_until_it_is_mended(live, bundle, text, caplog):
    live.start()
    assert live.wait(5)
    (bundle / "bundle.json").write_text(text)
    time.sleep(0.2)
    assert live.predictor.fingerprint == "one"
    refusals = [record for record in caplog.records if record.message == "bundle refused"]
    assert len(refusals) == 1, "a bad bundle is tried once, not at every look"
    (bundle / "bundle.json").write_text("corrected")
    wait_for(live, "corrected")


def test_asked_to_it_loads_again_what_did_not_change(bundle):
    count = []

    def counting(path: Path) -> Named:
        count.append(path)
        return load(path)

    live = WatchedBundle(bundle, counting, watch_s=60)
    live.start()
    assert live.wait(5)
    live.ask_reload()
    until = time.monotonic() + 5
    while len(count) < 2:
        assert time.monotonic() < until
        time.sleep(0.005)
    live.stop()


def test_without_a_bundle_it_says_why_and_takes_the_first_that_comes(tmp_path):
    def careful(bundle: Path) -> Named:
        if not (bundle / "bundle.json").exists():
            raise InputError("no bundle there")
        return load(bundle)

    live = WatchedBundle(tmp_path / "later", careful, watch_s=0.02)
    live.start()
    assert live.wait(5)
    with pytest.raises(Busy, match="no bundle there"):
        _ = live.predictor
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "bundle.json").write_text("first")
    until = time.monotonic() + 5
    while live._predictor is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    live.stop()


def test_the_reason_of_a_foreign_error_is_not_shown_to_users(bundle):
    def broken(_: Path) -> Named:
        raise OSError("/secret/path is gone")

    live = WatchedBundle(bundle, broken)
    assert not live.reload()
    with pytest.raises(Busy, match="OSError") as caught:
        _ = live.predictor
    assert "secret" not in str(caught.value)
