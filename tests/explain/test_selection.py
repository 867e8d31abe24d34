import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError
from cxr.explain.selection import confidence, select_images


@pytest.fixture
def predictions() -> pd.DataFrame:
    prob = np.array([0.9, 0.2, 0.6, 0.4, 0.8])
    return pd.DataFrame(
        {
            "label": ["normal", "normal", "normal", "covid", "covid"],
            "prob_ensemble_normal": prob,
            "prob_ensemble_covid": 1 - prob,
            "prediction": ["normal", "covid", "normal", "covid", "normal"],
        }
    )


def test_certainty_is_the_probability_of_the_predicted_class(predictions):
    np.testing.assert_allclose(confidence(predictions), [0.9, 0.8, 0.6, 0.6, 0.8])


def test_images_are_chosen_by_class_verdict_and_certainty(predictions):
    right = select_images(predictions, label="normal", right=True, order="most_confident")
    assert right.tolist() == [0, 2]
    least = select_images(predictions, right=True, order="least_confident", count=1)
    assert least.tolist() == [2]
    wrong = select_images(predictions, label="covid", right=False, order="most_confident", count=9)
    assert wrong.tolist() == [4]


def test_random_choice_repeats_with_its_seed_and_differs_between_seeds(predictions):
    def draw(seed: int) -> list[int]:
        return select_images(predictions, count=3, rng=np.random.default_rng(seed)).tolist()

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(10)}) > 1


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"label": "flu"}, "label is 'flu': the images have normal, covid"),
        ({"order": "best"}, "order is 'best': allowed are random"),
        ({}, "no generator is given: pass rng="),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(predictions, wish, message):
    with pytest.raises(InputError, match=message):
        select_images(predictions, **wish)
