"""The path of the notebook with one epoch on CIFAR-10, and what memory a run takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from notebook_cells import NOTEBOOK, code_cells_by_id, read_notebook

# percent of the test images, lowest and highest, from three seeds
ONE_EPOCH = {"center": (70, 79), "ten": (71, 81)}
GIB = (0.3, 2)  # students have laptops with 8 GiB and a browser open


# A process of its own, so that of all its children the largest is the notebook's kernel.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak / (2**30 if sys.platform == "darwin" else 2**20))
"""


def executed(folder):
    """Runs the path for one epoch. Returns it, what it said, and its peak in GiB."""
    path = read_notebook()
    deeper = [cell.source.startswith("## A. ") for cell in path.cells].index(True)
    path.cells = path.cells[:deeper]
    nbformat.write(path, folder / NOTEBOOK.name)
    environment = os.environ | {"EPOCHS": "1", "REQUIRE_CIFAR10": "1", "SMOKE_TEST": "0"}
    environment.pop("MPLBACKEND", None)  # the tests' own; a reader has Jupyter's
    copy = NOTEBOOK.parent.parent / "shared" / "data" / "cifar10.npz"
    if copy.exists():
        environment.setdefault("CIFAR10_NPZ", str(copy))
    jupyter = Path(sys.executable).with_name("jupyter")
    settings = NOTEBOOK.parent / ".ci" / "execute.py"
    command = [sys.executable, "-c", MEASURE, jupyter, "nbconvert", "--config", settings]
    command += [*"--to notebook --execute --output executed.ipynb".split(), NOTEBOOK.name]
    options = {"cwd": folder, "env": environment, "capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(command, **options, timeout=1700)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(folder / "executed.ipynb", as_version=4)
    return notebook, done.stderr, float(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_epoch_on_cifar10(tmp_path, capsys):
    pytest.importorskip("resource")
    notebook, console, peak = executed(tmp_path)
    cells = code_cells_by_id(notebook)
    for number, cell in enumerate(cells.values(), 1):
        assert cell.execution_count == number
        assert not [out for out in cell.outputs if out.output_type == "error"], cell.id
    printed = {
        name: "".join(out.get("text", "") for out in cells[name].outputs)
        for name in ("fit", "evaluate")
    }
    found = dict(re.findall(r"test accuracy, (\w+) crops?: ([\d.]+)%", printed["evaluate"]))
    with capsys.disabled():
        print(f"\none epoch: {found}, peak memory {peak:.2f} GiB")
    for crops, (low, high) in ONE_EPOCH.items():
        assert low <= float(found[crops]) <= high, crops
    assert GIB[0] < peak <= GIB[1]
    # a line an epoch, stored and said, and no log of TensorFlow
    assert printed["fit"].count("val_loss") == console.count("val_loss") == 1
    assert "\r" not in printed["fit"] and "0000 00:00" not in console
    assert re.search(r"^CIFAR-10.*epochs: 1;.*executed\.ipynb$", console, re.MULTILINE)
