"""Where the data comes from, and what happens when it cannot be had."""

import copy
import hashlib
import inspect
import os
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

TAR = "/cifar-10-python.tar.gz"
NOBODY = "http://127.0.0.1:9"  # nothing listens on this port


@pytest.fixture
def loaded(nb, monkeypatch):
    """Arrays in the form of load_data()'s, whose labels now count as those of CIFAR-10."""
    labels = hashlib.sha256(np.full(60000, 3, "uint8").tobytes())
    monkeypatch.setattr(nb, "SHA256_LABELS", labels.hexdigest())
    color = np.uint8([125, 123, 114])  # as CIFAR-10 on average
    form = np.tile(color, (60000, 32, 32, 1)), np.full((60000, 1), 3, "uint8")
    return [tuple(a[:50000] for a in form), tuple(a[50000:] for a in form)]


def save_npz(path, loaded):
    """Writes arrays to an .npz file like CIFAR-10's."""
    (x_train, y_train), (x_test, y_test) = loaded
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


@pytest.fixture
def load(nb, run_cell, monkeypatch):
    """A function that runs the cells "load" and "identify" and returns all names."""
    # what identify switches on cannot be switched off again
    monkeypatch.setattr(nb.tf.config.experimental, "enable_op_determinism", lambda: None)

    def run(**settings):
        return run_cell("identify", **run_cell("load", **{"SMOKE_TEST": 0} | settings))

    return run


@pytest.mark.parametrize("smoke_test", [0, 1])
def test_local_copy_comes_first(nb, cache, loaded, load, run_cell, monkeypatch, smoke_test):
    """And the cell that says what was loaded says the same when it runs again."""
    save_npz(cache / "here.npz", loaded)
    monkeypatch.setattr(nb, "COPY", str(cache / "here.npz"))
    first = load(SMOKE_TEST=smoke_test)
    train, test = (500, 500) if smoke_test else (50000, 10000)
    for names in (first, run_cell("identify", **first)):
        assert names["is_cifar10"] and names["class_names"] == nb.class_names
        assert names["x_all"].shape == (train, 32, 32, 3) and names["y_all"].shape == (train,)
        assert names["x_test"].shape == (test, 32, 32, 3) and names["y_test"].shape == (test,)
        assert names["RUN_FILE"] == f"{'short_run' if smoke_test else 'alexnet'}_cifar10.keras"
        assert names["EPOCHS"] == (1 if smoke_test else nb.EPOCHS)


@pytest.fixture
def fetched(nb):
    """A function that fetches the archive as the cell "load" does. Returns four arrays."""

    def run():
        (x, y), (x_test, y_test) = nb.local_copy() or keras.datasets.cifar10.load_data()
        return x, y.ravel(), x_test, y_test.ravel()

    return run


def test_archive_is_the_one_that_keras_asks_for(nb):
    """By the checksum; the next test finds whether it is where Keras looks."""
    source = inspect.getsource(keras.datasets.cifar10.load_data)
    assert nb.SHA256 in source and all(url.endswith(TAR) for url in nb.MIRRORS)


def test_download_ends_in_kerass_own_arrays(nb, cache, archive, mirror, fetched, monkeypatch):
    """From a mirror through the cache to load_data(): an archive of CIFAR-10's form."""
    monkeypatch.setattr(nb, "MIRRORS", [NOBODY + TAR, mirror + "good" + TAR])
    x_train, y_train, x_test, y_test = fetched()
    assert x_train.shape == (50000, 32, 32, 3) and x_test.shape == (10000, 32, 32, 3)
    assert list(y_train[::10000]) == [0, 1, 2, 3, 4] and y_test[0] == 5
    assert (x_train[::10000, 0, 0, 0] == y_train[::10000]).all()
    monkeypatch.setattr(nb, "MIRRORS", [])
    cache.joinpath(nb.NAME).unlink()  # as in a new run: what an earlier one kept is enough
    assert (fetched()[1] == y_train).all()


@pytest.mark.parametrize("home", ["writable", "broken", "a file"])
def test_archive_that_was_put_beside_the_notebook(nb, cache, archive, fetched, monkeypatch, home):
    """Also where a broken one lies in the home, or where the home cannot be written."""
    monkeypatch.setattr(nb, "MIRRORS", [])
    kept = Path("shared", "datasets", nb.NAME)
    if home == "a file":
        Path("shared").write_text("", encoding="utf-8")
    if home == "broken":
        kept.parent.mkdir(parents=True)
        kept.write_bytes(archive.read_bytes()[:1000])
    Path("." + TAR).write_bytes(archive.read_bytes())
    assert fetched()[3][0] == 5


def corrupt(archive, fault):
    """Puts what a bad mirror would serve beside the good archive."""
    content = archive.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    bad = archive.parent.parent / fault / archive.name
    bad.parent.mkdir()
    login = b"<html><body>Please log in to this network.</body></html>"
    bad.write_bytes({"html": login, "flipped": flipped, "empty": b""}[fault])


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["missing", "silent", "cut", "empty", "html", "flipped"])
def test_bad_mirror_is_left_for_the_next(
    nb, cache, archive, mirror, fetched, monkeypatch, capsys, fault
):
    if fault in ("html", "flipped", "empty"):
        corrupt(archive, fault)
    urls = [f"{mirror}{fault}{TAR}", f"{mirror}good{TAR}"]
    monkeypatch.setattr(nb, "MIRRORS", urls[:1])
    with pytest.raises(Exception, match="URL fetch failure"):  # from Keras's own server
        fetched()
    assert f"No data from {urls[0]}" in capsys.readouterr().out
    assert not Path("shared", "datasets").exists()  # nothing was kept
    monkeypatch.setattr(nb, "MIRRORS", urls)
    assert fetched()[3][0] == 5
    (kept,) = Path("shared", "datasets").iterdir()
    assert kept.name == nb.NAME and kept.read_bytes() == archive.read_bytes()


