"""The benchmark: its contenders as published, its clock, and its figures in the README."""

import collections
import json
import re
from types import SimpleNamespace

import ablation
import airbench_parts
import contenders
import cost
import numpy as np
import pytest
import search
import seeds
import time_to_accuracy
from contenders import (
    CONTENDERS,
    Dirac,
    Triangle,
    airbench_batches,
    multiply_adds,
    variance,
)
from notebook_cells import NOTEBOOK, notebook_functions

ROOT = NOTEBOOK.parent


@pytest.fixture(params=CONTENDERS)
def contender(request, nb, images, labels):
    nb.keras.utils.set_random_seed(1)
    return CONTENDERS[request.param](nb, np.tile(images, (4, 1, 1, 1)), np.tile(labels, 4))


def test_each_contender_trains_and_predicts(contender, images):
    contender.compile(12)  # of which two are taken
    before = [value.copy() for value in contender.model.get_weights()]
    batches = contender.batches().unbatch().batch(32).repeat().take(2)
    history = contender.model.fit(batches, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = contender.model.get_weights()
    assert any((a != b).any() for a, b in zip(before, after))
    scores = contender.predict(images[:5])
    assert scores.shape == (5, 10) and np.isfinite(scores).all()


def test_published_sizes(nb, images, labels):
    """The tutorial states its size; AlexNet's dense layers at 227 are the original's."""
    sizes = {name: make(nb, images, labels).model for name, make in CONTENDERS.items()}
    assert sizes["TensorFlow's CNN tutorial"].count_params() == 122_570
    large = sizes["AlexNet on images of 227 x 227"]
    dense = [layer for layer in large.layers if isinstance(layer, nb.layers.Dense)]
    assert [layer.kernel.shape[0] for layer in dense] == [9216, 4096, 4096]
    assert 1.9e6 < sizes["airbench94, in Keras"].count_params() < 2.1e6


def test_variance(images):
    np.testing.assert_allclose(variance(images), images.var((0, 1, 2)), rtol=1e-6)


def test_airbench_starts_with_whitened_patches(nb):
    noise = np.random.default_rng(0).normal(size=(5000, 32, 32, 3)).cumsum(1).cumsum(2)
    images = np.clip(128 + 4 * noise, 0, 255).astype("uint8")
    model = CONTENDERS["airbench94, in Keras"](nb, images, np.zeros(5000, int)).model
    whitened = images[:500].astype("float32")
    for layer in model.layers[:2]:
        whitened = layer(whitened)
    features = np.reshape(whitened, (-1, 24))[:, :12]
    covariance = features.T @ features / len(features)
    assert (0.5 < covariance.diagonal()).all() and (covariance.diagonal() < 1.1).all()
    assert abs(covariance - np.diag(covariance.diagonal())).max() < 0.05


def test_dirac_kernels_pass_their_channels_on(nb, images):
    layer = nb.layers.Conv2D(8, 3, padding="same", kernel_initializer=Dirac())
    pixels = images[:2].astype("float32")
    np.testing.assert_allclose(layer(pixels)[..., :3], pixels, rtol=1e-6)


def test_triangle():
    rates = [float(Triangle(1.0, 100)(step)) for step in (0, 23, 100)]
    assert rates == pytest.approx([0.2, 1, 0.07], abs=1e-6)


def test_airbench_mirrors_each_image_every_other_epoch(nb):
    """1024 images of a slope: the sign of it tells which way round a view is."""
    slope = np.tile(np.arange(32, dtype="uint8")[None, :, None], (32, 1, 3))
    images = np.tile(slope, (1024, 1, 1, 1))
    images[:, 8:24, 8:24, 1] = (np.arange(1024) % 256)[:, None, None]
    batches = airbench_batches(nb, images, np.arange(1024) % 10)

    def directions(batch):
        views = batch[0].numpy().astype(int)
        right = views[:, 16, 20, 0] > views[:, 16, 12, 0]
        return np.bincount(views[:, 16, 16, 1], weights=right, minlength=256)

    taken = list(batches.take(3))
    first, second, third = [directions(batch) for batch in taken]
    assert (taken[0][0] != taken[2][0]).numpy().any()  # another order, other places
    assert (first == third).all()
    assert ((first + second) == 4).all() and 0.4 < first.sum() / 1024 < 0.6


class Hands:
    """A clock that moves only when it is told to."""

    now = 0.0

    def time(self):
        return self.now

    process_time = time


def test_clock_stands_still_while_a_network_is_tried(monkeypatch, images, labels):
    """Ten steps of a second each, and a try after the second that takes a minute."""
    hands, network = Hands(), SimpleNamespace(stop_training=False)
    monkeypatch.setattr(time_to_accuracy, "time", hands)

    class Slow:
        def predict(self, images):
            hands.now += 60
            return np.eye(10)[labels]

    watch = time_to_accuracy.clock(Slow(), 10, [1.5], images, labels)
    watch.set_model(network)
    watch.on_train_begin()
    while not network.stop_training:
        hands.now += 1
        watch.on_train_batch_end(watch.steps)
    watch.on_train_end()
    assert watch.curve == [(2, 1.0)]
    assert (watch.steps, watch.seconds, watch.cpu) == (10, 10, 10)


def test_readme_shows_the_measured_table():
    rows = json.loads(time_to_accuracy.RESULTS.read_text())
    readme = (ROOT / "tests" / "benchmarks" / "README.md").read_text()
    assert time_to_accuracy.table(rows) in readme
    assert {row["name"] for row in rows} == set(CONTENDERS)


OURS = [name for name in search.CHANGES if name not in airbench_parts.CHANGES]


@pytest.mark.parametrize("name", OURS)
def test_each_change_changes_something(code_cells, pixels, images, name):
    nb = notebook_functions(code_cells)
    nb.training_images = images
    plain = vars(nb).copy()
    search.CHANGES[name](nb)
    changed = {key for key in plain if vars(nb)[key] is not plain[key]}
    assert bool(changed) == (name != search.AS_IT_IS)
    model = nb.build_alexnet(pixels)
    nb.compile_model(model, nb.PEAK_RATE, 10)
    assert 0 <= float(model.optimizer.learning_rate) < nb.PEAK_RATE


@pytest.mark.parametrize("part", airbench_parts.CHANGES)
def test_each_part_of_airbench94_is_replaced(code_cells, images, monkeypatch, part):
    for name in ("Dirac", "gelu", "group", "layers", "BIAS_SCALER", "SEED"):
        monkeypatch.setattr(contenders, name, getattr(contenders, name))  # put back after
    monkeypatch.setattr(contenders.Airbench, "look_ahead", contenders.Airbench.look_ahead)
    nb = notebook_functions(code_cells)
    nb.training_images = images
    airbench_parts.airbench94(nb)
    plain = vars(nb) | vars(contenders) | vars(contenders.Airbench)
    airbench_parts.CHANGES[part](nb)
    changed = vars(nb) | vars(contenders) | vars(contenders.Airbench)
    assert any(changed[key] is not plain[key] for key in plain)
    model = nb.build_alexnet(None)
    nb.compile_model(model, None, 10)
    assert len(nb.ten_crops(images)) == 8 and nb.ten_crops(images)[4] is images


def test_alternating_mirror_turns_each_image_every_other_epoch(code_cells):
    """Slopes that get brighter to the right; green tells which image it is."""
    nb = notebook_functions(code_cells)
    nb.BATCH_SIZE = 16
    search.alternating_mirror(nb)
    images = np.zeros((16, 32, 32, 3), "uint8")
    images[..., 0] = np.arange(32)
    images[..., 1] = np.arange(16)[:, None, None]
    epochs = []
    for views, _ in nb.training_batches(images, np.arange(16) % 10, 1).take(3):
        views = views.numpy().astype(int)
        mirrored = views[:, 0, 0, 0] > views[:, 0, 1, 0]
        epochs.append(dict(zip(views[:, 0, 0, 1], mirrored)))
    assert [len(epoch) for epoch in epochs] == [16, 16, 16]
    assert epochs[0] == epochs[2] == {n: not turned for n, turned in epochs[1].items()}
    assert sum(epochs[0].values()) == 8


def results(accuracies):
    """Rows like those of search.json, from {(change, seed): accuracy in percent}."""
    return [
        {"change": name, "seed": seed, "pflop": 0.1, "centre": found, "ten": found + 1}
        for (name, seed), found in accuracies.items()
    ]


def test_effect_of_a_change_in_pairs_is_the_mean_difference():
    """Differences of 2 and 3: the mean is 2.5, its standard error a half."""
    plain, changed = search.AS_IT_IS, "dropout 0.5"
    found = {(plain, 1): 80, (plain, 2): 90, (changed, 1): 82, (changed, 2): 93}
    table = search.table(results(found))
    assert "| dropout 0.5 | 0.1 | 2 | +2.50 ± 0.50 | +2.50 ± 0.50 |" in table


def test_two_changes_that_always_came_together_are_not_told_apart():
    found = {
        (search.AS_IT_IS, 1): 80,
        ("dropout 0.5 + twice the rate", 1): 82,
        ("gamma fixed", 1): 83,
    }
    effects = search.effects(results(found), "centre")
    assert effects["dropout 0.5"] == effects["twice the rate"] == (None, None)
    assert effects["gamma fixed"][0] == pytest.approx(3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_screen_tells_the_changes_apart(mirrored):
    """Eleven effects of different size are found again from twelve trainings."""
    worth = {name: 2.0**n for n, name in enumerate(search.SCREEN)} | {search.BASE: 0.0}
    combinations = search.designed(mirrored)
    found = {(c, 1): sum(worth[name] for name in c.split(" + ")) for c in combinations}
    effects = search.effects(results(found), "centre")
    for name in search.SCREEN:
        assert sum(name in c.split(" + ") for c in combinations) == 6
        assert effects[name][0] == pytest.approx(worth[name])


@pytest.mark.parametrize("arm", ablation.CHANGES)
def test_each_arm_changes_what_its_name_says(code_cells, pixels, images, arm):
    """Its layers are counted; its recipe compiles; its answers are probabilities."""
    nb = notebook_functions(code_cells)
    ablation.CHANGES[arm](nb)
    model = nb.build_alexnet(pixels)
    kinds = collections.Counter(type(layer).__name__ for layer in model.layers)
    norms, lrn = kinds["BatchNormalization"], kinds["Sequential"]
    assert (norms, lrn) == {
        "no normalisation, weights of He": (0, 0),
        "LRN for batch normalisation": (0, 2),
        "recipe of 2012": (0, 2),
        "four convolutions": (6, 0),
    }.get(arm, (7, 0))
    assert kinds["Conv2D"] == (4 if arm == "four convolutions" else 5)
    assert kinds["ReLU"] == {"tanh for ReLU": 0, "four convolutions": 6}.get(arm, 7)
    nb.compile_model(model, 0.01, 10)
    has_muon = not ("SGD" in arm or "2012" in arm)
    assert hasattr(model.optimizer, "share") == has_muon
    answers = model(nb.augment(images[:8], (1, 2)), training=True)
    np.testing.assert_allclose(np.sum(answers, axis=1), 1, rtol=1e-5)


def test_lrn_stands_where_the_paper_has_it(code_cells, pixels):
    nb = notebook_functions(code_cells)
    ablation.CHANGES["recipe of 2012"](nb)
    model = nb.build_alexnet(pixels)
    for name in ("pool1", "pool2"):
        kinds = [type(layer).__name__ for layer in model.get_layer(name).layers]
        assert kinds == ["Bias", "ReLU", "OfPixels", "MaxPooling2D"]
    layer = model.get_layer("pool2").layers[2]
    values = np.random.default_rng(0).normal(size=(2, 3, 3, 8))
    raw = nb.LocalResponseNormalization()(ablation.PIXELS * values.astype("float32"))
    np.testing.assert_allclose(layer(values), raw / ablation.PIXELS, rtol=1e-4)
    ones = {
        v.path.split("/")[-2] for v in model.variables if "bias" in v.path and v[0] == 1
    }
    assert ones == {"bias_conv2", "bias_conv4", "bias_conv5", "bias_fc6", "bias_fc7"}
    spread = np.std(model.get_layer("fc6").get_weights()[0])
    assert spread == pytest.approx((2 / 1152) ** 0.5, rel=0.05)


def test_rate_at_the_edge_of_the_grid_widens_it(monkeypatch, tmp_path):
    """An arm that is best at an eighth of the rate: the grid grows down to a sixteenth."""
    asked = []

    def train(function, arm, seed, factor, **options):
        asked.append(factor)
        return {"centre": -abs(np.log2(factor) + 3), "ten": 0}

    monkeypatch.setattr(ablation, "in_a_process", train)
    rows = ablation.Rows(tmp_path / "rows.json", 5, "CPU")
    assert rows.best_factor(ablation.CONSTANT) == 1 / 8
    assert sorted(asked) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2]
    other = ablation.Rows(tmp_path / "rows.json", 5, "H100")
    assert other.best_factor(ablation.CONSTANT) == 1 / 8
    assert len(asked) == 6  # what was trained is not trained again, but with other seeds:
    assert rows.get(ablation.WHOLE, 2, 1)["device"] == "CPU"
    assert other.get(ablation.WHOLE, 2, 1)["device"] == "H100"
    assert ablation.OWN_RATE < set(ablation.CHANGES)  # a name with a slip would be ignored
    assert not any(" + " in arm for arm in ablation.CHANGES)  # two changes in one training


def test_effect_of_an_arm_is_its_mean_difference_in_pairs():
    """-2, -3, -4 points, and 0, 0, 0; the training that chose the rate is none of them."""
    found = {
        (ablation.WHOLE, "CPU"): (80, 82, 84),
        (ablation.WHOLE, "H100"): (50, 60, 70),
        ("tanh for ReLU", "CPU"): (78, 79, 80),
        ("no dropout", "H100"): (50, 60, 70),
        ("2 x 2 pools", "CPU"): (9,),  # one seed says nothing of chance
    }
    rows = [
        {"change": arm, "device": device, "factor": 2, "seed": seed}
        | {"centre": value, "ten": value + 5}
        for (arm, device), values in found.items()
        for seed, value in enumerate([0, *values])
    ]
    effects = ablation.effects(rows, "ten")
    assert {arm: points for arm, (points, _) in effects.items()} == {
        "tanh for ReLU": -3,
        "no dropout": 0,
    }
    assert effects["tanh for ReLU"][1] == pytest.approx((1 / 3) ** 0.5)  # its own spread
    assert effects["no dropout"][1] == pytest.approx((0.5 / 3) ** 0.5)  # of both
    last = list(ablation.for_notebook(rows).items())[-1]
    assert last == ("tanh for ReLU", [3, 0.58])
    row = "| tanh for ReLU | x 2 | 3 | -3.00 ± 0.58 | -3.00 ± 0.58 |  |"
    assert row in ablation.table(rows)


def test_notebook_says_what_each_length_brings(notebook):
    """Where the epochs are set: lengths and means as in the table of seeds.py."""
    table = seeds.overview(json.loads(seeds.RESULTS.read_text()), 1)
    said = next(cell.source for cell in notebook.cells if cell.id == "settings-intro")
    for column in (r"^\| (\d+)", r"([\d.]+%) \| \d"):
        *first, last = re.findall(column, table, re.MULTILINE)
        assert f"{', '.join(first)} and {last}" in said
    readme = (ROOT / "README.md").read_text()
    assert f"Forty epochs bring {last}, three {first[0]}." in readme


def test_notebook_shows_what_was_measured(nb):
    """In the same order: eleven ideas or more, then the three of the lower chart."""
    lost = ablation.for_notebook(json.loads(ablation.RESULTS.read_text()))
    one_thing, from_2012 = nb.LOST.values()
    shown = {name: list(found) for name, found in (one_thing | from_2012).items()}
    assert list(shown.items()) == list(lost.items()) and len(one_thing) >= 11
    assert list(from_2012) == [name for name in lost if "2012" in name]


@pytest.mark.parametrize(
    ("width", "side", "share"), [(1, 28, 1), (0.5, 28, 1 / 4), (1, 56, 4)]
)
def test_work_grows_with_the_square_of_width_and_side(code_cells, width, side, share):
    """Nearly: the first convolution always sees three colours, the pools round."""
    nb = notebook_functions(code_cells)
    whole = multiply_adds(cost.build(notebook_functions(code_cells), 1, 28))
    assert multiply_adds(cost.build(nb, width, side)) / whole == pytest.approx(
        share, rel=0.1
    )
    assert nb.CROP == 28  # for the batches


def test_days_of_the_paper():
    """Two cards of 1.58 TFLOP/s at full speed; 3.16e12 operations a second for two days."""
    assert cost.days(3.16, 2.5 * 24 * 3600 * 3.16e12) == "2.5 days"
    assert cost.days(3.16, 3.16e12 * 3600) == "1.0 hours"


def test_readme_shows_the_measured_costs():
    rows = json.loads(cost.RESULTS.read_text())
    readme = (ROOT / "tests" / "benchmarks" / "README.md").read_text()
    assert cost.written_anew(readme, rows, cost.work_of_2012()) == readme
    assert cost.table(rows) in readme and len(rows) == 1 + len(cost.OTHERS)
