"""Where the data comes from, and what happens when it cannot be had."""

import copy
import inspect
import os
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

CACHED = "cifar-10-batches-py-target_archive"  # Keras's name for the archive
TAR = "/cifar-10-python.tar.gz"
NOBODY = "http://127.0.0.1:9"  # nothing listens on this port


def save_npz(path, count=50000, names=("x", "y")):
    """Writes an .npz file like CIFAR-10's, of threes."""
    arrays = {}
    for part, n in (("train", count), ("test", 10000)):
        arrays[f"{names[0]}_{part}"] = np.full((n, 32, 32, 3), 3, "uint8")
        arrays[f"{names[1]}_{part}"] = np.full((n, 1), 3, "uint8")
    np.savez(path, **arrays)
    return path


def test_keras_asks_for_the_archive_that_the_notebook_fetches(nb, monkeypatch):
    """load_data() takes a file of this name from the cache if it has this checksum."""
    load_data = keras.datasets.cifar10.load_data

    def note(fname, file_hash, **others):
        raise LookupError(fname, file_hash)

    monkeypatch.setattr(inspect.getmodule(load_data), "get_file", note)
    with pytest.raises(LookupError) as asked:
        load_data()
    assert asked.value.args == (CACHED.removesuffix("_archive"), nb.SHA256)
    assert all(url.endswith(TAR) for url in nb.MIRRORS)


def test_local_copy_comes_first(nb, cache, run_cell, monkeypatch):
    monkeypatch.setattr(nb, "COPY", str(save_npz(cache / "here.npz")))
    names = run_cell("load", SMOKE_TEST=0)
    assert names["is_cifar10"]
    assert names["x_all"].shape == (50000, 32, 32, 3)
    assert names["x_test"].shape == (10000, 32, 32, 3)
    assert names["y_all"].shape == (50000,) and names["y_test"].shape == (10000,)


def test_download_ends_in_kerass_own_arrays(nb, cache, archive, mirror, monkeypatch):
    """From a mirror through the cache to load_data(): an archive of CIFAR-10's form."""
    monkeypatch.setattr(nb, "MIRRORS", [NOBODY + TAR, mirror + "good" + TAR])
    (x_train, y_train), (x_test, y_test) = nb.load_cifar10()
    assert x_train.shape == (50000, 32, 32, 3) and x_test.shape == (10000, 32, 32, 3)
    assert list(y_train[::10000, 0]) == [0, 1, 2, 3, 4] and y_test[0, 0] == 5
    assert (x_train[::10000, 0, 0, 0] == y_train[::10000, 0]).all()
    monkeypatch.setattr(nb, "MIRRORS", [])  # from now on the cache is enough
    assert (nb.load_cifar10()[0][1] == y_train).all()


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
def test_bad_mirror_is_left_for_the_next(nb, cache, archive, mirror, monkeypatch, fault):
    if fault in ("html", "flipped", "empty"):
        corrupt(archive, fault)
    urls = [f"{mirror}{fault}{TAR}", f"{mirror}good{TAR}"]
    monkeypatch.setattr(nb, "MIRRORS", urls[:1])
    with pytest.raises(Exception, match="URL fetch failure"):  # from Keras's own server
        nb.load_cifar10()
    assert not (cache / "cifar-10-batches-py-target").exists()  # nothing was unpacked
    monkeypatch.setattr(nb, "MIRRORS", urls)
    assert nb.load_cifar10()[1][1][0, 0] == 5
    assert (cache / CACHED).read_bytes() == archive.read_bytes()


@pytest.mark.fault
def test_download_that_was_killed_is_replaced(nb, cache, archive, mirror, monkeypatch):
    (cache / CACHED).write_bytes(archive.read_bytes()[:1000])
    monkeypatch.setattr(nb, "MIRRORS", [mirror + "good" + TAR])
    assert nb.load_cifar10()[1][1][0, 0] == 5


@pytest.mark.fault
def test_full_disk(nb, cache, archive, mirror, monkeypatch):
    """As if there were room for 10,000 bytes more."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(nb, "MIRRORS", [mirror + "good" + TAR])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            keras.utils.get_file(CACHED, nb.MIRRORS[0], file_hash=nb.SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(cache.iterdir())  # nothing half-written is left
    assert nb.load_cifar10()[1][1][0, 0] == 5  # once there is room again


def test_digits_stand_in_under_a_banner(nb, cache, run_cell, capsys, monkeypatch):
    monkeypatch.delenv("REQUIRE_CIFAR10", raising=False)
    monkeypatch.setattr(nb, "MIRRORS", [NOBODY + TAR])
    names = run_cell("load", SMOKE_TEST=0)
    text = capsys.readouterr().out
    assert "THIS IS NOT CIFAR-10" in text and "URL fetch failure" in text
    assert not names["is_cifar10"]
    for x, y in (("x_all", "y_all"), ("x_test", "y_test")):
        assert names[x].shape == (len(names[y]), 32, 32, 3) and names[x].dtype == np.uint8
        assert set(names[y]) == set(range(10))
    assert len(names["x_all"]) + len(names["x_test"]) == 1797
    digit = nb.datasets.load_digits().images[300]
    assert (names["x_all"][0, ::4, ::4, 0] == 15 * digit).all()


@pytest.mark.fault
def test_digits_are_an_error_where_cifar10_is_required(nb, cache, run_cell, monkeypatch):
    monkeypatch.setenv("REQUIRE_CIFAR10", "1")
    monkeypatch.setattr(nb, "MIRRORS", [NOBODY + TAR])
    with pytest.raises(OSError, match="could not be loaded"):
        run_cell("load")


class Harm:
    """Writes a file when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["missing", "cut", "pickled", "text", "count", "names"])