def test_digits_stand_in_under_a_banner(nb, cache, load, capsys, monkeypatch):
    monkeypatch.delenv("REQUIRE_CIFAR10", raising=False)
    monkeypatch.setattr(nb, "MIRRORS", [NOBODY + TAR])
    names = load()
    text = capsys.readouterr().out
    assert "THIS IS NOT CIFAR-10" in text and "URL fetch failure" in text
    assert not names["is_cifar10"] and names["class_names"] == list("0123456789")
    assert names["RUN_FILE"] == "alexnet_digits.keras"  # no network of CIFAR-10 is overwritten
    for x, y in (("x_all", "y_all"), ("x_test", "y_test")):
        assert names[x].shape == (len(names[y]), 32, 32, 3) and names[x].dtype == np.uint8
        assert set(names[y]) == set(range(10))
    assert len(names["x_all"]) + len(names["x_test"]) == 1797
    digit = nb.datasets.load_digits().images[300]
    assert (names["x_all"][0, ::4, ::4, 0] == 15 * digit).all()


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["missing", "cut", "pickled", "text", "labels"])
def test_local_copy_that_is_not_cifar10(nb, cache, loaded, run_cell, capsys, monkeypatch, fault):
    """Digits stand in, or it is an error where CIFAR-10 is required."""
    path = cache / "copy.npz"
    if fault in ("cut", "labels"):
        loaded[1][1][5] = 4 if fault == "labels" else 3
        save_npz(path, loaded)
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:100_000])
    if fault == "pickled":  # which could run any code
        save_npz(path, 2 * [(np.array([print], dtype=object), np.zeros(3))])
    if fault == "text":
        path.write_text("not an archive", encoding="utf-8")
    monkeypatch.setenv("CIFAR10_NPZ", str(path))
    monkeypatch.setattr(nb, "COPY", str(path))
    monkeypatch.setenv("REQUIRE_CIFAR10", "1")
    with pytest.raises(OSError, match=r"could not be loaded\. .*copy\.npz") as error:
        run_cell("load")
    if fault == "pickled":
        assert "allow_pickle" in str(error.value.__cause__)
    monkeypatch.delenv("REQUIRE_CIFAR10")
    assert len(run_cell("load")["x_all"]) < 50000
    assert "THIS IS NOT CIFAR-10" in capsys.readouterr().out


TRAININGS = ("fit", "muon-or-sgd", "relu-and-tanh", "saturated", "take-out")


@pytest.mark.fault
def test_without_a_network_all_runs_on_digits_and_again_from_the_end(notebook, tmp_path):
    """A reader goes back to a cell: names that later cells gave anew must not break it.

    So all cells run in their order, then once more in the opposite order, but for what
    trains, and for the cells that define functions.
    """
    cells = [copy.deepcopy(cell) for cell in notebook.cells if cell.cell_type == "code"]
    again = [
        cell
        for cell in reversed(cells)
        if cell.id not in TRAININGS
        and not {"functions", "solution"} & {*cell.metadata.get("tags", [])}
    ]
    names = [cell.id for cell in (*cells, *again)]
    both = [copy.deepcopy(cell) for cell in (*cells, *again)]
    for number, cell in enumerate(both):
        cell.id, cell.outputs = str(number), []
    offline = nbformat.v4.new_notebook(cells=both, metadata=notebook.metadata)
    environment = {**os.environ, "SMOKE_TEST": "1", "KERAS_HOME": str(tmp_path)}
    environment |= {"BATCH_SIZE": "100", "http_proxy": NOBODY, "https_proxy": NOBODY}
    for name in ("CIFAR10_NPZ", "REQUIRE_CIFAR10"):
        environment.pop(name, None)
    folder = tmp_path / "a" / "b"  # with no shared folder beside it
    folder.mkdir(parents=True)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(offline, timeout=600, resources=resources, allow_errors=True)
    client.execute(env=environment)
    for number, (name, cell) in enumerate(zip(names, both, strict=True)):
        time = "first" if number < len(cells) else "again"
        wrong = [out for out in cell.outputs if out.output_type == "error"]
        assert not wrong, f"{name}, {time}: {wrong[0].ename}: {wrong[0].evalue}"
        if name in ("load", "identify", "evaluate"):
            text = "".join(out.get("text", "") for out in cell.outputs)
            assert "NOT CIFAR-10" in text, name


def test_images_of_the_grid_stand_under_their_class(run_cell, drawn, nb, images, labels):
    """Each random image is told by its bytes; three of them are in each row."""
    run_cell("grid", x_all=images, y_all=labels)
    known = {image.tobytes(): label for image, label in zip(images, labels)}
    titles = []
    for axis in drawn[0].axes:
        row = np.asarray(axis.images[0].get_array())
        three = {known[part.tobytes()] for part in np.hsplit(row, 3)}
        titles.append(axis.get_title())
        assert three == {nb.class_names.index(titles[-1])}
    assert titles == nb.class_names
