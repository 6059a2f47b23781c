"""The benchmark: its contenders as published, its clock, and its figures in the README."""

import json
import re

import numpy as np
import pytest
import seeds
import time_to_accuracy
from contenders import CONTENDERS, Dirac, Triangle, airbench_batches, variance
from notebook_cells import NOTEBOOK

ROOT = NOTEBOOK.parent


@pytest.fixture(params=CONTENDERS)
def contender(request, nb, images, labels):
    nb.keras.utils.set_random_seed(1)
    return CONTENDERS[request.param](nb, np.tile(images, (4, 1, 1, 1)), np.tile(labels, 4))


def test_each_contender_trains_and_predicts(contender, images):
    contender.compile(12)  # of which two are taken
    before = [value.copy() for value in contender.model.get_weights()]
    batches = contender.batches().repeat().take(2)
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


def test_clock_stands_still_while_a_network_is_tried(nb, small_model, images, labels):
    import time

    class Slow:
        model = small_model

        def predict(self, images):
            time.sleep(3)
            return np.eye(10)[labels]

    watch = time_to_accuracy.clock(Slow(), 1.0, [0.0], images, labels)
    small_model.compile("sgd", "sparse_categorical_crossentropy")
    data = nb.tf.data.Dataset.from_tensors(
        (nb.centre_crop(images[:20]), labels[:20])
    ).repeat()
    small_model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
    assert watch.curve[0][1] == 1.0
    assert 1 <= watch.seconds < 2.5 and watch.steps > 1


def test_readme_shows_the_measured_table():
    rows = json.loads(time_to_accuracy.RESULTS.read_text())
    readme = (ROOT / "README.md").read_text()
    assert time_to_accuracy.table(rows) in readme
    assert {row["name"] for row in rows} == set(CONTENDERS)
    assert f"({time_to_accuracy.FIGURE.relative_to(ROOT)})" in readme
    by_name = {row["name"]: 100 * row["accuracy"] for row in rows}
    ours, airbench = by_name.pop("this notebook"), by_name.pop("airbench94, in Keras")
    lead = float(re.search(r"([\d.]+) points ahead of the best of the three", readme)[1])
    assert lead >= 10 and lead == pytest.approx(ours - max(by_name.values()), abs=0.06)
    said = re.search(r"airbench94 is ([\d.]+) points (ahead|behind)", readme)
    points, side = said.groups()
    gap = float(points) if side == "ahead" else -float(points)
    assert gap == pytest.approx(airbench - ours, abs=0.06)


def test_readme_shows_the_seeds(notebook):
    rows = json.loads(seeds.RESULTS.read_text())
    assert seeds.report(rows) in (ROOT / "README.md").read_text()
    stored = seeds.result(notebook, "2012")
    assert stored in rows
    short = [
        row for row in rows if not row["settings"] and row["epochs"] == stored["epochs"]
    ]
    assert len(short) >= 3 and np.mean([row["ten"] for row in short]) >= 90
    assert all(row["cpu"] <= 1600 and row["minutes"] <= 15 for row in short)


def test_range_over_seeds_and_threads_is_what_is_said(notebook):
    rows = json.loads(seeds.RESULTS.read_text())
    threads = [row for row in rows if row["settings"] == f"{seeds.THREADS}=1"]
    epochs = seeds.result(notebook, "2012")["epochs"]
    rows = [row for row in rows if not row["settings"]] + threads
    assert len(rows) >= 4 and threads and {row["epochs"] for row in rows} == {epochs}
    found = [row["ten"] for row in rows]
    said = f"between {min(found)}% and {max(found)}% with ten crops"
    assert said in (ROOT / "README.md").read_text()
    assert any(said in cell.source for cell in notebook.cells)


def test_readme_says_what_a_longer_training_gives():
    rows = json.loads(seeds.RESULTS.read_text())
    readme = (ROOT / "README.md").read_text()
    longer = [row for row in rows if "CUTOUT" in row["settings"]]
    assert len(longer) == 2
    for row in longer:
        assert "`export EPOCHS={epochs} {settings}`".format(**row) in readme
        cost = f"in {row['minutes']:.0f} minutes and {row['cpu']:,} CPU seconds"
        assert f"to {row['ten']}% with ten crops, {cost}" in readme
