"""Where the data comes from, and what happens when it cannot be had."""

import hashlib
import inspect
import socket
from pathlib import Path

import keras
import numpy as np
import pytest

NAMES = ("x_train", "y_train", "x_test", "y_test")
LABELS = np.arange(60000, dtype="uint8")[:, None] % 10


def arrays(pixel=np.uint8([125, 123, 114]), side=(32, 32), labels=LABELS, train=50000):
    """Arrays in the form of load_data()'s, with the colors of CIFAR-10 on average."""
    pixels = np.broadcast_to(pixel, (60000, *side, len(pixel)))
    return (pixels[:train], labels[:train]), (pixels[train:], labels[train:])


@pytest.fixture
def load(nb, run_cell, cache, monkeypatch):
    """A function that runs the cells "load" and "identify"; arrays() are CIFAR-10 to them."""
    monkeypatch.setattr(nb, "SHA256_LABELS", hashlib.sha256(LABELS.tobytes()).hexdigest())
    # what identify switches on cannot be switched off again
    monkeypatch.setattr(nb.tf.config.experimental, "enable_op_determinism", lambda: None)
    return lambda **settings: run_cell("identify", **run_cell("load", **settings))


@pytest.mark.parametrize("smoke_test", [0, 1])
def test_local_copy_comes_first(nb, load, run_cell, monkeypatch, smoke_test):
    """And the cell that says what was loaded says the same when it runs again."""
    train, test = arrays()
    np.savez("here.npz", **dict(zip(NAMES, (*train, *test))))
    monkeypatch.setattr(nb, "COPY", "here.npz")
    first = load(SMOKE_TEST=smoke_test)
    train, test = (500, 500) if smoke_test else (50000, 10000)
    for names in (first, run_cell("identify", **first)):
        assert names["is_cifar10"] and names["class_names"] == nb.class_names
        assert names["x_all"].shape == (train, 32, 32, 3) and names["y_all"].shape == (train,)
        assert names["x_test"].shape == (test, 32, 32, 3) and names["y_test"].shape == (test,)
        assert names["RUN_FILE"] == f"{'short_run' if smoke_test else 'alexnet'}_cifar10.keras"


@pytest.fixture
def fetched(nb):
    """A function that fetches the archive as the cell "load" does. Returns the test labels."""
    return lambda: (nb.local_copy() or keras.datasets.cifar10.load_data())[1][1].ravel()


def test_archive_is_the_one_that_keras_asks_for(nb):
    """By the checksum; the tests below find whether it is where Keras looks."""
    assert nb.SHA256 in inspect.getsource(keras.datasets.cifar10.load_data)


@pytest.mark.parametrize("home", ["writable", "broken", "a file"])
def test_archive_that_was_put_beside_the_notebook(nb, cache, archive, fetched, monkeypatch, home):
    """Also where a broken one lies in the home, or where the home cannot be written."""
    monkeypatch.setattr(nb, "MIRRORS", [])
    kept = Path("shared", "datasets", nb.NAME)
    if home == "a file":
        Path("shared").touch()
    if home == "broken":
        kept.parent.mkdir(parents=True)
        kept.write_bytes(archive.read_bytes()[:1000])
    archive.replace(archive.name)
    assert fetched()[0] == 5


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["missing", "silent", "cut", "flipped"])
def test_bad_mirror_is_left_for_the_next(nb, cache, archive, fetched, monkeypatch, capsys, fault):
    """What the next one serves is kept, whole: a new run needs no network."""
    content, silent = archive.read_bytes(), socket.create_server(("127.0.0.1", 0))
    Path("cut").write_bytes(content[:-9])
    Path("flipped").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    urls = [Path(fault).absolute().as_uri(), archive.as_uri()]
    if fault == "silent":
        urls[0] = f"http://127.0.0.1:{silent.getsockname()[1]}/"
    monkeypatch.setattr(nb, "MIRRORS", urls[:1])
    with silent, pytest.raises(Exception, match="URL fetch failure"):  # from Keras's own server
        fetched()
    assert f"No data from {urls[0]}" in capsys.readouterr().out
    assert not Path("shared", "datasets").exists()  # nothing was kept
    monkeypatch.setattr(nb, "MIRRORS", urls)
    assert fetched()[0] == 5
    (kept,) = Path("shared", "datasets").iterdir()
    assert kept.read_bytes() == content
    monkeypatch.setattr(nb, "MIRRORS", [])
    cache.joinpath(nb.NAME).unlink()
    assert fetched()[0] == 5


OTHER = {
    "labels + 256": {"labels": LABELS.astype(int) + 256},
    "labels of others": {"labels": np.arange(60000)[:, None] % 100},
    "floats to 1": {"pixel": np.float32([0, 0.3, 1])},
    "whole pixels to 1": {"pixel": np.uint8([0, 0, 1])},
    "blue first": {"pixel": np.uint8([114, 123, 125])},
    "channels first": {"side": (3, 32), "pixel": np.uint8(range(0, 256, 8))},
}


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["missing", "cut", "pickled", *OTHER])
def test_local_copy_that_is_not_cifar10(nb, load, run_cell, capsys, monkeypatch, fault):
    """Digits stand in, or it is an error where CIFAR-10 is required."""
    path, ((x, y), test) = Path("copy.npz"), arrays()
    if fault == "pickled":  # which could run any code
        x = np.array([print], dtype=object)
    if fault in ("pickled", "cut"):
        np.savez(path, **dict(zip(NAMES, (x, y, *test))))
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:100_000])
    if fault in OTHER:
        monkeypatch.setattr(nb, "local_copy", lambda: arrays(**OTHER[fault]))
    monkeypatch.setenv("CIFAR10_NPZ", str(path))
    monkeypatch.setattr(nb, "COPY", str(path))
    monkeypatch.setenv("REQUIRE_CIFAR10", "1")
    with pytest.raises(OSError, match=r"could not be loaded\. .*copy\.npz") as error:
        run_cell("load")
    assert fault != "pickled" or "allow_pickle" in str(error.value.__cause__)
    assert fault not in OTHER or "not those of CIFAR-10" in str(error.value.__cause__)
    monkeypatch.delenv("REQUIRE_CIFAR10")
    names, source = load(SMOKE_TEST=0), nb.datasets.load_digits()
    assert "THIS IS NOT CIFAR-10" in capsys.readouterr().out
    assert not names["is_cifar10"] and names["class_names"] == list("0123456789")
    assert names["RUN_FILE"] == "alexnet_digits.keras"  # no network of CIFAR-10 is overwritten
    assert names["x_all"].shape == (1497, 32, 32, 3) and names["x_test"].shape == (300, 32, 32, 3)
    assert (names["x_all"][0, ::4, ::4, 0] == 15 * source.images[300]).all()
    assert ([*names["y_test"], *names["y_all"]] == source.target).all()


def test_images_of_the_grid_stand_under_their_class(run_cell, drawn, nb, images, labels):
    """Each random image is told by its bytes; three of them are in each row."""
    run_cell("grid", x_all=images, y_all=labels)
    known = {image.tobytes(): label for image, label in zip(images, labels)}
    assert [axis.get_title() for axis in drawn[0].axes] == nb.class_names
    for label, axis in enumerate(drawn[0].axes):
        three = np.hsplit(np.asarray(axis.images[0].get_array()), 3)
        assert {known[part.tobytes()] for part in three} == {label}
