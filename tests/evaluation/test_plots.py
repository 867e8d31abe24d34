import numpy as np
import pandas as pd
import pytest

from cxr.errors import InputError
from cxr.evaluation.evaluate import build_predictions, evaluate
from cxr.evaluation.plots import PRECISION_RECALL, ROC, draw_confusions, draw_curves
from cxr.models.ensemble import Ensemble
from cxr.plotting import OKABE_ITO, class_colours, footer_text, new_figure, save_figure

LABELS = ("normal", "covid", "bacterial", "viral")
NOTE = "synthetic phantom"


def opened(n_classes: int = 4, members: tuple[str, ...] = ("a", "b")):
    """Return predictions and metrics of made-up members."""
    rng = np.random.default_rng(0)
    n = 60
    index = np.arange(n) % n_classes
    rows = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "split": "test",
            "label": np.array(LABELS)[index],
            "patient_id": "",
            "group": [str(i) for i in range(n)],
            "source": "",
        }
    )
    logits = {name: rng.normal(size=(n, 4)) + 2 * np.eye(4)[index] for name in members}
    ensemble = Ensemble(
        LABELS, members, dict.fromkeys(members, 1.0), dict.fromkeys(members, 1 / len(members))
    )
    predictions = build_predictions(rows, logits, ensemble)
    metrics = evaluate(predictions, labels=LABELS, members=members, best_member="a", note=NOTE)
    return predictions, metrics


def words(figure) -> str:
    """Return all the text in a figure."""
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text() for text in axes.texts]
        if axes.get_legend():
            found += [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join(found)


def test_figures_say_what_they_are_of():
    predictions, metrics = opened()
    for figure in (
        draw_confusions(metrics),
        draw_curves(predictions, metrics, ROC),
        draw_curves(predictions, metrics, PRECISION_RECALL),
    ):
        assert f"{NOTE} · Research use only, not a medical device." in words(figure)
        assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def test_confusion_has_a_panel_per_model_with_counts_and_shares():
    _, metrics = opened()
    figure = draw_confusions(metrics)
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes]
    assert titles == ["a", "b", "equal", "ensemble"]
    cells = np.array(metrics["models"]["a"]["confusion"])
    assert figure.axes[0].texts[0].get_text() == f"{cells[0, 0]}\n{cells[0, 0] / 15:.0%}"
    assert len(figure.axes[0].texts) == 16


def test_curves_show_members_and_ensemble_with_intervals():
    predictions, metrics = opened()
    figure = draw_curves(predictions, metrics, ROC)
    found = metrics["models"]["ensemble"]["per_class"]["covid"]["auroc"]
    assert len(figure.axes) == 4
    assert len(figure.axes[1].lines) == 4  # two members, the ensemble, chance
    assert f"ensemble {found['value']:.3f} [{found['low']:.3f}" in words(figure)


def test_area_under_the_drawn_curve_is_the_auroc_in_its_legend():
    predictions, metrics = opened()
    line = draw_curves(predictions, metrics, ROC).axes[2].lines[2]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    value = metrics["models"]["ensemble"]["per_class"]["bacterial"]["auroc"]["value"]
    assert area == pytest.approx(value)


def test_absent_class_gets_an_empty_panel_that_says_so():
    predictions, metrics = opened(n_classes=3)
    assert "no image of this class" in words(draw_curves(predictions, metrics, ROC))
    assert "n/a" in words(draw_confusions(metrics))
    draw_curves(predictions, metrics, PRECISION_RECALL)


@pytest.mark.parametrize("members", [("a",), ("a", "b", "c", "d", "e")])
def test_any_number_of_members_can_be_drawn(members):
    predictions, metrics = opened(members=members)
    assert len(draw_confusions(metrics).axes) == len(members) + 2
    for curve in (ROC, PRECISION_RECALL):
        assert len(draw_curves(predictions, metrics, curve).axes) == 4


def test_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("one.png", "two.png"):
        save_figure(draw_confusions(opened()[1]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_failed_drawing_leaves_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = new_figure(3, 3, title="t", note="n")

    def fill_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cxr.plotting.FigureCanvasAgg.print_png", fill_disk)
    with pytest.raises(InputError, match="disk is full"):
        save_figure(figure, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_classes_keep_their_colours():
    assert tuple(class_colours(LABELS).values()) == OKABE_ITO[:4]
    assert class_colours(["viral", "normal"])["viral"] == OKABE_ITO[3]
    mixed = class_colours(["normal", "tb", "oedema"])
    assert len(set(mixed.values())) == 3


def test_footer_says_research_use_once():
    assert footer_text("") == "Research use only, not a medical device."
    said = "synthetic phantom · research use only, not a medical device"
    assert footer_text(said) == said
