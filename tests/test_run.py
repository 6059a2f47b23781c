"""The whole notebook on digits, and its path with one epoch on CIFAR-10; a run's memory."""

import copy
import re
import sys

import nbformat
import pytest
from notebook_cells import NOTEBOOK, code_cells_by_id, read_notebook

ONE_EPOCH = {"center": (70, 79), "ten": (71, 81)}  # percent, from three seeds
GIB = (0.3, 1.6)  # of the path; Binder and small JupyterHubs give 2
TRAININGS = ("fit", "muon-or-sgd", "relu-and-tanh", "saturated", "take-out")


@pytest.mark.fault
def test_without_a_network_all_runs_on_digits_and_again_from_the_end(
    notebook, execute, cache, tmp_path, monkeypatch
):
    """Notebook and console say so, figures are shown despite Agg, and cells run again later."""
    monkeypatch.delenv("REQUIRE_CIFAR10", raising=False)
    again = [copy.deepcopy(c) for c in code_cells_by_id(notebook).values() if c.id not in TRAININGS]
    again = [c for c in again if not {"functions", "solution"} & {*c.metadata.get("tags", [])}]
    for cell in again:
        cell.id += "-again"
    cells = [*notebook.cells, *reversed(again)]
    both = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    done = execute(both, SMOKE_TEST="1", BATCH_SIZE="100", MPLBACKEND="Agg")
    assert done.returncode == 0, done.stderr
    last = r"^NOT CIFAR-10.*; epochs: 1; test accuracy,.*; executed notebook: executed\.ipynb$"
    assert re.search(last, done.stderr, re.MULTILINE), done.stderr
    executed = code_cells_by_id(nbformat.read(tmp_path / "executed.ipynb", as_version=4))
    for name in ("load", "identify", "evaluate"):
        assert "NOT CIFAR-10" in executed[name].outputs[0].text
    shown = [out for cell in executed.values() for out in cell.outputs if "metadata" in out]
    figures = [out.metadata["image/png"]["alt"] for out in shown if "image/png" in out.data]
    assert len(figures) > 20 and not any("<Figure" in str(out.data) for out in shown)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_epoch_on_cifar10(execute, monkeypatch, capsys):
    resource = pytest.importorskip("resource")
    path = read_notebook()
    deeper = [cell.source.startswith("## A. ") for cell in path.cells].index(True)
    path.cells = path.cells[:deeper]
    copy = NOTEBOOK.parent.parent / "shared" / "data" / "cifar10.npz"
    if copy.exists():
        monkeypatch.setenv("CIFAR10_NPZ", str(copy))
    done = execute(path, EPOCHS="1", REQUIRE_CIFAR10="1", SMOKE_TEST="0")
    assert done.returncode == 0, done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the largest is the kernel
    peak /= 2**30 if sys.platform == "darwin" else 2**20
    last = re.search(r"^CIFAR-10.*; epochs: 1; .*executed\.ipynb$", done.stderr, re.MULTILINE)[0]
    found = dict(re.findall(r"test accuracy, (\w+) crops?: ([\d.]+)%", last))
    with capsys.disabled():
        print(f"\none epoch: {found}, peak memory {peak:.2f} GiB")
    for crops, (low, high) in ONE_EPOCH.items():
        assert low <= float(found[crops]) <= high, crops
    assert GIB[0] < peak <= GIB[1]
    assert done.stderr.count("val_loss") == 1 and "0000 00:00" not in done.stderr
