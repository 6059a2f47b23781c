"""The benchmarks: networks, clocks, and arithmetic, and the figures in their README."""

import collections
import types
from functools import partial

import ablation
import common
import contenders
import cost
import numpy as np
import pytest
import seeds
import time_to_accuracy
from nbformat.v4 import new_output


@pytest.fixture
def own(images, labels):
    """The notebook's functions in a module of its own, which a test may change."""
    nb = common.functions()
    nb.x_train, nb.y_train = images, labels
    nb.keras.utils.set_random_seed(1)
    return nb


@pytest.mark.parametrize("name", contenders.CONTENDERS)
def test_each_contender_trains_and_predicts(own, monkeypatch, images, name):
    """A layer that misfits, or a loss of NaN, shows in two steps of twelve.

    The sizes are the measured ones. The tutorial states its own, 122,570 parameters.
    """
    monkeypatch.setattr(contenders, "AIRBENCH_BATCH", 32)
    own.BATCH_SIZE = 32
    contender = contenders.CONTENDERS[name](own)
    (row,) = (row for row in common.read(time_to_accuracy.RESULTS) if row["name"] == name)
    assert contender.model.count_params() == row["parameters"]
    assert common.multiply_adds(own, contender.model) == round(1e6 * row["work"])
    if contender.compile:
        contender.compile(12)
    before = [value.copy() for value in contender.model.get_weights()]
    batches = contender.batches().repeat()
    history = contender.model.fit(batches.take(2), shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = contender.model.get_weights()
    assert any((a != b).any() for a, b in zip(before, after))
    scores = contender.predict(images[:5])
    assert scores.shape == (5, 10) and np.isfinite(scores).all()


def test_airbench_starts_with_whitened_patches(own):
    noise = np.random.default_rng(0).normal(size=(5000, 32, 32, 3)).cumsum(1).cumsum(2)
    own.x_train = np.clip(128 + 4 * noise, 0, 255).astype("uint8")
    model = contenders.airbench94(own).model
    whitened = own.x_train[:500].astype("float32")
    for layer in model.layers[:2]:
        whitened = layer(whitened)
    features = np.reshape(whitened, (-1, 24))[:, :12]
    covariance = features.T @ features / len(features)
    assert (0.5 < covariance.diagonal()).all() and (covariance.diagonal() < 1.1).all()
    assert abs(covariance - np.diag(covariance.diagonal())).max() < 0.05


def test_dirac_kernels_pass_their_channels_on(own, images):
    dirac = contenders.Dirac()
    layer = own.layers.Conv2D(8, 3, padding="same", kernel_initializer=dirac)
    pixels = images[:2].astype("float32")
    np.testing.assert_allclose(layer(pixels)[..., :3], pixels, rtol=1e-6)


def test_airbench_learning_rate_at_start_peak_and_end():
    rates = [float(contenders.Triangle(1.0, 100)(step)) for step in (0, 23, 100)]
    assert rates == pytest.approx([0.2, 1, 0.07], abs=1e-6)


def test_airbench_moves_images_and_mirrors_them_every_other_epoch(own):
    """1024 images of a slope: its sign tells which way round, its middle how far moved."""
    images = np.tile(np.arange(32, dtype="uint8")[:, None], (1024, 32, 1, 3))
    images[:, 8:24, 8:24, 1] = (np.arange(1024) % 256)[:, None, None]
    own.x_train, own.y_train = images, np.arange(1024) % 10
    batches = contenders.airbench94(own).batches().repeat()
    epochs = [views.numpy().astype(int) for views, _ in batches.take(3)]

    def directions(views):
        right = views[:, 16, 20, 0] > views[:, 16, 12, 0]
        return np.bincount(views[:, 16, 16, 1], weights=right, minlength=256)

    first, second, third = map(directions, epochs)
    assert len({views.tobytes() for views in epochs}) == 3  # another order, other places
    assert (first == third).all()
    assert ((first + second) == 4).all() and 0.4 < first.sum() / 1024 < 0.6
    assert set(epochs[0][:, 16, 16, 0]) == set(range(13, 19))  # 15 or 16, by up to 2


def test_clock_stands_still_while_a_network_is_tried(monkeypatch):
    """Ten steps of a second each, and a try after the second that takes a minute."""
    hands = np.zeros(2)
    monkeypatch.setattr(time_to_accuracy, "now", hands.copy)

    def attempt():
        hands[:] += 60, 50
        return 0.5

    watch = time_to_accuracy.Clock(10, [1.5], attempt)
    watch.set_model(types.SimpleNamespace(stop_training=False))
    watch.on_train_begin()
    while not watch.model.stop_training:
        hands[:] += 1, 2
        watch.on_train_batch_end(watch.steps)
    watch.on_train_end()
    assert watch.curve == [(2, 0.5)]
    assert (watch.steps, *watch.taken) == (10, 10, 20)


@pytest.mark.parametrize("arm", ablation.CHANGES)
def test_each_arm_changes_what_its_name_says(own, images, labels, arm):
    """Its layers are counted; its optimizer, loss, and batches are what they should be."""
    before = vars(own).copy()
    ablation.CHANGES[arm](own)
    model = own.build_alexnet()
    kinds = collections.Counter(type(layer).__name__ for layer in model.layers)
    four, lrn = arm == "four convolutions", arm.startswith(("LRN", "recipe"))
    norms = 0 if lrn or arm.startswith("no normalization") else 7 - four
    assert (kinds["BatchNormalization"], kinds["LocalResponseNormalization"]) == (norms, 2 * lrn)
    assert kinds["Bias"] == (0 if norms else 7)
    assert kinds["Conv2D"] == 5 - four
    assert kinds["ReLU"] == (0 if "tanh" in arm else 7 - four)
    assert (model.get_layer("conv5_pool").pool_size == (2, 2)) == ("2 x 2" in arm)
    dropout = {"no dropout": 0}.get(arm, 0.5 if "2012" in arm else before["DROPOUT"])
    assert [layer.rate for layer in model.layers if hasattr(layer, "rate")] == 2 * [dropout]

    own.compile_model(model, 10, 0.01)
    optimizer, loss = model.optimizer, own.keras.losses.get(model.loss)
    assert hasattr(optimizer, "share") != ("SGD" in arm or "2012" in arm)
    assert optimizer.nesterov != ("2012" in arm)
    assert bool(optimizer.weight_decay) != (arm == "no weight decay")
    has_no_warmup = "constant" in arm or ("2012" in arm and "cosine" not in arm)
    assert (float(optimizer.learning_rate) > 0) == has_no_warmup
    is_smooth = np.mean(loss(np.eye(10), np.eye(10))) > 0.1
    assert is_smooth != ("smoothing" in arm or "2012" in arm)

    views = next(iter(own.make_batches(images, labels, seed=1)))[0].numpy()
    centers = {crop.tobytes() for crop in own.center_crop(images).astype("float32")}
    is_plain = all(view.astype("float32").tobytes() in centers for view in views)
    assert is_plain == (arm == "no augmentation")
    np.testing.assert_allclose(np.sum(model(views[:8]), axis=1), 1, rtol=1e-5)


def test_lrn_biases_and_first_weights_are_the_papers(own):
    """LRN sees pixels of 0 to 255, between ReLU and pool; He initialization of 1,152 inputs."""
    ablation.CHANGES["recipe of 2012"](own)
    model = own.build_alexnet()
    kinds = [type(layer).__name__ for layer in model.layers]
    stage = ["Bias", "ReLU", "Rescaling", "LocalResponseNormalization", "Rescaling", "MaxPooling2D"]
    assert kinds[2:8] == kinds[9:15] == stage
    assert model.layers[4].scale * model.layers[6].scale == pytest.approx(1)
    biases = [v for v in model.variables if "bias" in v.path and v[0] == 1]
    ones = {v.path.split("/")[-2] for v in biases}
    assert ones == {"bias_conv2", "bias_conv4", "bias_conv5", "bias_fc6", "bias_fc7"}
    spread = np.std(model.get_layer("fc6").get_weights()[0])
    assert spread == pytest.approx((2 / 1152) ** 0.5, rel=0.05)


def test_rate_at_the_edge_of_the_grid_widens_it(monkeypatch, tmp_path):
    """An arm that is best at an eighth of the rate: the grid grows down to a sixteenth."""
    asked = []

    def train(function, arm, seed, epochs, factor):
        asked.append(factor)
        return {"center": -abs(np.log2(factor) + 3), "ten": 0}

    monkeypatch.setattr(common, "in_a_process", train)
    for _ in range(2):  # what was trained is not trained again
        rows = ablation.Rows(tmp_path / "rows.json", "CPU")
        assert rows.best_factor(ablation.CONSTANT) == 1 / 8
        assert sorted(asked) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2]
    with pytest.raises(ValueError, match="another edition"):
        ablation.Rows(ablation.RESULTS, "CPU")
    assert set(ablation.CHANGES) > ablation.OWN_RATE  # a name with a slip would be ignored


