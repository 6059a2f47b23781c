"""Section 9: the variants, how they are trained, and what is said about the runs."""

import json
import re

import numpy as np
import pytest
from notebook_cells import NOTEBOOK

README = NOTEBOOK.parent / "README.md"


@pytest.fixture
def normalization(nb, images):
    """A normalisation that has seen the random images."""
    layer = nb.layers.Normalization()
    layer.adapt(images.astype("float32"))
    return layer


@pytest.fixture
def make(nb, normalization):
    """A function that builds a variant."""
    return lambda **change: nb.variant(normalization, **change)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_four_layers_have_weights(make, notebook):
    size = f"{make().count_params():,} parameters"
    assert any(f"a network of {size}" in cell.source for cell in notebook.cells)
    weighted = [name for name in kinds(make()) if name in ("Conv2D", "Dense")]
    assert weighted == ["Conv2D", "Conv2D", "Dense", "Dense"]


@pytest.mark.parametrize(
    ("change", "kind", "more"),
    [
        ({"norm": "local"}, "LocalResponseNormalization", 2),
        ({"norm": "batch"}, "BatchNormalization", 3),
    ],
)
def test_a_normalisation_is_all_that_is_added(make, change, kind, more):
    with_it, without = kinds(make(**change)), kinds(make())
    assert with_it.count(kind) == more and without.count(kind) == 0
    assert [name for name in with_it if name != kind] == without


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"activation": "tanh"}, "activation"),
        ({"pool": 2}, "pool_size"),
        ({"dropout": 0.5}, "rate"),
    ],
)
def test_a_variant_differs_in_one_thing(make, change, setting):
    pairs = zip(make(**change).layers, make().layers, strict=True)
    changed = set()
    for ours, base in pairs:
        a, b = ours.get_config(), base.get_config()
        changed |= {key for key in a if key != "name" and str(a[key]) != str(b[key])}
    assert changed == {setting}


def test_initial_weights_of_2012(nb, make):
    """Normal with deviation 0.01; bias 1 in conv2, conv4, conv5, fc6 and fc7, else 0."""
    nb.keras.utils.set_random_seed(1)
    model = make(start="2012", **nb.QUARTER)
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    biases = [set(np.unique(layer.bias)) for layer in layers]
    assert biases == [{0}, {1}, {0}, {1}, {1}, {1}, {1}, {0}]
    for layer in layers:
        assert np.std(layer.kernel) == pytest.approx(0.01, rel=0.1)
    model = make(**nb.QUARTER)
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert all((np.array(layer.bias) == 0).all() for layer in layers)
    for layer in layers:  # Glorot and Bengio: variance 2 / (inputs + outputs)
        *places, inputs, outputs = layer.kernel.shape
        fans = np.prod(places) * (inputs + outputs)
        assert np.std(layer.kernel) == pytest.approx(np.sqrt(2 / fans), rel=0.1)


def test_pixels_of_2012_are_centred_and_not_scaled(make, images):
    for pixels, deviation in (("centred", images.std()), ("scaled", 1)):
        found = make(pixels=pixels).layers[0](images[:, :28, :28])
        assert np.mean(found) == pytest.approx(0, abs=deviation / 100)
        assert np.std(found) == pytest.approx(deviation, rel=0.02)


def test_ladder_network_is_the_notebooks_at_a_quarter_of_its_width(nb, make, small_model):
    quarter = {**nb.QUARTER, "norm": "batch"}
    ours = [layer for layer in make(**quarter).layers if hasattr(layer, "kernel")]
    whole = [layer for layer in small_model.layers if hasattr(layer, "kernel")]
    for small, large in zip(ours[:-1], whole[:-1], strict=True):
        assert 4 * small.kernel.shape[-1] == large.kernel.shape[-1]


