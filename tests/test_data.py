"""Loading, split, crops and flips."""

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest

CACHED = "cifar-10-batches-py-target_archive"  # Keras's name for the archive
NOBODY = "http://127.0.0.1:9/"  # nothing listens on this port


def save_npz(path, count=50000, dtype="uint8", height=32, label=3):
    """Writes an .npz file like CIFAR-10's, of zeros; np.broadcast_to keeps it quick."""
    arrays = {}
    for name, n in (("train", count), ("test", 10000)):
        arrays[f"x_{name}"] = np.zeros((n, height, 32, 3), dtype)
        arrays[f"y_{name}"] = np.full((n, 1), label, "uint8")
    np.savez(path, **arrays)
    return path


def test_keras_accepts_what_the_notebook_puts_into_its_cache(nb, code_cells):
    """load_data() looks for this file name with this checksum."""
    source = inspect.getsource(keras.datasets.cifar10.load_data)
    assert nb.ARCHIVE_SHA256 in source
    assert '"cifar-10-batches-py-target"' in source
    assert f'"{CACHED}"' in code_cells["fill-cache"].source
    assert nb.MIRRORS[-1] + "cifar-10-python.tar.gz" in source


def test_cache_is_filled_from_a_good_mirror(nb, cache, archive, mirror):
    nb.fill_cache([mirror + "good/"])
    assert (cache / CACHED).read_bytes() == archive.read_bytes()
    assert [file.name for file in cache.iterdir()] == [CACHED]


def test_a_filled_cache_needs_no_mirror(nb, cache, archive, mirror):
    nb.fill_cache([mirror + "good/"])
    nb.fill_cache([NOBODY])


def test_nothing_reachable_says_what_was_tried_and_what_to_do(nb, cache):
    with pytest.raises(OSError, match="connection") as caught:
        nb.fill_cache([NOBODY, NOBODY + "other/"])
    assert NOBODY in str(caught.value) and "other" in str(caught.value)
    assert "CIFAR10_NPZ" in str(caught.value)


@pytest.fixture
def offline(nb, cache, monkeypatch, tmp_path):
    """No local copy, nothing in the cache, no mirror."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR10_NPZ", raising=False)
    monkeypatch.setattr(nb.fill_cache, "__defaults__", ([NOBODY],))


def test_digits_stand_in_under_a_banner(nb, offline, capsys, monkeypatch):
    monkeypatch.delenv("REQUIRE_CIFAR10", raising=False)
    (x_train, y_train), (x_test, y_test), is_cifar10 = nb.load_data()
    assert "THIS IS NOT CIFAR-10" in capsys.readouterr().out
    assert not is_cifar10
    for x, y in ((x_train, y_train), (x_test, y_test)):
        assert x.shape == (len(y), 32, 32, 3) and x.dtype == np.uint8
        assert y.shape == (len(x), 1) and set(y.ravel()) == set(range(10))
    assert x_train.max() == 255 and len(x_train) + len(x_test) == 1797


def test_digits_are_an_error_where_cifar10_is_required(nb, offline, monkeypatch):
    monkeypatch.setenv("REQUIRE_CIFAR10", "1")
    with pytest.raises(OSError, match="could not be downloaded"):
        nb.load_data()


def test_local_copy_comes_first(nb, offline, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_NPZ", str(save_npz(tmp_path / "here.npz")))
    (x_train, y_train), (x_test, _), is_cifar10 = nb.load_data()
    assert is_cifar10
    assert x_train.shape == (50000, 32, 32, 3) and x_test.shape == (10000, 32, 32, 3)
    assert y_train.shape == (50000, 1) and y_train[0, 0] == 3


def test_download_ends_in_kerass_own_arrays(nb, offline, real_size, mirror, monkeypatch):
    """From a mirror through the cache to load_data(): an archive of CIFAR-10's form."""
    monkeypatch.setattr(nb.fill_cache, "__defaults__", ([NOBODY, mirror + "good/"],))
    (x_train, y_train), (x_test, y_test), is_cifar10 = nb.load_data()
    assert is_cifar10
    assert x_train.shape == (50000, 32, 32, 3) and x_test.shape == (10000, 32, 32, 3)
    assert list(y_train[::10000, 0]) == [0, 1, 2, 3, 4] and y_test[0, 0] == 5
    assert (x_train[::10000, 0, 0, 0] == y_train[::10000, 0]).all()


@pytest.mark.fault
@pytest.mark.parametrize(
    "wrong", [{"count": 40000}, {"dtype": "float32"}, {"height": 28}, {"label": 10}]
)
def test_local_copy_with_other_arrays_is_refused(nb, tmp_path, wrong):
    path = save_npz(tmp_path / "wrong.npz", **wrong)
    with pytest.raises(ValueError, match=r"wrong\.npz does not hold CIFAR-10"):
        nb.load_npz(path)


