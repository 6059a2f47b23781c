"""What all tests share: the notebook as a file, its functions, and small images.

The functions are taken from the notebook's own cells (those with the tag "functions"), so
nothing is tested here that is not in the notebook.
"""

import contextlib
import functools
import hashlib
import http.server
import inspect
import os
import pickle
import re
import shutil
import socket
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from notebook_cells import code_cells_by_id, notebook_functions, read_notebook

with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory() as home:
    environment.setenv("KERAS_HOME", home)  # Keras reads it once: the tests' own cache
    import keras


WATCH_DATA = f"""
exec("import sys; sys.path.append({str(Path(__file__).parent)!r}); "
    "from notebook_cells import watch_data; watch_data()", {{}})
"""


class NotebookRun:
    """Compares no figures of CIFAR-10 after the notebook had to go on with digits, and has all
    data that reach a call of Keras checked (see test_clock.py).

    A plugin of its own, since hooks in this file see only the tests beside it.
    """

    def pytest_runtest_setup(self, item):
        if getattr(item, "cell", {}).get("id") == "imports":
            item.cell.source += WATCH_DATA
        tags = getattr(item, "cell", {}).get("metadata", {}).get("tags", [])
        if "cifar10" in tags:
            before = [cell for cell in item.session.items if cell.parent is item.parent]
            outputs = [out for cell in before for out in cell.test_outputs or []]
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
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    module.class_names = names.split()
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
def drawn(nb, monkeypatch):
    """The figures that cells and functions show from now on, in a list."""
    figures = []

    def keep(figure, alt):
        figures.append(figure)
        nb.plt.close(figure)

    monkeypatch.setattr(nb, "show", keep)
    return figures


@pytest.fixture(scope="session")
def stored(code_cells):
    """A function that returns the text which a cell printed, without colors."""

    def text(cell_id):
        outputs = code_cells[cell_id].outputs
        printed = "".join(out.text for out in outputs if out.output_type == "stream")
        return re.sub(r"\x1b\[[\d;]*m", "", printed)

    return text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache; no local copy of the data, no network but this machine's."""
    shutil.rmtree(home, ignore_errors=True)
    datasets = Path(home, "datasets")
    datasets.mkdir(parents=True)
    monkeypatch.delenv("CIFAR10_NPZ", raising=False)
    monkeypatch.setenv("KERAS_HOME", home)
    monkeypatch.setenv("SHARED_KERAS_HOME", str(tmp_path / "shared"))
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "https_proxy"):  # nobody listens on this port
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    patience = socket.setdefaulttimeout
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: patience(1))
    yield datasets
    patience(None)
    shutil.rmtree(home)


@pytest.fixture
def archive(tmp_path, nb, monkeypatch):
    """An archive of CIFAR-10's form, whose checksum is now the expected one.

    Batch n has pixels and labels n; the test batch is number 5.
    """
    folder, path = tmp_path / "cifar-10-batches-py", tmp_path / "good" / "cifar-10-python.tar.gz"
    for part in (folder, path.parent):
        part.mkdir()
    for label, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        images = np.full((10000, 3072), label, "uint8")
        content = pickle.dumps({b"data": images, b"labels": [label] * 10000})
        (folder / name).write_bytes(content)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(folder, folder.name)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(nb, "SHA256", checksum)

    def expecting_this_archive(**arguments):
        return keras.utils.get_file(**arguments | {"file_hash": checksum})

    module = inspect.getmodule(keras.datasets.cifar10.load_data)
    monkeypatch.setattr(module, "get_file", expecting_this_archive)
    return path


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /silent/ and /cut/ serve what is in /good/, each in its way."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        fault = self.path.split("/")[1]
        if fault not in ("silent", "cut"):
            return super().do_GET()
        content = Path(self.translate_path(self.path.replace(fault, "good"))).read_bytes()
        if fault == "silent":
            time.sleep(3)
        with contextlib.suppress(OSError):  # the reader has had enough
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])


@pytest.fixture
def mirror(tmp_path):
    """The address of a web server on this machine that serves the folder of the test."""
    handler = functools.partial(Mirror, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
