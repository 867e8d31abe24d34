import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv

from cxr.explain.map_plots import Example, draw_examples, draw_maps, heat_map

RNG = np.random.default_rng(0)


def make_example(label: str, prediction: str, lesion: bool) -> Example:
    maps = {"a": RNG.random((32, 32), np.float32), "ensemble": np.zeros((32, 32), np.float32)}
    probs = {name: {"normal": 0.25, "covid": 0.75} for name in maps}
    mask = np.zeros((32, 32), bool)
    mask[4:9, 4:9] = True
    image = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    return Example(image, label, prediction, probs, maps, mask if lesion else None, name="a.png")


def texts(figure) -> str:
    titles = [axes.get_title() for axes in figure.axes]
    inside = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*titles, *inside, *(text.get_text() for text in figure.texts)])


def test_examples_show_classes_probabilities_and_what_they_are_of(tmp_path):
    examples = [make_example("covid", "covid", True), make_example("normal", "covid", False)]
    figure = draw_examples(examples, title="covid", note="synthetic phantom")
    shown = texts(figure)
    assert "right: true covid\npredicted covid" in shown
    assert "wrong: true normal\npredicted covid" in shown
    assert "covid 0.75, true normal 0.25" in shown
    assert "nothing speaks\nfor this class" in shown
    assert "synthetic phantom · Research use only, not a medical device." in shown
    assert "blue outline: true lesion" in figure.get_suptitle()
    figure.savefig(tmp_path / "figure.png")


def test_no_outline_is_promised_where_no_lesion_is_known():
    figure = draw_examples([make_example("covid", "covid", False)], title="covid", note="")
    assert "outline" not in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 4, 7])
def test_maps_of_many_methods_get_a_panel_each(count):
    maps = {f"method {k}": RNG.random((32, 32), np.float32) for k in range(count)}
    image = np.zeros((32, 32), np.uint8)
    figure = draw_maps(image, maps, title="image", note="")
    titles = [axes.get_title() for axes in figure.axes]
    assert all(name in titles for name in maps)
    figure.canvas.draw()


def test_heat_rises_in_lightness_and_opacity():
    colours = heat_map()(np.linspace(0, 1, 64))
    luma = colours[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) > 0).all()
    assert (np.diff(colours[:, 3]) > 0).all()
    assert colours[0, 3] == 0
    assert np.ptp(rgb_to_hsv(colours[:, :3])[:, 0]) > 0
