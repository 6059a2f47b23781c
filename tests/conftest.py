"""What all tests share: the notebook as a file, its own functions, and small images."""

import hashlib
import inspect
import io
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_cells import NOTEBOOK, code_cells_by_id, notebook_functions, read_notebook

with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as home:
    environment.setenv("KERAS_HOME", home)  # Keras reads it once: the tests' own cache
    import keras


class NotebookRun:
    """A plugin of its own, since hooks in this file see only the tests beside it."""

    def pytest_runtest_setup(self, item):
        """Compares no output of CIFAR-10 after digits."""
        cell = getattr(item, "cell", {})
        if "cifar10" in cell.get("metadata", {}).get("tags", []):
            before = [other for other in item.session.items if other.parent is item.parent]
            outputs = [out for other in before for out in other.test_outputs or []]
            if any("THIS IS NOT CIFAR-10" in out.get("text", "") for out in outputs):
                item.options["check"] = False


def pytest_configure(config):
    """Runs the notebook in its short form, unless all of its outputs are to be compared."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    if config.option.nbval_lax:
        os.environ["SMOKE_TEST"] = "1"
    config.pluginmanager.register(NotebookRun(), "notebook-run")


@pytest.fixture(scope="session")
def notebook():
    """The notebook as a file."""
    return read_notebook()


@pytest.fixture(scope="session")
def code_cells(notebook):
    """The notebook's code cells by id."""
    return code_cells_by_id(notebook)


@pytest.fixture(scope="session")
def nb(code_cells):
    """The notebook's functions and settings, as a module of their own."""
    module = notebook_functions(code_cells)
    module.class_names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    return module


@pytest.fixture
def run_cell(code_cells, nb):
    """A function that runs a cell among the notebook's functions and returns all names."""

    def run(cell, **names):
        everything = {**vars(nb), **names}
        exec(code_cells[cell].source, everything)
        return everything

    return run


@pytest.fixture
def images():
    """300 random images, (300, 32, 32, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype="uint8")


@pytest.fixture
def labels():
    """300 labels, 30 of each class."""
    return np.repeat(np.arange(10), 30).astype("uint8")


@pytest.fixture
def pixels(nb, images, monkeypatch):
    """The network's first layer will be fitted to the random images."""
    monkeypatch.setattr(nb, "pixel_mean", images.mean((0, 1, 2)), raising=False)
    monkeypatch.setattr(nb, "pixel_std", images.std((0, 1, 2)), raising=False)


@pytest.fixture
def small_model(nb, pixels):
    """The notebook's network, untrained."""
    nb.keras.utils.set_random_seed(1)
    return nb.build_alexnet()


@pytest.fixture
def run_file(nb, tmp_path, monkeypatch):
    """The file of a training run, the only one in its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nb, "RUN_FILE", "run.keras", raising=False)
    monkeypatch.setattr(nb, "is_cifar10", True, raising=False)
    return tmp_path / "run.keras"


@pytest.fixture
def session(nb, run_cell, pixels, images, labels, run_file, monkeypatch):
    """A function that runs the cell "fit" on the small images and returns all names."""

    def run(**settings):
        defaults = {"EPOCHS": 2, "PEAK_RATE": 0.01, "START_TRAINED": 0}
        for name, value in (defaults | settings).items():
            monkeypatch.setattr(nb, name, value)
        data = {"training_data": nb.make_batches(images, labels, seed=1)}
        data["validation_data"] = nb.make_batches(nb.center_crop(images), labels)
        return run_cell("fit", strategy=nb.tf.distribute.get_strategy(), **data)

    return run


@pytest.fixture
def drawn(nb, monkeypatch):
    """The figures that cells and functions show from now on, in a list."""
    figures = []
    monkeypatch.setattr(nb, "show", lambda figure, alt: figures.append(figure))
    yield figures
    nb.plt.close("all")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache; no local copy of the data, and no network."""
    shutil.rmtree(home, ignore_errors=True)
    datasets = Path(home, "datasets")
    datasets.mkdir(parents=True)
    monkeypatch.delenv("CIFAR10_NPZ", raising=False)
    monkeypatch.setenv("KERAS_HOME", home)
    monkeypatch.setenv("SHARED_KERAS_HOME", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens on this port
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    patience = socket.setdefaulttimeout
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: patience(1))
    yield datasets
    patience(None)
    shutil.rmtree(home)


@pytest.fixture
def archive(tmp_path, nb, monkeypatch):
    """An archive like CIFAR-10's, now the expected one: batch n has pixels and labels n."""
    path = tmp_path / "good" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for label, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
            images = np.full((10000, 3072), label, "uint8")
            content = pickle.dumps({b"data": images, b"labels": [label] * 10000})
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(nb, "SHA256", checksum)
    module = inspect.getmodule(keras.datasets.cifar10.load_data)

    def expecting_this(**options):
        return keras.utils.get_file(**options | {"file_hash": checksum})

    monkeypatch.setattr(module, "get_file", expecting_this)
    return path


@pytest.fixture
def execute(tmp_path):
    """A function that runs a notebook by the README's command. Returns the process."""
    command = [sys.executable, "-m", "nbconvert", "--config", NOTEBOOK.parent / ".ci/execute.py"]
    command += [*"--to notebook --execute --output executed.ipynb".split(), NOTEBOOK.name]

    def run(notebook, **settings):
        nbformat.write(notebook, tmp_path / NOTEBOOK.name)
        options = {"cwd": tmp_path, "env": os.environ | settings, "encoding": "utf-8"}
        return subprocess.run(command, capture_output=True, **options)

    return run
