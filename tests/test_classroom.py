"""What .github/classroom.py makes, by the command that people give, of a small notebook."""

import os
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_cells import NOTEBOOK, fingerprint

DATA = """
import numpy as np

def checked(loaded):
    print("checked")
    return loaded

def local_copy():
    train, test = (np.full((n, 2, 2, 3), n, "uint8") for n in (5, 3))
    return (train, np.arange(5)), (test, np.arange(3) + 7)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the command, and what it needs besides the notebook."""
    files = ".github/classroom.py requirements.txt .ci/execute.py tests/notebook_cells.py"
    for name in [*files.split(), "tests/benchmarks/seeds.py"]:
        path = tmp_path / "a folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(NOTEBOOK.parent / name, path)
    path.write_text("open('seeds ran', 'w').close()", encoding="utf-8")
    return tmp_path / "a folder"


def write(folder, *sources):
    """Writes a notebook of cells that have an old output, and returns its path."""
    old = new_output("stream", name="stdout", text="old ä\n")
    cells = [new_code_cell(source, outputs=[old], execution_count=1) for source in sources]
    cells[0].metadata.tags = ["functions"]
    notebook = new_notebook(cells=cells, metadata={"fingerprint": "old"})
    (folder / NOTEBOOK.name).write_bytes(nbformat.writes(notebook).encode())
    return folder / NOTEBOOK.name


def make(folder, *parts, options=()):
    """Runs the command, with nothing but an ASCII locale. Returns the process."""
    command = [sys.executable, *options, folder / ".github" / "classroom.py", *parts]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    streams = {"capture_output": True, "encoding": "utf-8"}
    return subprocess.run(command, cwd=folder.parent, env=environment, **streams)


def files(folder):
    """All files but those of Python."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(folder).as_posix() for path in paths}


def test_students_copy_has_neither_outputs_nor_solutions(folder, notebook):
    """Of the notebook as it is, by Python alone. The instructor's copy has all."""
    shutil.copy(NOTEBOOK, folder)
    done = make(folder, "student", "instructor", options=["-I", "-S"])
    assert done.returncode == 0, done.stderr
    student = nbformat.read(folder / "class/lesson/student.ipynb", as_version=4)
    nbformat.validate(student)
    left = [cell for cell in notebook.cells if not cell.id.startswith("solution-")]
    solutions = [cell for cell in notebook.cells if cell.id.startswith("solution-")]
    assert solutions and all(cell.metadata.jupyter.source_hidden for cell in solutions)
    parts = [[(c.id, c.source, c.metadata) for c in cells] for cells in (student.cells, left)]
    assert parts[0] == parts[1] and "fingerprint" not in student.metadata
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in student.cells)
    for name in (NOTEBOOK.name, "class/lesson/instructor.ipynb"):
        assert (folder / name).read_bytes() == NOTEBOOK.read_bytes()


def test_data_hold_each_array_under_its_name_and_stay_if_others_are_refused(folder):
    write(folder, DATA)
    assert make(folder, "data").stdout.startswith("checked\n")
    made = folder / "class/shared/data/cifar10.npz"
    with np.load(made) as file:
        arrays = {name: file[name] for name in file.files}
    assert list(arrays) == ["x_train", "y_train", "x_test", "y_test"]
    for name, count in (("x_train", 5), ("x_test", 3)):
        assert arrays[name].shape == (count, 2, 2, 3) and (arrays[name] == count).all()
    assert arrays["y_train"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["y_test"].tolist() == [7, 8, 9]
    before, good = files(folder), made.read_bytes()
    write(folder, DATA.replace("return loaded", "raise ValueError"))
    assert make(folder, "data").returncode
    assert made.read_bytes() == good and files(folder) == before


def test_model_is_the_trained_network_or_a_sentence(folder):
    before = files(folder)
    done = make(folder, "model")
    assert done.returncode == 1 and "run the notebook" in done.stderr
    assert "Traceback" not in done.stderr and files(folder) == before
    (folder / "alexnet_cifar10.keras").write_bytes(b"trained")
    assert make(folder, "model").returncode == 0
    assert (folder / "class/lesson/alexnet_cifar10.keras").read_bytes() == b"trained"


def test_packages_are_those_of_the_requirements_and_the_constraints(folder):
    """A stand-in for pip prints what it is told."""
    (folder / "pip.py").write_text("import sys; print(*sys.argv)", encoding="utf-8")
    told = make(folder, "packages").stdout
    assert " -r requirements.txt -c .github/constraints.txt " in told


def test_refresh_stores_new_outputs_their_fingerprint_and_the_results(folder):
    """The requirement of CIFAR-10 reaches the notebook."""
    path = write(folder, "import os", "print('hello ä', os.environ['REQUIRE_CIFAR10'])")
    before = files(folder)
    done = make(folder, "refresh")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[1].outputs[0].text == "hello ä 1\n"
    assert notebook.metadata.fingerprint == fingerprint(notebook)
    assert path.read_bytes() == (nbformat.writes(notebook) + "\n").encode()
    assert files(folder) - before == {"seeds ran"}


def test_refresh_that_fails_leaves_the_notebook_as_it_was(folder):
    path = write(folder, "print('new')", "1 / 0")
    before, made = path.read_bytes(), files(folder)
    assert make(folder, "refresh").returncode == 1
    assert path.read_bytes() == before and files(folder) == made
