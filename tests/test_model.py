"""The published numbers, the network, its training, ten crops, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest

# AlexNet as published: kernel/stride, output, parameters, receptive field.
PUBLISHED = {
    "conv1": ("11/4", "55 x 55 x 96", 34_944, 11),
    "pool1": ("3/2", "27 x 27 x 96", 0, 19),
    "conv2": ("5/1", "27 x 27 x 256", 307_456, 51),
    "pool2": ("3/2", "13 x 13 x 256", 0, 67),
    "conv3": ("3/1", "13 x 13 x 384", 885_120, 99),
    "conv4": ("3/1", "13 x 13 x 384", 663_936, 131),
    "conv5": ("3/1", "13 x 13 x 256", 442_624, 163),
    "pool5": ("3/2", "6 x 6 x 256", 0, 195),
    "fc6": ("-", "4096", 37_752_832, "all"),
    "fc7": ("-", "4096", 16_781_312, "all"),
    "fc8": ("-", "1000", 4_097_000, "all"),
}
EIGHTH = {
    "conv1": "28 x 28 x 48",
    "pool1": "14 x 14 x 48",
    "conv2": "14 x 14 x 128",
    "pool2": "7 x 7 x 128",
    "conv3": "7 x 7 x 192",
    "conv4": "7 x 7 x 192",
    "conv5": "7 x 7 x 128",
    "pool5": "3 x 3 x 128",
    "fc6": "512",
    "fc7": "512",
    "fc8": "10",
}


def test_original_has_the_published_numbers(nb):
    rows = {row["name"]: row for row in nb.describe(nb.alexnet_2012())}
    for name, figures in PUBLISHED.items():
        row = rows[name]
        assert (row["kernel"], row["output"], row["parameters"], row["field"]) == figures
    assert len(rows) == len(PUBLISHED)
    assert sum(row["parameters"] for row in rows.values()) == 60_965_224
    # 55 x 55 positions, 96 kernels of 11 x 11 x 3 weights
    assert rows["conv1"]["work"] * 1e6 == 55 * 55 * 96 * 11 * 11 * 3
    # two groups: each of 256 kernels sees 48 of the 96 channels
    assert rows["conv2"]["work"] * 1e6 == 27 * 27 * 256 * 5 * 5 * 48
    assert rows["fc6"]["work"] * 1e6 == 6 * 6 * 256 * 4096


def test_shares_that_the_prose_names(nb, small_model):
    """96% of the parameters and 8% of the work in the dense layers; half of them here."""

    def dense_share(model, key):
        rows = nb.describe(model)
        dense = [row[key] for row in rows if row["name"].startswith("fc")]
        return sum(dense) / sum(row[key] for row in rows)

    original = nb.alexnet_2012()
    assert round(100 * dense_share(original, "parameters")) == 96
    assert round(100 * dense_share(original, "work")) == 8
    assert 0.45 < dense_share(small_model, "parameters") < 0.55
    assert dense_share(small_model, "work") < 0.03


def test_eighth_has_five_convolutions_and_three_dense_layers(nb, small_model):
    assert isinstance(small_model, keras.Sequential)
    assert {r["name"]: r["output"] for r in nb.describe(small_model)} == EIGHTH
    fields = [row["field"] for row in nb.describe(small_model)]
    assert fields[5] >= nb.CROP > fields[4]  # the prose: from the fourth convolution on


def test_lrn_is_the_papers_formula_and_survives_saving(nb, tmp_path):
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 7)).astype("float32") * 50
    squares = np.pad(np.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + 7] for i in range(5))
    expected = x / (2 + 1e-4 * total) ** 0.75
    model = keras.Sequential([keras.Input((2, 2, 7)), nb.LocalResponseNormalization()])
    model.save(tmp_path / "lrn.keras")
    for each in (model, keras.saving.load_model(tmp_path / "lrn.keras")):
        np.testing.assert_allclose(each(x), expected, rtol=1e-5)


def test_network_takes_raw_pixels_and_gives_probabilities(nb, small_model, images):
    probabilities = small_model.predict(nb.fixed_batches(nb.centre_crop(images)), verbose=0)
    assert probabilities.shape == (300, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    normalised = small_model.layers[0](nb.centre_crop(images))
    assert abs(np.mean(normalised)) < 0.02 and abs(np.std(normalised) - 1) < 0.02


def test_schedule_rises_for_a_fifth_and_ends_at_zero(nb):
    schedule = nb.OneCycle(0.5, 1000)
    rates = np.array([float(schedule(step)) for step in range(1002)])
    assert rates[0] == 0 and rates.argmax() == 200
    assert rates[200] == pytest.approx(0.5) and rates[100] == pytest.approx(0.25)
    assert rates[600] == pytest.approx(0.25) and (rates[1000:] == 0).all()
    again = nb.OneCycle.from_config(schedule.get_config())
    assert float(again(300)) == rates[300]


def test_weight_decay_is_for_weights_only(nb, small_model):
    nb.compile_model(small_model, 0.1)
    small_model.optimizer.build(small_model.trainable_variables)
    use = small_model.optimizer._use_weight_decay
    decayed = {v.path.split("/")[-1] for v in small_model.trainable_variables if use(v)}
    assert decayed == {"kernel"}
    assert small_model.optimizer.weight_decay == nb.WEIGHT_DECAY > 0


def train(nb, images, labels, seed):
    """Trains the notebook's network for two epochs and returns its weights."""
    keras.utils.set_random_seed(seed)
    normalization = nb.layers.Normalization()
    normalization.adapt(images.astype("float32"))
    model = nb.alexnet_eighth(normalization)
    nb.compile_model(model, nb.OneCycle(0.4, 2))
    model.fit(nb.training_batches(images, labels, seed), epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


def test_training_twice_gives_the_same_weights_bit_by_bit(nb, images, labels):
    nb.tf.config.experimental.enable_op_determinism()
    first, again, other = (train(nb, images, labels, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_training_learns_to_tell_bright_from_dark(nb):
    """A task that a few steps suffice for: a broken loss or label order would fail it."""
    keras.utils.set_random_seed(0)
    labels = np.arange(512) % 2
    noise = np.random.default_rng(0).normal(0, 20, (512, 32, 32, 3))
    images = np.clip(80 + 90 * labels[:, None, None, None] + noise, 0, 255).astype("uint8")
    normalization = nb.layers.Normalization()
    normalization.adapt(images.astype("float32"))
    model = nb.alexnet_eighth(normalization)
    nb.compile_model(model, 0.05)
    model.fit(nb.training_batches(images, labels, 0), epochs=10, shuffle=False, verbose=0)
    assert np.mean(nb.predict_ten_crops(model, images).argmax(axis=1) == labels) > 0.95


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(nb, images):
    crops = nb.ten_crops(images)
    assert len(crops) == 10 and all(crop.shape == (300, 28, 28, 3) for crop in crops)
    corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, (y, x) in zip(crops[:5], corners, strict=True):
        assert (crop == images[:, y : y + 28, x : x + 28]).all()
    for crop, mirrored in zip(crops[:5], crops[5:], strict=True):
        assert (mirrored == crop[:, :, ::-1]).all()
    assert (crops[4] == nb.centre_crop(images)).all()


def test_ten_crop_prediction_is_the_mean_of_ten(nb, small_model, images):
    some = images[:20]
    one_by_one = [small_model.predict(crop, verbose=0) for crop in nb.ten_crops(some)]
    together = nb.predict_ten_crops(small_model, some)
    np.testing.assert_allclose(together, np.mean(one_by_one, axis=0), rtol=1e-4, atol=1e-6)


def test_interval_is_two_standard_errors_wide(nb):
    probabilities = np.tile([0.9, 0.1], (10_000, 1))
    labels = (np.arange(10_000) % 10 == 0).astype(int)  # nine in ten are right
    accuracy, low, high = nb.accuracy_interval(labels, probabilities)
    assert accuracy == 0.9
    assert (high - low) / 2 == pytest.approx(1.96 * 0.003)


def test_nearest_finds_the_nearest(nb):
    library = np.arange(10.0).reshape(-1, 1)
    assert nb.nearest(library, np.array([[2.2], [8.9]]), 2).tolist() == [[2, 3], [9, 8]]


def test_top5_chart_marks_the_truth_and_shows_the_five_best(nb, images):
    probabilities = np.array([[0.0, 0.1, 0.5, 0.2, 0.0, 0.05, 0.15, 0.0, 0.0, 0.0]])
    figure = nb.plot_top5(images[:1], ["cat"], probabilities)
    picture, bars = figure.axes
    assert picture.get_title() == "cat"
    names = [tick.get_text() for tick in bars.get_yticklabels()]
    assert names[::-1] == ["bird", "cat", "frog", "automobile", "dog"]
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert [colours.count(colour) == 1 for colour in colours[::-1]] == [0, 1, 0, 0, 0]


FRESH_PROCESS = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1], compile=False)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), batch_size=250, verbose=0))
"""


def test_saved_model_predicts_the_same_without_the_notebook(
    nb, small_model, images, tmp_path
):
    """In a process that has none of the notebook's classes, as a reader has tomorrow."""
    nb.compile_model(small_model, nb.OneCycle(0.4, 10))
    batches = nb.training_batches(images, images[:, 0, 0, 0] % 10, seed=0)
    small_model.fit(batches, shuffle=False, verbose=0)
    pixels = nb.centre_crop(images)
    small_model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    files = [tmp_path / name for name in ("model.keras", "pixels.npy", "found.npy")]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *files], check=True)
    expected = small_model.predict(nb.fixed_batches(pixels), verbose=0)
    np.testing.assert_allclose(np.load(files[-1]), expected, rtol=1e-5, atol=1e-6)


def test_network_trains_in_mixed_precision(nb, images, labels):
    """As on a GPU: half precision inside, full precision for pixels and probabilities."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        normalization = nb.layers.Normalization(dtype="float32")
        normalization.adapt(images.astype("float32"))
        model = nb.alexnet_eighth(normalization)
        nb.compile_model(model, nb.OneCycle(0.01, 2))
        model.fit(nb.training_batches(images, labels, 0), shuffle=False, verbose=0)
        probabilities = model.predict(nb.centre_crop(images[:20]), verbose=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("conv3").compute_dtype == "float16"
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
