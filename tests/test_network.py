"""The convolution by hand, the published numbers, and the network itself."""

import gc
import weakref

import keras
import numpy as np
import pytest

# AlexNet as published: output, parameters.
PUBLISHED = {
    "conv1": ((55, 55, 96), 34_944),
    "conv2": ((27, 27, 256), 307_456),
    "conv3": ((13, 13, 384), 885_120),
    "conv4": ((13, 13, 384), 663_936),
    "conv5": ((13, 13, 256), 442_624),
    "fc6": ((4096,), 37_752_832),
    "fc7": ((4096,), 16_781_312),
    "fc8": ((1000,), 4_097_000),
}
OURS = [(28, 28, 48), (14, 14, 128), (7, 7, 192), (7, 7, 192), (7, 7, 128)]
OURS += [(512,), (512,), (10,)]


@pytest.fixture
def original(nb):
    with keras.StatelessScope(initialize_variables=False):
        return nb.alexnet_2012()


def test_convolution_by_hand_is_kerass(nb):
    random = np.random.default_rng(0)
    image, kernel = random.normal(size=(9, 9)), random.normal(size=(4, 4))
    expected = keras.ops.conv(image[None, ..., None], kernel[..., None, None])
    np.testing.assert_allclose(nb.convolve(image, kernel), expected[0, ..., 0], rtol=1e-5)


def test_panels_of_a_step_hold_what_their_titles_say(nb, drawn):
    """Image, window, kernel, products, and their sum, where the window and the sum stand."""
    image = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(float)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    output = nb.convolve(image, kernel)
    nb.draw_step(image, kernel, output, 2, 4)
    window = image[2:5, 4:7]
    expected = {"image": image, "window": window, "kernel": kernel}
    expected |= {"products": window * kernel, f"sum: {(window * kernel).sum():.0f}": output}
    panels = drawn[0].axes
    assert [panel.get_title() for panel in panels] == list(expected)
    for panel, table in zip(panels, expected.values(), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), table)
        numbers = [float(text.get_text()) for text in panel.texts]
        assert numbers == (list(table.ravel()) if len(table) == 3 else [])
    for panel, width in ((panels[0], 3), (panels[4], 1)):
        (box,) = panel.patches
        assert (box.get_xy(), box.get_width(), box.get_height()) == ((3.5, 1.5), width, width)


def test_original_has_the_published_numbers(nb, original):
    rows = {name: row for name, *row in nb.describe(original)}
    assert {name: (row[0], row[1]) for name, row in rows.items()} == PUBLISHED
    # 55 x 55 places, 96 kernels of 11 x 11 x 3 weights
    assert rows["conv1"][2] == 55 * 55 * 96 * 11 * 11 * 3
    # two groups: each of 256 kernels sees 48 of the 96 channels
    assert rows["conv2"][2] == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["fc6"][2] == 6 * 6 * 256 * 4096


def test_table_then_and_now_is_what_describe_computes(nb, notebook, small_model, original):
    """Parameters exactly, work in millions; and the shares that the prose names."""
    text = next(cell.source for cell in notebook.cells if cell.id == "summary-seen")
    totals = {}
    for kind, names in (("convolutions", "conv"), ("dense layers", "fc")):
        row = f"| {kind} |"
        for model, digits in ((original, 0), (small_model, 1)):
            rows = [row for row in nb.describe(model) if row[0].startswith(names)]
            parameters, work = sum(row[2] for row in rows), sum(row[3] for row in rows)
            totals[kind, digits] = parameters, work
            row += f" {parameters:,} | {work / 1e6:.{digits}f} million |"
        assert row in text
    dense = np.array(totals["dense layers", 0])
    shares = 100 * dense / (dense + totals["convolutions", 0])
    assert "{:.0f}% of the parameters and did {:.0f}% of the work".format(*shares) in text


def test_lrn_is_the_papers_formula(nb):
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 7)).astype("float32") * 50
    squares = np.pad(np.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + 7] for i in range(5))
    expected = x / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(nb.LocalResponseNormalization()(x), expected, rtol=1e-5)


def test_no_network_shares_a_layer_with_another_or_keeps_it_alive(nb, small_model):
    """A layer shared by all would hold on to each of them: memory would grow."""
    other = nb.build_alexnet()
    assert not {id(layer) for layer in small_model.layers} & {id(x) for x in other.layers}
    gone = weakref.ref(other)
    del other
    keras.utils.clear_session()
    gc.collect()
    assert gone() is None


def test_drawing_is_to_scale(run_cell, small_model, drawn):
    """A block is as high as its pixels, a bar as its units / 16, and 4 so that it is seen."""
    run_cell("draw-networks", model=small_model)
    heights, names = [], [["image", *PUBLISHED]] * 2
    for axis in drawn[0].axes:
        fronts = [patch.get_xy() for patch in axis.patches[::3]]
        heights.append([front[:, 1].max() for front in fronts])
    assert heights[0] == [227, 55, 27, 13, 13, 13, 260, 260, 66.5]
    assert heights[1] == [28, 28, 14, 7, 7, 7, 36, 36, 4.625]
    written = [[text.get_text().split("\n") for text in axis.texts] for axis in drawn[0].axes]
    assert [[lines[0] for lines in texts] for texts in written] == names
    sizes = [(227, 227, 3), *(shape for shape, _ in PUBLISHED.values())], [(28, 28, 3), *OURS]
    for texts, shapes in zip(written, sizes, strict=True):
        said = [tuple(map(int, "".join(t[1:3]).split("(")[0].split("x"))) for t in texts]
        assert said == shapes