def test_effect_of_an_arm_is_its_mean_difference_in_pairs():
    """-2, -3, -4 points, and 0, 0, 0; the run that chose the rate is none of them."""
    found = {
        (ablation.WHOLE, "CPU"): (80, 82, 84),
        (ablation.WHOLE, "H100"): (50, 60, 70),
        ("tanh instead of ReLU", "CPU"): (78, 79, 80),
        ("no dropout", "H100"): (50, 60, 70),
        ("2 x 2 pools", "CPU"): (9,),  # one seed says nothing of chance
    }
    rows = [
        {"change": arm, "device": device, "factor": 2, "seed": seed}
        | {"center": value, "ten": value + 5}
        for (arm, device), values in found.items()
        for seed, value in enumerate([0, *values])
    ]
    tanh, dropout = ablation.effects(rows, "ten").items()
    assert tanh == ("tanh instead of ReLU", (-3, pytest.approx((1 / 3) ** 0.5)))  # its own
    assert dropout == ("no dropout", (0, pytest.approx((0.5 / 3) ** 0.5)))  # of both


def test_notebook_shows_what_was_measured(run_cell, drawn):
    """In the same order: each idea that was taken out alone."""
    lost = ablation.for_notebook(common.read(ablation.RESULTS)).items()
    measured = [(name, tuple(found)) for name, found in lost if "2012" not in name]
    assert list(run_cell("worth-chart")["LOST"].items()) == measured


