"""What all tests share: the notebook as a file, its functions, and small images.

The functions are taken from the notebook's own cells (those with the tag "functions"), so
nothing is tested here that is not in the notebook.
"""

import functools
import hashlib
import http.server
import io
import os
import pickle
import resource
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from notebook_cells import code_cells_by_id, notebook_functions, read_notebook

NOT_CIFAR10 = "THIS IS NOT CIFAR-10"


class NotebookRun:
    """Compares no figures of CIFAR-10 after the notebook had to go on with digits, and
    notes what memory its kernel took, before the tests start larger processes.

    A plugin of its own, since hooks in this file see only the tests beside it.
    """

    peak_memory = None  # in GiB

    def pytest_runtest_setup(self, item):
        if not hasattr(item, "cell") and self.peak_memory is None:
            self.peak_memory = peak_memory_of_children()
        tags = getattr(item, "cell", {}).get("metadata", {}).get("tags", [])
        if "cifar10" in tags:
            before = [cell for cell in item.session.items if cell.parent is item.parent]
            outputs = [out for cell in before for out in cell.test_outputs or []]
            if any(NOT_CIFAR10 in out.get("text", "") for out in outputs):
                item.options["check"] = False


def pytest_configure(config):
    """Runs the notebook in its short form, unless all of its outputs are to be compared."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    if config.option.nbval_lax:
        os.environ["SMOKE_TEST"] = "1"
    config.pluginmanager.register(NotebookRun(), "notebook-run")


def peak_memory_of_children():
    """The peak memory of the largest process that this one started, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


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
    module.class_names = module.CIFAR10_NAMES
    return module


@pytest.fixture
def images():
    """300 random images, (300, 32, 32, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype="uint8")


@pytest.fixture
def labels():
    """300 labels, 30 of each class."""
    return np.repeat(np.arange(10), 30).astype("uint8")


@pytest.fixture
def small_model(nb, images):
    """The notebook's network, adapted to the random images, untrained."""
    nb.keras.utils.set_random_seed(1)
    normalization = nb.layers.Normalization()
    normalization.adapt(images.astype("float32"))
    return nb.alexnet_eighth(normalization)


@pytest.fixture(scope="session")
def stored(code_cells):
    """A function that returns the text which the notebook stores for a cell."""

    def text(cell_id):
        outputs = code_cells[cell_id].outputs
        return "".join(out.text for out in outputs if out.output_type == "stream")

    return text


SETTINGS = ("imports", "settings", "limits", "check-setting", "use-settings")


def run_settings(code_cells, old="", new=""):
    """Runs the cells of the settings, with one line of them changed. Returns the names."""
    names = {}
    assert old in code_cells["settings"].source
    for cell in SETTINGS:
        source = code_cells[cell].source
        exec(source.replace(old, new) if cell == "settings" and old else source, names)
    return names


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty Keras cache."""
    from keras.src.backend import config

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()
    return tmp_path / "keras" / "datasets"


def pack(path, files):
    """Writes a .tar.gz archive of CIFAR-10's layout. Returns its SHA-256 checksum."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path, nb, monkeypatch):
    """A small archive in place of CIFAR-10's, whose checksum the notebook now expects."""
    path = tmp_path / "good" / "cifar-10-python.tar.gz"
    content = np.random.default_rng(0).bytes(500_000)  # cannot be compressed
    monkeypatch.setattr(nb, "ARCHIVE_SHA256", pack(path, {"test_batch": content}))
    return path


@pytest.fixture
def real_size(archive, nb, monkeypatch):
    """The checksum of an archive of CIFAR-10's size; batch n has pixels and labels n."""
    import keras
    from keras.src.datasets import cifar10

    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = {}
    for label, name in enumerate(names):
        pixels = np.full((10000, 3072), label, "uint8")
        files[name] = pickle.dumps({b"data": pixels, b"labels": [label] * 10000})
    checksum = pack(archive, files)
    monkeypatch.setattr(nb, "ARCHIVE_SHA256", checksum)

    def expecting_this_archive(**arguments):
        return keras.utils.get_file(**arguments | {"file_hash": checksum})

    monkeypatch.setattr(cifar10, "get_file", expecting_this_archive)
    return checksum


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; /drip/, /silent/ and /cut/ serve /good/, each in its way."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        fault = self.path.split("/")[1]
        if fault not in ("drip", "silent", "cut"):
            return super().do_GET()
        good = self.translate_path(self.path.replace(fault, "good"))
        content = Path(good).read_bytes()
        try:
            if fault == "silent":
                time.sleep(5)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault in ("cut", "silent"):
                self.wfile.write(content[: len(content) // (2 if fault == "cut" else 1)])
            for byte in content[:10] if fault == "drip" else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(1)
        except OSError:  # the reader has had enough
            pass


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
