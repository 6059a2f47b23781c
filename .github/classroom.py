"""What people make from the notebook: copies for a class, slides, a page, new outputs.

    python .github/classroom.py student instructor data model

makes one part after another. It starts with the standard library alone. What a part needs
besides is in the environment that the README's commands set up.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "alexnet_cifar10.ipynb"
CLASS = ROOT / "class"
LESSON = CLASS / "lesson"


@contextlib.contextmanager
def whole(path):
    """Yields a path to write to. It replaces the given one when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_notebook(path=NOTEBOOK):
    """Returns a notebook as a dictionary."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_notebook(notebook, path):
    """Writes a notebook in the form that Jupyter gives it."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    with whole(path) as new:
        new.write_bytes(text.encode())


def copy(path, target):
    """Copies a file. A copy that was interrupted replaces none."""
    with whole(target) as new:
        shutil.copyfile(path, new)


def run(*command, **environment):
    """Runs a command in the notebook's folder, with these variables. Ends if it fails."""
    command = [str(word) for word in command]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | environment).returncode
    if code:
        sys.exit(f"This command failed: {' '.join(command)}")


def student():
    """class/lesson/student.ipynb, without outputs and solutions. Needs nothing else."""
    notebook = read_notebook()
    cells = notebook["cells"]
    cells = [cell for cell in cells if "solution" not in cell["metadata"].get("tags", [])]
    for cell in cells:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    notebook["cells"] = cells
    notebook["metadata"].pop("fingerprint", None)  # it is of the outputs
    write_notebook(notebook, LESSON / "student.ipynb")


def instructor():
    """class/lesson/instructor.ipynb, with everything. Needs nothing else."""
    copy(NOTEBOOK, LESSON / "instructor.ipynb")


def data():
    """class/shared/data/cifar10.npz, which both copies find. Needs the environment, and a
    network if CIFAR-10 is not on this machine yet."""
    import numpy as np

    sys.path.append(str(ROOT / "tests"))
    import notebook_cells

    nb = notebook_cells.notebook_functions(
        notebook_cells.code_cells_by_id(notebook_cells.read_notebook())
    )
    os.chdir(ROOT)  # the notebook's paths start there
    (x_train, y_train), (x_test, y_test) = nb.checked(
        nb.local_copy() or nb.tf.keras.datasets.cifar10.load_data()
    )
    names = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    with whole(CLASS / "shared" / "data" / "cifar10.npz") as new, new.open("wb") as file:
        np.savez_compressed(file, **names)


def model():
    """The trained network beside both copies, for START_TRAINED. Needs a full run of the
    notebook in this folder before."""
    network = ROOT / "alexnet_cifar10.keras"
    if not network.exists():
        sys.exit("There is no trained network yet: first run the notebook from top to bottom.")
    copy(network, LESSON / network.name)


def packages():
    """class/packages, for installing without a network on machines like this one. Needs pip
    and a network."""
    files = ["-r", "requirements.txt", "-c", ".github/constraints.txt"]
    run(sys.executable, "-m", "pip", "download", "-q", *files, "-d", CLASS / "packages")
    copy(ROOT / "requirements.txt", CLASS / "requirements.txt")


def slides():
    """page/talk.slides.html, a talk of 45 minutes. Needs the environment, bash, and npm."""
    run("bash", ".ci/slides")


def page():
    """page/index.html, the notebook to read. Needs the environment, bash, and a network."""
    run("bash", ".ci/page")


def refresh():
    """The notebook's outputs and the results in the READMEs, after a change to code or
    packages. Takes as long as the notebook. Needs the environment and CIFAR-10."""
    sys.path.append(str(ROOT / "tests"))
    import nbformat
    from notebook_cells import fingerprint

    before = NOTEBOOK.read_bytes()
    executed = ROOT / "executed.refresh.ipynb"
    config = ["--config", ".ci/execute.py", "--to", "notebook", "--execute"]
    files = ["--output", executed.name, NOTEBOOK.name]
    executed.unlink(missing_ok=True)
    run(sys.executable, "-m", "nbconvert", *config, *files, REQUIRE_CIFAR10="1")
    if NOTEBOOK.read_bytes() != before:
        sys.exit(f"The notebook was edited while it ran. The run is in {executed.name}.")
    notebook = read_notebook(executed)
    found = fingerprint(nbformat.read(executed, as_version=4))
    notebook["metadata"]["fingerprint"] = found
    write_notebook(notebook, NOTEBOOK)
    executed.unlink()
    run(sys.executable, "tests/benchmarks/seeds.py")


PARTS = [student, instructor, data, model, packages, slides, page, refresh]


def main():
    """Makes the parts that the command line names."""
    lines = [f"  {part.__name__:<11} {' '.join(part.__doc__.split())}" for part in PARTS]
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="\n".join(["parts:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = {part.__name__: part for part in PARTS}
    parser.add_argument("part", nargs="+", choices=parts, metavar="part", help="see below")
    for name in parser.parse_args().part:
        try:
            parts[name]()
        except ModuleNotFoundError as missing:
            sys.exit(
                f"{name} needs the package {missing.name}. Run this command with the Python of "
                "the environment: .venv/bin/python, on Windows .venv\\Scripts\\python."
            )
        print(f"{name}: made", flush=True)


if __name__ == "__main__":
    main()