def test_local_copy_that_is_not_cifar10(nb, cache, run_cell, capsys, monkeypatch, fault):
    path = cache / "copy.npz"
    if fault == "cut":
        path.write_bytes(save_npz(cache / "whole.npz").read_bytes()[:100_000])
    if fault == "pickled":
        arrays = dict.fromkeys(("y_train", "x_test", "y_test"), np.zeros(3))
        np.savez(path, x_train=np.array([Harm(cache / "harm")], dtype=object), **arrays)
    if fault == "text":
        path.write_text("not an archive")
    if fault == "count":
        save_npz(path, count=40000)
    if fault == "names":
        save_npz(path, names=("images", "labels"))
    monkeypatch.setenv("CIFAR10_NPZ", str(path))
    monkeypatch.setattr(nb, "COPY", str(path))
    monkeypatch.setattr(nb, "ADVICE", f"Check {path}.")
    monkeypatch.setenv("REQUIRE_CIFAR10", "1")
    with pytest.raises(OSError, match=r"could not be loaded. Check .*copy\.npz"):
        run_cell("load")
    monkeypatch.delenv("REQUIRE_CIFAR10")
    assert not run_cell("load")["is_cifar10"]
    assert "THIS IS NOT CIFAR-10" in capsys.readouterr().out
    assert not (cache / "harm").exists()  # no code of the file was run


@pytest.mark.fault
def test_without_a_network_each_cell_runs_on_digits_and_runs_twice(notebook, tmp_path):
    """Twice in a row, as an impatient reader does; trainings and solutions only once."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    once = [cell.id for cell in cells if cell.id.startswith("solution-")]
    once += ["fit", "take-out"]
    names = [cell.id for cell in cells for _ in range(1 if cell.id in once else 2)]
    by_name = {cell.id: cell for cell in cells}
    twice = [copy.deepcopy(by_name[name]) for name in names]
    for number, cell in enumerate(twice):
        cell.id, cell.outputs = str(number), []
    offline = nbformat.v4.new_notebook(cells=twice, metadata=notebook.metadata)
    environment = {**os.environ, "SMOKE_TEST": "1", "KERAS_HOME": str(tmp_path)}
    environment["BATCH_SIZE"] = "32"
    environment |= {"http_proxy": NOBODY, "https_proxy": NOBODY}
    for name in ("CIFAR10_NPZ", "REQUIRE_CIFAR10"):
        environment.pop(name, None)
    folder = tmp_path / "a" / "b"  # with no shared folder beside it
    folder.mkdir(parents=True)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(offline, timeout=300, resources=resources).execute(env=environment)
    for name, cell in zip(names, twice, strict=True):
        if name in ("load", "answer"):
            text = "".join(out.get("text", "") for out in cell.outputs)
            assert "NOT CIFAR-10" in text, name


def test_split_is_stratified_disjoint_and_reproducible(nb, labels):
    numbers = np.arange(300)
    train, val, y_train, y_val = nb.split_validation(numbers, labels)
    assert sorted([*train, *val]) == list(range(300))
    assert list(np.bincount(y_train)) == [27] * 10
    assert list(np.bincount(y_val)) == [3] * 10
    assert (labels[train] == y_train).all() and (labels[val] == y_val).all()
    assert (nb.split_validation(numbers, labels)[1] == val).all()


def test_pictures_of_the_grid_stand_under_their_class(nb, run_cell, images, labels):
    """Each random picture is told by its bytes."""
    seen = {}

    def note(pictures, titles, columns, description):
        seen.update(pictures=pictures, titles=titles, columns=columns)

    run_cell("grid", x_all=images, y_all=labels, is_cifar10=True, show_pictures=note)
    assert seen["titles"][:10] == nb.class_names and seen["columns"] == 10
    known = {image.tobytes(): label for image, label in zip(images, labels)}
    assert [known[p.tobytes()] for p in seen["pictures"]] == 3 * list(range(10))
