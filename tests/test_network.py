"""The convolution by hand, the published numbers, and the network itself."""

import keras
import numpy as np
import pytest

# AlexNet as published: output, parameters.
PUBLISHED = {
    "conv1": ((55, 55, 96), 34_944),
    "pool1": ((27, 27, 96), 0),
    "conv2": ((27, 27, 256), 307_456),
    "pool2": ((13, 13, 256), 0),
    "conv3": ((13, 13, 384), 885_120),
    "conv4": ((13, 13, 384), 663_936),
    "conv5": ((13, 13, 256), 442_624),
    "pool5": ((6, 6, 256), 0),
    "fc6": ((4096,), 37_752_832),
    "fc7": ((4096,), 16_781_312),
    "fc8": ((1000,), 4_097_000),
}
OURS = [(28, 28, 48), (14, 14, 48), (14, 14, 128), (7, 7, 128), (7, 7, 192), (7, 7, 192)]
OURS += [(7, 7, 128), (3, 3, 128), (512,), (512,), (10,)]


@pytest.fixture(scope="module")
def original(nb):
    return nb.alexnet_2012()


def test_convolution_by_hand_is_kerass(nb):
    random = np.random.default_rng(0)
    picture, kernel = random.normal(size=(9, 9)), random.normal(size=(4, 4))
    expected = keras.ops.conv(picture[None, ..., None], kernel[..., None, None])
    np.testing.assert_allclose(nb.convolve(picture, kernel), expected[0, ..., 0], rtol=1e-5)


def test_original_has_the_published_numbers(nb, original):
    rows = {name: row for name, *row in nb.describe(original)}
    assert {name: (row[0], row[1]) for name, row in rows.items()} == PUBLISHED
    # 55 x 55 places, 96 kernels of 11 x 11 x 3 weights
    assert rows["conv1"][2] == 55 * 55 * 96 * 11 * 11 * 3
    # two groups: each of 256 kernels sees 48 of the 96 channels
    assert rows["conv2"][2] == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["fc6"][2] == 6 * 6 * 256 * 4096


def test_ours_has_five_convolutions_and_three_dense_layers(nb, small_model):
    assert isinstance(small_model, keras.Sequential)
    rows = nb.describe(small_model)
    assert {name: shape for name, shape, *_ in rows} == dict(zip(PUBLISHED, OURS))


def test_proportions_that_the_prose_names(nb, small_model, original):
    """Parameters 1/36, work 1/14; dense layers: 96% and 8% there, a half here."""

    def total(model, column, names=""):
        rows = nb.describe(model)
        return sum(row[column] for row in rows if row[0].startswith(names))

    assert round(total(original, 2) / total(small_model, 2)) == 36
    assert round(total(original, 3) / total(small_model, 3)) == 14
    assert round(100 * total(original, 2, "fc") / total(original, 2)) == 96
    assert round(100 * total(original, 3, "fc") / total(original, 3)) == 8
    assert round(total(small_model, 2, "fc") / total(small_model, 2), 1) == 0.5
    assert total(small_model, 3, "fc") / total(small_model, 3) < 0.03


def test_lrn_is_the_papers_formula(nb):
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 7)).astype("float32") * 50
    squares = np.pad(np.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + 7] for i in range(5))
    expected = x / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(nb.LocalResponseNormalization()(x), expected, rtol=1e-5)


def test_network_takes_raw_pixels_and_gives_probabilities(nb, small_model, images):
    crops = nb.centre_crop(images)
    probabilities = small_model.predict(crops, verbose=0)
    assert probabilities.shape == (300, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    normalised = np.array(small_model.layers[0](crops))
    assert abs(normalised.mean()) < 0.02 and abs(normalised.std() - 1) < 0.02


def test_drawing_is_to_scale(nb, small_model, original):
    """An image's block is as high as its pixels, a hidden layer's as its units / 16."""
    heights = []
    for model in (original, small_model):
        figure, axis = nb.plt.subplots()
        nb.draw_network(axis, model, "title")
        fronts = [patch.get_xy() for patch in axis.patches[::3]]
        heights.append([front[:, 1].max() for front in fronts])
        assert len(fronts) == len(axis.get_xticklabels()) == 9
        nb.plt.close(figure)
    assert heights[0] == [227, 55, 27, 13, 13, 13, 256, 256, 62.5]
    assert heights[1] == [28, 28, 14, 7, 7, 7, 32, 32, 0.625]