def test_epochs_and_minutes_are_read_from_what_keras_prints():
    """From a bar that is drawn many times, and not from TensorFlow's lines beside it."""
    last = "180/180 \x1b[32m━━━\x1b[0m \x1b[1m75s\x1b[0m 388ms/step - loss: 1.7 - val_loss: 1.3\n"
    live = f"\r  1/180 ━ \x1b[1m9:05\x1b[0m 3s/step\b\b\r 90/180 ━━ 35s 388ms/step\b\b\r{last}"
    texts = {"stdout": f"Epoch 1/2\n{live}Epoch 2/2\n{live}", "stderr": "I0000 5s 3ms/step\n"}
    notebook = common.read_notebook()
    outputs = [new_output("stream", name=name, text=text) for name, text in texts.items()]
    common.code_cells_by_id(notebook)["fit"].outputs = outputs
    row = seeds.result(notebook, "7")
    assert (row["epochs"], row["minutes"]) == (2, 2.5)


def test_fit_is_measured_without_other_random_numbers(own, monkeypatch):
    """The product before `fit` must not change the weights that the notebook draws next."""
    monkeypatch.setattr(common, "product_speed", partial(common.product_speed, 64))
    expected = np.array(own.keras.random.normal((3,)))
    own.keras.utils.set_random_seed(1)
    measured = common.Meter().stop()
    np.testing.assert_array_equal(own.keras.random.normal((3,)), expected)
    assert measured["seconds"] < 5 and measured["busy_cores"] >= 0


def test_seeds_of_two_editions_are_not_mixed():
    """Three seeds of one, one seed of the other: no mean over the four."""
    row = {"epochs": 10, "settings": "", "device": "CPU", "center": 80.0}
    rows = [row | {"edition": 2, "seed": n, "ten": 90.0 + n} for n in range(3)]
    fit = {"seconds": 1350, "busy_cores": 1.9, "product_before": 80, "product_after": 120}
    rows.append(row | {"edition": 3, "seed": 0, "ten": 95.0, "fit": fit})
    second = seeds.overview(rows, 50_000_000, edition=2)
    assert "| 10 epochs, 3 seeds, CPU | 0.14 PFLOP | 91.0% | 90.0% to 92.0% |" in second
    third = seeds.overview(rows, 50_000_000)
    assert "| 10 epochs, 1 seed, CPU | 0.14 PFLOP | 95.0% |  |" in third
    *_, line = seeds.every_seed(rows, 50_000_000).splitlines()  # none of means
    assert line == "| `EPOCHS=10` on a CPU | 0 | 80.0% | 95.0% | 22.5 | 1.9 | 1.04 |"


@pytest.mark.parametrize(("width", "side", "share"), [(1, 28, 1), (0.5, 28, 1 / 4), (1, 56, 4)])
def test_work_grows_with_the_square_of_width_and_side(own, width, side, share):
    """Nearly: the first convolution always sees three colors, the pools round."""
    whole = common.multiply_adds(own, own.build_alexnet())
    work = common.multiply_adds(own, cost.build(own, width, side))
    assert work / whole == pytest.approx(share, rel=0.1)


def test_readme_shows_the_measured_figures(notebook):
    """All tables, each between its marks: one with a slip would keep an old table for ever."""
    rows = {m: common.read(m.RESULTS) for m in (ablation, cost, seeds, time_to_accuracy)}
    tables = {m.__name__: m.table(rows[m]) for m in (ablation, cost)}
    tables["networks"] = time_to_accuracy.table(rows[time_to_accuracy])
    tables |= seeds.blocks(notebook, rows[seeds])
    shown = "".join(readme.read_text(encoding="utf-8") for readme in common.READMES)
    for name, table in tables.items():
        assert f"<!-- {name} -->\n{table}\n<!-- end -->" in shown
    assert {row["name"] for row in rows[time_to_accuracy]} == set(contenders.CONTENDERS)
    assert set(ablation.pairs(rows[ablation])) == set(ablation.CHANGES)