class Harm:
    """Writes a file when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["missing", "cut", "pickled", "empty", "text"])
def test_local_copy_that_cannot_be_read_is_refused(nb, tmp_path, name):
    path = tmp_path / f"{name}.npz"
    if name == "cut":
        path.write_bytes(save_npz(tmp_path / "whole.npz").read_bytes()[:100_000])
    if name == "pickled":
        arrays = dict.fromkeys(("y_train", "x_test", "y_test"), np.zeros(3))
        harm = np.array([Harm(tmp_path / "harm")], dtype=object)
        np.savez(path, x_train=harm, **arrays)
    if name in ("empty", "text"):
        path.write_text("" if name == "empty" else "not an archive")
    with pytest.raises(ValueError, match=f"{path.name} is not a readable"):
        nb.load_npz(path)
    assert not (tmp_path / "harm").exists()  # no code of the file was run


def test_split_is_stratified_disjoint_and_reproducible(nb, labels):
    numbers = np.arange(300)
    train, val, y_train, y_val = nb.split_validation(numbers, labels, seed=5)
    assert sorted([*train, *val]) == list(range(300))
    assert list(np.bincount(y_train)) == [27] * 10
    assert list(np.bincount(y_val)) == [3] * 10
    assert (labels[train] == y_train).all() and (labels[val] == y_val).all()
    assert (nb.split_validation(numbers, labels, seed=5)[1] == val).all()
    assert (nb.split_validation(numbers, labels, seed=6)[1] != val).any()


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
    seen = [possible[nb.augment(images[0], (1, n)).numpy().tobytes()] for n in range(600)]
    assert len(set(seen)) == 50
    mirrored = np.array([mirror for _, _, mirror in seen])
    assert 0.4 < mirrored.mean() < 0.6
    rows = np.array([row for row, _, _ in seen])
    assert abs(np.corrcoef(rows, mirrored)[0, 1]) < 0.15  # crop and flip are independent


def test_cut_out_greys_a_square_that_may_stick_out(nb, monkeypatch):
    monkeypatch.setattr(nb, "CUTOUT", 10)
    white = np.full((28, 28, 3), 255, "uint8")
    sizes, corners = [], set()
    for number in range(300):
        grey = nb.cut_out(white, (1, number)).numpy() == 120
        assert (grey.sum() + (nb.cut_out(white, (1, number)).numpy() == 255).sum()) == 2352
        rows, columns = np.flatnonzero(grey.any((1, 2))), np.flatnonzero(grey.any((0, 2)))
        assert grey.sum() == 3 * len(rows) * len(columns)
        sizes.append((len(rows), len(columns)))
        corners.add((rows[0], columns[0]))
    assert np.max(sizes) == 10 and np.min(sizes) == 5 and (10, 10) in sizes
    assert all(set(places) == set(range(23)) for places in zip(*corners))


def test_augment_cuts_out_after_crop_and_flip(nb, images, monkeypatch):
    before = nb.augment(images[0], (1, 2)).numpy()
    monkeypatch.setattr(nb, "CUTOUT", 10)
    after = nb.augment(images[0], (1, 2)).numpy()
    changed = (after != before).any(axis=-1)
    assert 25 <= changed.sum() <= 100 and (after[changed] == 120).all()


def test_augment_repeats_itself_for_the_same_seed(nb, images):
    first, again, other = (nb.augment(images[0], (7, n)).numpy() for n in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def all_batches(batches):
    """The images and labels of all batches, in two arrays."""
    return [np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True)]


def test_training_batches_treat_each_image_by_itself(nb, images, labels):
    x, y = all_batches(nb.training_batches(images, labels, seed=3))
    assert x.shape == (256, 28, 28, 3) and x.dtype == np.uint8
    known = {view: (n, how) for n in range(300) for view, how in views(images[n]).items()}
    found = [known[image.tobytes()] for image in x]
    assert len({n for n, _ in found}) == 256  # each image once
    assert [labels[n] for n, _ in found] == list(y.argmax(axis=1))
    assert len({how for _, how in found}) > 40  # not one crop for all


def test_training_batches_are_new_each_epoch_and_the_same_for_a_seed(nb, images, labels):
    data = nb.training_batches(images, labels, seed=3)
    first, second = all_batches(data)[0], all_batches(data)[0]
    again = all_batches(nb.training_batches(images, labels, seed=3))[0]
    other = all_batches(nb.training_batches(images, labels, seed=4))[0]
    assert (first == again).all()
    assert (first != second).any() and (first != other).any()


def test_fixed_batches_keep_the_order(nb, images, labels):
    x, y = all_batches(nb.fixed_batches(nb.centre_crop(images), labels))
    assert (x == images[:, 2:30, 2:30]).all() and (y == labels).all()


def test_pipelines_run_without_the_autotuner(nb, images, labels):
    for data in (nb.fixed_batches(images), nb.training_batches(images, labels, seed=1)):
        assert data.options().autotune.enabled is False


def test_drawn_ship_is_a_small_picture(nb):
    ship = nb.draw_ship()
    assert ship.shape == (32, 32, 3) and ship.dtype == np.uint8
    assert len(np.unique(ship.reshape(-1, 3), axis=0)) >= 5
