"""What all tests share: the notebook as a file, its functions, and small images.

The functions are taken from the notebook's own cells (those with the tag "functions"), so
nothing is tested here that is not in the notebook.
"""

import os
import resource
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest

NOTEBOOK = Path(__file__).parent.parent / "alexnet_cifar10.ipynb"
NOT_CIFAR10 = "THIS IS NOT CIFAR-10"


class DigitsForCifar10:
    """Compares no figures of CIFAR-10 after the notebook had to go on with digits.

    A plugin of its own, since hooks in this file see only the tests beside it.
    """

    def pytest_runtest_setup(self, item):
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
    config.pluginmanager.register(DigitsForCifar10())


def peak_memory():
    """The peak memory of the largest process that this one started, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def pytest_terminal_summary(terminalreporter):
    """Says how much memory the notebook took, if it was run."""
    reports = terminalreporter.stats.get("passed", [])
    if any("test_peak_memory" in report.nodeid for report in reports):
        terminalreporter.write_line(f"peak memory of the notebook: {peak_memory():.2f} GiB")


@pytest.fixture(scope="session")
def notebook():
    """The notebook as a file."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="session")
def code_cells(notebook):
    """The notebook's code cells by id."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


@pytest.fixture(scope="session")
def nb(code_cells):
    """The notebook's functions and settings, as a module of their own."""
    module = ModuleType("notebook")
    for cell in code_cells.values():
        if "functions" in cell.metadata.get("tags", []):
            exec(compile(cell.source, cell.id, "exec"), module.__dict__)
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
