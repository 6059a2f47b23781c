"""Section 9: what is taken out is what was named, and nothing else."""

import numpy as np
import pytest


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


@pytest.mark.parametrize(
    ("idea", "gone", "instead"),
    [
        ("ReLU", "ReLU", "Activation"),
        ("batch normalisation", "BatchNormalization", "Identity"),
        ("dropout", "Dropout", "Identity"),
        ("overlapping pools", None, None),
    ],
)
def test_one_idea_goes_and_all_else_stays(nb, small_model, images, idea, gone, instead):
    changed = nb.without(small_model, idea)
    expected = [instead if kind == gone else kind for kind in kinds(small_model)]
    assert kinds(changed) == expected
    shapes = [row[1] for row in nb.describe(changed)]
    assert shapes == [row[1] for row in nb.describe(small_model)]
    assert changed.layers[0].get_config() == small_model.layers[0].get_config()
    pools = {(p.pool_size, p.strides) for p in changed.layers if "pool" in p.name}
    assert pools == {((2, 2) if idea == "overlapping pools" else (3, 3), (2, 2))}
    assert changed.predict(nb.centre_crop(images[:5]), verbose=0).shape == (5, 10)
    new = [layer for layer in changed.layers if type(layer).__name__ == "Activation"]
    assert all(layer.activation is nb.keras.activations.tanh for layer in new)


def test_weights_are_drawn_with_the_size_of_their_layer(nb, small_model):
    nb.draw_weights(small_model)
    for layer in small_model.layers:
        if hasattr(layer, "kernel"):
            products = np.prod(layer.kernel.shape[:-1])
            spread = np.std(layer.get_weights()[0])
            assert spread == pytest.approx(np.sqrt(2 / products), rel=0.1)
    nb.draw_weights(small_model, 0.01)
    spread = np.std(small_model.get_layer("fc6").get_weights()[0])
    assert spread == pytest.approx(0.01, rel=0.02)


def test_spreads_die_out_with_small_weights_alone(nb, small_model, images):
    """What the prose says of the figure."""
    crops = nb.centre_crop(images)
    plain = nb.without(small_model, "batch normalisation")
    nb.draw_weights(plain, 0.01)
    names, spreads = nb.spreads(plain, crops)
    assert names == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
    assert spreads[-1] < 0.01 * spreads[0]
    for net, size in ((plain, None), (small_model, 0.01)):
        nb.draw_weights(net, size)
        spreads = nb.spreads(net, crops)[1]
        assert max(spreads) < 10 * min(spreads)


def test_ten_crops_set_right_and_spoiled_are_counted(run_cell, capsys):
    truth = np.array([0, 1, 2, 3])
    centre, ten = np.eye(10)[[0, 5, 5, 3]], np.eye(10)[[0, 1, 2, 5]]
    run_cell("crops-gain", y_test=truth, centre=centre, probabilities=ten)
    assert "set right 2 pictures and spoil 1" in capsys.readouterr().out
