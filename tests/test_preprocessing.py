"""Crops, mirror images, batches: what the network gets to see."""

import ast
import re
import time

import keras
import numpy as np
import pytest


def views(image):
    """All 50 views of an image, as bytes, with their (row, column, mirrored)."""
    found = {}
    for y, x in np.ndindex(5, 5):
        crop = image[y : y + 28, x : x + 28]
        found |= {crop.tobytes(): (y, x, 0), crop[:, ::-1].tobytes(): (y, x, 1)}
    return found


def as_stored(crops):
    """Crops with the type of the images, in which no pixel may be lost."""
    exact = np.asarray(crops).astype("uint8")
    assert (exact == crops).all(), "a pixel that no image has"
    return exact


def test_augmentation_yields_the_fifty_views_equally_often_and_no_other(nb, images):
    """5,000 views, drawn in ten batches; a bound is five standard deviations wide."""
    possible = views(images[0])
    augment, copies = nb.augmentation(1), np.repeat(images[:1], 500, axis=0)
    crops = np.concatenate([augment(copies, training=True) for _ in range(10)])
    seen = np.array([possible[view.tobytes()] for view in as_stored(crops)])
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 50 and abs(counts - 100).max() < 50
    assert len(np.unique(seen[:500], axis=0)) == 50, "fewer views in the first batch"
    pairs = np.corrcoef(seen.T) - np.eye(3)  # row, column, mirrored
    assert abs(pairs).max() < 5 / 5000**0.5


def all_batches(data):
    """The images and labels of all batches, in two arrays."""
    crops, labels = map(np.concatenate, zip(*data.as_numpy_iterator(), strict=True))
    return as_stored(crops), labels


def test_batches_hold_each_image_once_and_are_new_each_epoch(nb, images, labels):
    """Another order, and other views: by chance, an image has the same one 1 time in 50."""
    data = nb.make_batches(images, labels, seed=3)
    epochs = [all_batches(data) for _ in range(2)]
    known = {view: (n, p) for n in range(300) for view, p in views(images[n]).items()}
    found = [[known[crop.tobytes()] for crop in crops] for crops, _ in epochs]
    orders = [[number for number, _ in epoch] for epoch in found]
    for order, (_, targets) in zip(orders, epochs, strict=True):
        assert sorted(order) == list(range(300)) != order
        assert (targets == np.eye(10)[labels[order]]).all()
    assert orders[0] != orders[1] and len(set(found[0]) & set(found[1])) < 300 / 50 * 4
    same = nb.make_batches(images, labels, seed=3)
    for crops, _ in epochs:
        nb.augmentation(3)(images[:5], training=True)  # as section 4 does, to draw views
        assert (all_batches(same)[0] == crops).all()
    other = all_batches(nb.make_batches(images, labels, seed=4))[0]
    assert (epochs[0][0] != other).any()


def test_without_a_seed_all_is_as_given_and_in_order(nb, images, labels):
    """Validation, and test: the centers."""
    centers = nb.center_crop(images)
    crops, targets = all_batches(nb.make_batches(centers, labels))
    assert (targets == np.eye(10)[labels]).all()
    alone = np.concatenate(list(nb.make_batches(centers).as_numpy_iterator()))
    assert (crops == images[:, 2:30, 2:30]).all() and (alone == crops).all()


def test_split_is_stratified_disjoint_and_reproducible(run_cell, labels):
    numbers = np.arange(300)[:, None, None, None]  # as if they were images
    sets = {"x_all": numbers, "y_all": labels, "x_test": numbers}
    names, again = run_cell("split", **sets), run_cell("split", **sets)
    train, val = names["x_train"].ravel(), names["x_val"].ravel()
    assert sorted([*train, *val]) == list(range(300)) and (again["x_val"].ravel() == val).all()
    assert (labels[train] == names["y_train"]).all() and (labels[val] == names["y_val"]).all()
    assert list(np.bincount(names["y_val"])) == [3] * 10


def test_all_that_reaches_keras_comes_from_make_batches(nb, code_cells, images):
    """Else its end could wait for tf.data's autotuner. A few images may go in as they are."""
    assert nb.make_batches(images).options().autotune.enabled is False
    good, found = {"center_crop(x_val[:250])", "crop"}, []
    names = ("x", "validation_data")
    for node in (n for cell in code_cells.values() for n in ast.walk(ast.parse(cell.source))):
        if isinstance(node, ast.Assign) and "make_batches(" in ast.unparse(node.value)[:13]:
            good.add(ast.unparse(node.targets[0]))
        call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if re.fullmatch(r"(?!ImageOps)\w+\.(fit|predict|evaluate)", call):
            found += map(ast.unparse, node.args)
            found += [ast.unparse(k.value) for k in node.keywords if k.arg in names]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values)
            found += [ast.unparse(v) for k, v in pairs if getattr(k, "value", 0) in names]
    assert len(found) > 8
    for source in found:
        assert source in good or source.startswith("make_batches("), source


@pytest.mark.slow
def test_fit_returns_soon_after_its_last_batch(nb, monkeypatch):
    """Five times in a row. The autotuner's ticks would be at 5.1 and 10.2 seconds."""
    monkeypatch.setattr(nb, "BATCH_SIZE", 10)
    pool, dense, ends = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10), []
    model = keras.Sequential([keras.Input((28, 28, 3)), pool, dense])
    model.compile("sgd", "mse")
    data = nb.make_batches(np.zeros((650, 32, 32, 3), "uint8"), np.arange(650) % 10, seed=1)

    def note(batch, logs):
        time.sleep(0.1)
        ends.append(time.monotonic())

    for _ in range(5):
        start = time.monotonic()
        pace = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        model.fit(data, callbacks=[pace], verbose=0)
        late, took = time.monotonic() - ends[-1], ends[-1] - start
        assert took >= 6 and late < took / 5, f"{late:.1f} s late after {took:.1f} s"


def test_pixels_are_measured_on_training_images(run_cell, small_model, images, labels):
    """For each color. And the network's first layer brings them to mean 0 and spread 1."""
    dark = images // np.array([1, 2, 4], "uint8")
    names = run_cell("split", x_all=dark, y_all=labels, x_test=images)
    part = names["x_train"]
    np.testing.assert_allclose(names["pixel_mean"], part[::10].mean((0, 1, 2)))
    np.testing.assert_allclose(names["pixel_std"], part[::10].std((0, 1, 2)))
    normal = np.array(small_model.layers[0](images))
    np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(normal.std((0, 1, 2)), 1, atol=1e-3)
