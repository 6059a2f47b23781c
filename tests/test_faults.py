"""What goes wrong, and what the reader sees then."""

import copy
import os

import nbformat
from conftest import NOT_CIFAR10
from nbclient import NotebookClient

NO_NETWORK = "http://127.0.0.1:9"  # a proxy that nobody runs: every download fails at once


def test_without_a_network_each_cell_runs_on_digits_and_runs_twice(notebook, tmp_path):
    """Each cell is run twice in a row, as an impatient reader does."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    twice = [copy.deepcopy(cell) for cell in cells for _ in range(2)]
    for number, cell in enumerate(twice):
        cell.id, cell.outputs = str(number), []
    offline = nbformat.v4.new_notebook(cells=twice, metadata=notebook.metadata)
    environment = {**os.environ, "SMOKE_TEST": "1", "KERAS_HOME": str(tmp_path)}
    environment |= {"http_proxy": NO_NETWORK, "https_proxy": NO_NETWORK}
    for name in ("CIFAR10_NPZ", "REQUIRE_CIFAR10"):
        environment.pop(name, None)
    folder = tmp_path / "a" / "b"  # with no shared folder beside it
    folder.mkdir(parents=True)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(offline, timeout=300, resources=resources).execute(env=environment)
    source = [cell.source for cell in twice]
    for first_line in ("(x_all, y_all)", "centre = model.predict"):
        number = next(n for n, text in enumerate(source) if text.startswith(first_line))
        printed = "".join(out.get("text", "") for out in twice[number].outputs)
        assert NOT_CIFAR10 in printed
