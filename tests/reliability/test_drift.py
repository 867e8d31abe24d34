"""Windows like validation give no alarm, others do."""

import numpy as np
import pytest

from cxr.reliability.drift import (
    BATCH,
    FALSE_ALARMS,
    LEAST,
    QUANTITIES,
    WINDOW,
    DriftWindow,
    compare,
    drift_reference,
)


def drawn(rng: np.random.Generator, count: int, *, shift: float = 0.0, refused: float = 0.01):
    out = rng.random(count) < refused
    confidence = np.where(out, np.nan, 1 / (1 + np.exp(-rng.normal(1 - shift / 2, 1, count))))
    return {"score": rng.normal(shift, 1, count), "confidence": confidence, "refused": out * 1.0}


@pytest.fixture(scope="module")
def reference():
    return drift_reference(drawn(np.random.default_rng(0), 600))


def test_a_reference_holds_deciles_and_counts_of_what_is_known(reference):
    assert list(reference) == list(QUANTITIES)
    assert len(reference["score"]["edges"]) == 9
    np.testing.assert_allclose(reference["score"]["counts"], 60, atol=1)
    assert sum(reference["confidence"]["counts"]) == reference["refused"]["counts"][0]
    assert sum(reference["refused"]["counts"]) == 600


@pytest.mark.parametrize("count", [LEAST, WINDOW, 1000])
def test_windows_like_validation_seldom_give_an_alarm(count: int):
    alarms = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        reference = drift_reference(drawn(rng, 600))
        alarms.append(compare(reference, drawn(rng, count)).alarm)
    # 150 windows at a rate of 1 %: more than 6 alarms happen once in 1,000 times.
    assert sum(alarms) <= 6
    assert FALSE_ALARMS == 0.01


@pytest.mark.parametrize(
    ("options", "clearest"), [({"shift": 1.0}, "score"), ({"refused": 0.3}, "refused")]
)
def test_other_images_give_an_alarm_that_names_the_quantity(reference, options, clearest):
    for seed in range(30):
        found = compare(reference, drawn(np.random.default_rng(seed), WINDOW, **options))
        assert found.alarm
        assert max(found.psi, key=lambda name: found.psi[name]) == clearest
        assert QUANTITIES[clearest] in found.sentence
        assert "unlike the validation images" in found.sentence


def test_a_small_shift_gives_no_alarm_however_many_images(reference):
    values = drawn(np.random.default_rng(1), 20_000, shift=0.3)
    found = compare(reference, values)
    assert found.p_value <= 0.01
    assert not found.alarm


def test_constant_quantities_and_missing_ones_are_compared(reference):
    flat = {name: np.zeros(200) for name in QUANTITIES} | {"score": np.full(200, np.nan)}
    same = drift_reference(flat)
    assert not compare(same, flat).alarm
    assert compare(reference, flat).alarm


def add(window: DriftWindow, values) -> None:
    for score, confidence, refused in zip(*values.values(), strict=True):
        window.add(score=score, confidence=confidence, refused=bool(refused))


def test_a_window_keeps_the_last_images_and_starts_anew_when_full(reference):
    window = DriftWindow(reference)
    rng = np.random.default_rng(2)
    add(window, drawn(rng, LEAST - 1))
    assert window.compare() is None
    add(window, drawn(rng, WINDOW))
    found = window.full()
    assert found is not None
    assert found.images == WINDOW
    assert not found.alarm
    assert window.full() is None
    add(window, drawn(rng, WINDOW, shift=2))
    assert window.full().alarm


def test_without_a_reference_nothing_is_said():
    window = DriftWindow(None)
    add(window, drawn(np.random.default_rng(3), WINDOW))
    assert window.compare() is None
    assert window.full() is None


def test_a_batch_in_the_order_of_its_classes_is_compared_whole(reference):
    values = drawn(np.random.default_rng(5), 4 * WINDOW)
    order = np.argsort(values["score"])
    ordered = {name: value[order] for name, value in values.items()}
    for size, alarm in ((WINDOW, True), (BATCH, False)):
        window = DriftWindow(reference, size=size)
        add(window, ordered)
        assert window.compare().alarm == alarm
