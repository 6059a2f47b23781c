"""Crops, mirror images, batches: what the network gets to see."""

import numpy as np


def views(image):
    """All 50 views of an image, as bytes, with their (row, column, mirrored)."""
    found = {}
    for y in range(5):
        for x in range(5):
            piece = image[y : y + 28, x : x + 28]
            found[piece.tobytes()] = (y, x, False)
            found[piece[:, ::-1].tobytes()] = (y, x, True)
    return found


def test_augment_yields_each_of_the_fifty_views_and_no_other(nb, images):
    possible = views(images[0])
    batch = nb.augment(np.repeat(images[:1], 2000, axis=0), (1, 2)).numpy()
    seen = np.array([possible[view.tobytes()] for view in batch])
    assert len({*map(tuple, seen)}) == 50
    rows, columns, mirrored = seen.T
    for places in (rows, columns):
        assert np.bincount(places).min() > 2000 / 5 * 0.8
        assert abs(np.corrcoef(places, mirrored)[0, 1]) < 0.1
    assert 0.45 < mirrored.mean() < 0.55
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.1


def test_augment_treats_each_image_of_a_batch_by_itself(nb, images):
    batch = nb.augment(images, (3, 4)).numpy()
    places = [views(image)[view.tobytes()] for image, view in zip(images, batch)]
    assert len(set(places)) == 50


def all_batches(batches):
    """The images and labels of all batches, in two arrays."""
    return [np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True)]


def test_training_batches_hold_each_image_once_with_its_label(nb, images, labels):
    x, y = all_batches(nb.training_batches(images, labels, seed=3))
    assert x.shape == (256, 28, 28, 3) and x.dtype == np.uint8
    known = {view: number for number in range(300) for view in views(images[number])}
    found = [known[image.tobytes()] for image in x]
    assert len(set(found)) == 256
    assert [labels[number] for number in found] == list(y.argmax(axis=1))
    assert (y.sum(axis=1) == 1).all()


def test_training_batches_are_new_each_epoch_and_the_same_for_a_seed(nb, images, labels):
    data = nb.training_batches(images, labels, seed=3)
    first, second = all_batches(data)[0], all_batches(data)[0]
    again = all_batches(nb.training_batches(images, labels, seed=3))[0]
    other = all_batches(nb.training_batches(images, labels, seed=4))[0]
    assert (first == again).all()
    assert (first != second).any() and (first != other).any()


def test_validation_data_are_the_centres_in_order(run_cell, images, labels):
    some = {"x_train": images, "y_train": labels, "x_val": images[:9], "y_val": labels[:9]}
    x, y = run_cell("make-batches", **some)["validation_data"]
    assert (x == images[:9, 2:30, 2:30]).all() and (y.argmax(axis=1) == labels[:9]).all()