def test_ladder_ends_with_the_notebooks_recipe(nb):
    recipe = {}
    for change in nb.LADDER.values():
        assert not set(change) - set(nb.LADDER["as in 2012"])
        recipe |= change
    assert recipe["rate"] == nb.PEAK_LEARNING_RATE and recipe["batch"] == nb.BATCH_SIZE
    assert recipe["smoothing"] == nb.LABEL_SMOOTHING and recipe["norm"] == "batch"
    assert recipe["cycle"] and recipe["nesterov"] and recipe["pixels"] == "scaled"
    assert recipe["start"] == nb.FOUR_LAYERS["start"] == "glorot_uniform"


def test_rate_of_2012_is_divided_by_ten_three_times(nb):
    schedule = nb.stepwise(0.01, 1000)
    rates = [float(schedule(step)) for step in (0, 500, 501, 750, 751, 900, 901, 999)]
    expected = [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    assert rates == pytest.approx(expected, rel=1e-4)


def test_verdicts(nb):
    assert nb.verdict([1, 2, 2.9], [3, 4, 5]) == "holds here"
    assert nb.verdict([3, 4, 5], [1, 2, 2.9]) == "does not hold here"
    assert nb.verdict([1, 2, 3], [3, 4, 5]) == "does not show at this budget"
    assert nb.verdict([3, 4, 5], [1, 2, 3]) == "does not show at this budget"


def test_passes_to(nb):
    assert nb.passes_to(75, [50, 70, 80]) == pytest.approx(2.5)
    assert nb.passes_to(75, [50, 70, 60]) == np.inf


def test_spread(nb):
    assert nb.spread([1.0, 2.0, 4.5]) == "2.5 (1.0 to 4.5)"


@pytest.fixture
def trained(nb, images, labels, normalization, monkeypatch):
    """A function that trains a variant for four epochs with two seeds on the 300 images."""
    right = nb.tf.one_hot(labels, 10)
    names = {
        "normalization": normalization,
        "validation_data": nb.fixed_batches(nb.centre_crop(images), right),
        "few_images": images,
        "few_labels": labels,
        "few_plain": nb.fixed_batches(nb.centre_crop(images), right),
        "ladder_images": images,
        "ladder_labels": labels,
        "REPEATS": [0, 1],
    }
    for name, value in names.items():
        monkeypatch.setattr(nb, name, value, raising=False)
    return lambda **change: nb.train_variant(epochs=4, **change)


@pytest.mark.parametrize("rate", [0.05, "cycle"])
def test_start_again_leaves_no_trace_of_a_training(nb, trained, make, images, labels, rate):
    """Weights, statistics, momentum, count of steps and chance are set back."""
    nb.tf.config.experimental.enable_op_determinism()
    rate = nb.OneCycle(0.1, 4) if rate == "cycle" else rate
    net = make(norm="batch", dropout=0.5)
    nb.compile_model(net, rate)

    def state():
        return [variable.numpy() for variable in net.variables + net.optimizer.variables]

    def train(seed):
        nb.start_again(net, seed)
        before = state()
        data = nb.training_batches(images, labels, seed, 100)
        net.fit(data, shuffle=False, verbose=0)
        return before, state()

    first, other, again = train(0), train(1), train(0)
    for one, two in zip(first, again, strict=True):  # before, and after the training
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    same = [np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=True)]
    kernels = [a.ndim > 1 and a.any() for a in first[0]]
    assert sum(kernels) == 4 and not any(same[i] for i, k in enumerate(kernels) if k)
    assert not any(np.array_equal(*pair) for pair in zip(*first) if pair[0].ndim > 1)
    assert len(net.optimizer.variables) > len(net.trainable_variables)


def test_variants_are_trained_once_for_each_seed(nb, trained):
    nb.tf.config.experimental.enable_op_determinism()
    runs = trained()
    assert np.shape(runs["training"]) == (2, 4) and np.shape(runs["validation"]) == (2, 1)
    assert np.shape(runs["training, plain"]) == (2,)
    assert nb.final_gaps(runs) == pytest.approx(0)  # validated on the training images here
    assert nb.final_errors(runs) == pytest.approx(100 - np.array(runs["training, plain"]))
    assert not np.array_equal(*runs["training"])
    again = trained()
    assert all(np.array_equal(runs[key], again[key]) for key in runs)


