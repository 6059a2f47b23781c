"""What is taken out is what was named, and nothing else; what the worth of ideas says."""

import numpy as np
import pytest

INSTEAD = {
    "ReLU": {"ReLU": "Activation"},
    "batch normalization": {"BatchNormalization": "Identity"},
    "dropout": {"Dropout": "Identity"},
    "overlapping pools": {},
}


@pytest.mark.parametrize("idea", INSTEAD)
def test_one_idea_goes_and_all_else_stays(nb, small_model, images, idea):
    changed = nb.without(small_model, idea)
    kinds, new = ([type(layer).__name__ for layer in m.layers] for m in (small_model, changed))
    assert new == [INSTEAD[idea].get(kind, kind) for kind in kinds]
    shapes, new = ([row[1] for row in nb.describe(m)] for m in (small_model, changed))
    assert new == shapes
    assert changed.layers[0].get_config() == small_model.layers[0].get_config()
    pools = {(p.pool_size, p.strides) for p in changed.layers if "pool" in p.name}
    assert pools == {((2, 2) if idea == "overlapping pools" else (3, 3), (2, 2))}
    for layer in changed.layers:
        if type(layer).__name__ == "Activation":
            assert layer.activation is nb.keras.activations.tanh


def test_signal_dies_out_with_small_weights_and_no_normalization(
    run_cell, pixels, images, labels, drawn
):
    """What the prose says of the figure, and what its legend says of the lines."""
    names = run_cell("spreads", x_train=images, y_train=labels)
    run_cell("draw-spreads", **names)
    spreads = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].lines}
    small = spreads["spread 0.01"]
    assert small[0] == pytest.approx(0.01 * 27**0.5, rel=0.3) and small[-1] < 0.001 * small[0]
    for name in ("He initialization", "spread 0.01, batch normalization"):
        assert max(spreads[name]) < 10 * min(spreads[name])
    assert spreads["He initialization"][0] > 10 * small[0]


def test_ten_crops_set_right_and_spoiled_are_counted(run_cell, capsys):
    truth = np.array([0, 1, 2, 3])
    seen = {"center_predicted": np.array([0, 5, 5, 3]), "predicted": np.array([0, 1, 2, 5])}
    run_cell("crops-gain", y_test=truth, **seen)
    text = capsys.readouterr().out
    assert "set right 2 images and spoil 1: difference 1\n" in text
    assert text.endswith(": 3\n")  # twice the square root of 3 is 3.5, and rounded 3


def test_chart_of_the_ideas_says_what_is_clear_and_bears_out_the_prose(run_cell, drawn):
    """Clear from three standard errors on; the bars in the table's order."""
    lost = run_cell("worth-chart")["LOST"]
    (axis,) = drawn[0].axes
    assert [text.get_text() for text in axis.get_yticklabels()] == list(lost)
    for text, bar, (points, error) in zip(axis.texts, axis.patches, lost.values(), strict=True):
        clear = abs(points) >= 3 * error
        said, *inconclusive = text.get_text().split(", ")
        assert float(said) == pytest.approx(points, abs=0.051) and clear != bool(inconclusive)
        gray = bar.get_facecolor()[:3] == (0.8, 0.8, 0.8)
        assert bar.get_width() == points and gray != clear
    bold = [text.get_fontweight() == "bold" for text in axis.get_yticklabels()]
    newer = "smoothing", "batch", "normalization", "learning rate", "Muon"
    assert bold == [not any(word in name for word in newer) for name in lost]
    rounded = {name: round(points) for name, (points, _) in lost.items()}
    assert (rounded["SGD instead of Muon"], rounded["constant learning rate"]) == (5, 4)
    assert rounded["tanh instead of ReLU"] == rounded["LRN instead of batch normalization"] == 1
