"""The networks: what the text and the figures say of them, and what is taken out of one."""

import keras
import numpy as np
import pytest


@pytest.fixture
def original(nb):
    with keras.StatelessScope(initialize_variables=False):
        return nb.alexnet_2012()


def test_panels_of_a_step_hold_what_their_titles_say(nb, drawn):
    image = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(float)
    kernel, window = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]), image[2:5, 4:7]
    nb.draw_step(image, kernel, nb.convolve(image, kernel), 2, 4)
    first, *_, last = drawn[0].axes
    shown = {panel.get_title(): panel.images[0].get_array() for panel in drawn[0].axes}
    assert (shown["window"] == window).all() and (shown["products"] == window * kernel).all()
    assert shown["output"][2, 4] == float(last.texts[-1].get_text()) == (window * kernel).sum()
    assert first.patches[0].get_xy() == last.patches[0].get_xy() == (3.5, 1.5)


def test_table_then_and_now_is_what_describe_computes(nb, notebook, small_model, original):
    """Parameters exactly, work in millions; and the shares that the prose names."""
    text = next(cell.source for cell in notebook.cells if cell.id == "summary-seen")
    totals = {}
    for kind, names in (("convolutions", "conv"), ("dense layers", "fc")):
        row = f"| {kind} |"
        for model, digits in ((original, 0), (small_model, 1)):
            rows = [row for row in nb.describe(model) if row[0].startswith(names)]
            totals[kind, digits] = sum(np.array(row[2:]) for row in rows)
            parameters, work = totals[kind, digits]
            row += f" {parameters:,} | {work / 1e6:.{digits}f} million |"
        assert row in text
    dense = totals["dense layers", 0]
    shares = 100 * dense / (dense + totals["convolutions", 0])
    assert "{:.0f}% of the parameters and did {:.0f}% of the work".format(*shares) in text


def test_lrn_is_the_papers_formula(nb):
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 7)).astype("float32") * 50
    expected = nb.tf.nn.local_response_normalization(x, 2, bias=2, alpha=1e-4, beta=0.75)
    np.testing.assert_allclose(nb.LocalResponseNormalization()(x), expected, rtol=1e-5)


def test_drawing_is_to_scale(nb, run_cell, small_model, original, drawn):
    """A block is as high as its pixels, a bar as its units / 16, and 4 so that it is seen."""
    run_cell("draw-networks", model=small_model)
    for axis, model in zip(drawn[0].axes, (original, small_model), strict=True):
        layers = [("image", model.input_shape[1:]), *(row[:2] for row in nb.describe(model))]
        fronts = [patch.get_xy()[:, 1].max() for patch in axis.patches[::3]]
        assert fronts == [s[0] if s[1:] else 4 + s[0] / 16 for _, s in layers]
        for text, (name, shape) in zip(axis.texts, layers, strict=True):
            first, *lines = text.get_text().split("\n")
            said = "".join(lines[:2]).split("(")[0].split("x")
            assert (first, tuple(map(int, said))) == (name, shape)


INSTEAD = {
    "ReLU": {"ReLU": "Activation"},
    "batch normalization": {"BatchNormalization": "Identity"},
    "dropout": {"Dropout": "Identity"},
    "overlapping pools": {},
}


@pytest.mark.parametrize("idea", INSTEAD)
def test_one_idea_goes_and_all_else_stays(nb, small_model, idea):
    changed = nb.without(small_model, idea)
    kinds, new = ([type(layer).__name__ for layer in m.layers] for m in (small_model, changed))
    assert new == [INSTEAD[idea].get(kind, kind) for kind in kinds]
    pools = {(p.pool_size, p.strides) for p in changed.layers if "pool" in p.name}
    assert pools == {((2, 2) if idea == "overlapping pools" else (3, 3), (2, 2))}
    activations = {getattr(layer, "activation", None) for layer in changed.layers}
    assert (keras.activations.tanh in activations) == (idea == "ReLU")