def test_each_rung_trains(nb, trained):
    recipe = {}
    for change in nb.LADDER.values():
        recipe |= change
        accuracies = nb.train_rung(recipe)
        assert len(accuracies) == 2 and all(0 <= each <= 100 for each in accuracies)


def test_a_rung_uses_its_recipe(nb, trained, monkeypatch):
    """What the recipe says arrives in the network, its optimizer, loss and batches."""
    seen = {}

    def fit(self, data, **options):
        seen.update(model=self, size=data.element_spec[0].shape[0], steps=len(data))

    monkeypatch.setattr(nb.keras.Sequential, "fit", fit)
    recipe = dict(nb.LADDER["as in 2012"])
    nb.train_rung(recipe)
    old = dict(seen)
    for change in nb.LADDER.values():
        recipe |= change
    nb.train_rung(recipe)
    rates = [float(each["model"].optimizer._learning_rate(0)) for each in (old, seen)]
    assert rates == pytest.approx([0.01, 0])  # the cycle starts at zero
    assert [each["model"].optimizer.nesterov for each in (old, seen)] == [False, True]
    assert [each["model"].loss.label_smoothing for each in (old, seen)] == [0, 0.1]
    assert [each["size"] for each in (old, seen)] == [128, 256]
    assert [each["steps"] for each in (old, seen)] == [300 // 128, 300 // 256]
    norms = ("LocalResponseNormalization", "BatchNormalization")
    counts = [[kinds(each["model"]).count(kind) for kind in norms] for each in (old, seen)]
    assert counts == [[2, 0], [0, 7]]
    for each in (old, seen):
        assert each["model"].optimizer.weight_decay == nb.WEIGHT_DECAY
        dropout = [layer for layer in each["model"].layers if hasattr(layer, "rate")]
        assert [layer.rate for layer in dropout] == [0.5, 0.5]


def test_rates_are_the_fastest_of_those_tried(nb):
    tries = json.loads((NOTEBOOK.parent / "tests/benchmarks/rates.json").read_text())
    for network, change in nb.ACTIVATIONS.items():
        ours = [row for row in tries if row["network"] == network]
        best = min(ours, key=lambda row: row["epochs"] or np.inf)
        assert best["rate"] == change["rate"]
        assert min(r["rate"] for r in ours) < best["rate"] < max(r["rate"] for r in ours)


@pytest.fixture(scope="session")
def table(code_cells):
    """The stored table of claims as Markdown."""
    return code_cells["claims-table"].outputs[0].data["text/markdown"]


def rows_of(lines):
    """The claims of a table's lines: two means and a verdict for each."""
    found = {}
    for line in list(lines)[1:]:  # the first holds the titles
        name, _, with_it, without, said = [part.strip() for part in line.split("|")[1:-1]]
        found[name] = float(with_it.split()[0]), float(without.split()[0]), said
    return found


@pytest.fixture(scope="session")
def claims(table):
    """The claims of the stored table."""
    return rows_of(line for line in table.splitlines() if line.startswith("| "))


def rung_means(text):
    """The mean accuracies of the ladder's rungs, in their order."""
    return [float(mean) for mean in re.findall(r"^\w.{25}([\d.]+) \(", text, re.M)]


def rungs(stored):
    """The same for the stored ladder."""
    return rung_means(stored("climb"))


def test_prose_says_what_the_table_says(claims):
    said = {name.split(":")[0]: verdict for name, (_, _, verdict) in claims.items()}
    assert said == {
        "ReLU, 2012": "holds here",
        "ReLU, today": "does not hold here",
        "LRN, 2012": "holds here",
        "LRN, today": "does not show at this budget",
        "batch norm": "does not show at this budget",
        "3 x 3 pools, not 2 x 2": "holds here",
        "dropout": "holds here",
        "augmentation": "holds here",
        "ten crops": "holds here",
    }
    dropout, neither, _ = claims["dropout: gap"]
    augmentation = claims["augmentation: gap"][0]
    with_it, without, _ = claims["LRN, 2012: error"]
    assert without - with_it > 2
    with_it, without, _ = claims["3 x 3 pools, not 2 x 2: error"]
    assert without - with_it > 0.4
    assert augmentation < dropout < neither / 2  # "more than half of the gap"


def test_prose_says_what_the_training_errors_say(stored):
    lines = [line.split(":") for line in stored("show-errors").splitlines()]
    ends = {name.strip(): float(text.split()[5]) for name, text in lines}
    assert ends["batch norm"] < 5  # "learned almost by heart"
    assert ends["2 x 2 pools"] < ends["ReLU"] < ends["LRN"]


def test_prose_says_what_the_ladder_says(nb, notebook, code_cells, stored):
    size = int(re.search(r"else ([\d_]+)\)", code_cells["ladder"].source)[1])
    steps = size // nb.LADDER["as in 2012"]["batch"]
    assert any(f"the same {size:,} images once" in cell.source for cell in notebook.cells)
    assert f"the same {size:,} images once" in README.read_text()
    assert any(f"we gave it {steps} steps" in cell.source for cell in notebook.cells)
    first, start, norm, cycle, nesterov, batches, smoothing = rungs(stored)
    assert first == 10 and start > first + 2  # "guessing", and "brought to life"
    assert norm - start == max(np.diff(rungs(stored)))  # "largest step up"
    assert cycle > norm and nesterov > cycle
    assert batches < nesterov  # "a step down"
    low, high = re.search(r"^label.*\((.*) to (.*)\)", stored("climb"), re.M).groups()
    assert 0 < batches - smoothing < float(high) - float(low)  # "less than the runs differ"


def test_local_response_normalisation_hardly_depends_on_small_responses(nb):
    """The prose: with responses around 1, it divides by 1.68 and does little else."""
    responses = nb.tf.random.stateless_normal((10, 8, 8, 16), seed=(1, 2))
    ratio = responses / nb.LocalResponseNormalization()(responses)
    assert np.min(ratio) >= 1.68 and np.max(ratio) < 1.69


def test_readme_shows_the_claims_and_names_the_ladders_ends(table, stored):
    readme = README.read_text()
    assert table in readme
    assert stored("climb").strip() in readme
    assert f"from {rungs(stored)[0]}% to {rungs(stored)[-1]}%" in readme
    assert np.argmax(rungs(stored)) == 4  # "its best two rungs before the end"


def test_readme_says_what_the_longer_experiments_gave(claims):
    """The second table stands in tests/benchmarks/README.md; the ladder below it."""
    log = (NOTEBOOK.parent / "tests/benchmarks/README.md").read_text()
    log = log.split("## The claims of section 9, four times as long")[1]
    longer = rows_of(line for line in log.splitlines() if line.startswith("| "))
    names = [name for name in claims if name != "ten crops: error"]
    assert list(longer) == names
    other = [name for name in names if longer[name][2] != claims[name][2]]
    assert other == ["batch norm: error"]
    with_it, without, said = longer["batch norm: error"]
    readme = README.read_text()
    assert f"{with_it}% validation error with it, {without}% without" in readme
    assert said == "does not hold here"  # "ends behind"
    dropout, neither, _ = longer["dropout: gap"]
    assert f"to {dropout} points ({neither} without)" in readme
    training = re.findall(r"^(\S.*?) *: error on the training images (\S+)", log, re.M)
    assert all(float(error) == 0 for name, error in training if "2012" not in name)
    found = rung_means(log)
    assert f"from {found[0]}% to {found[-1]}%. Its largest step up" in readme
    assert f"gets worse with more training ({longer['LRN, 2012: error'][1]}%" in readme
    assert longer["LRN, 2012: error"][1] > claims["LRN, 2012: error"][1]
    highest = max(np.diff(found))
    assert highest == found[1] - found[0] and f"(+{highest:.1f} points)" in readme
