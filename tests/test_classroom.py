"""What .github/classroom.py makes, each part by the command that people give.

The command runs in a copy of the folder whose notebook has four cells and needs no TensorFlow.
"""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_cells import NOTEBOOK, fingerprint

ROOT = NOTEBOOK.parent
DATA = """
import numpy as np

def checked(loaded):
    print("checked")
    return loaded

def local_copy():
    train, test = (np.full((n, 2, 2, 3), n, "uint8") for n in (5, 3))
    return (train, np.arange(5)), (test, np.arange(3) + 7)
"""


class Copy:
    """A folder with the command and a small notebook; runs the command."""

    def __init__(self, folder):
        self.folder, self.notebook = folder, folder / NOTEBOOK.name
        for name in (".github/classroom.py", ".ci/execute.py", "tests/notebook_cells.py"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        for name in ("requirements.txt", ".github/constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        seeds = folder / "tests" / "benchmarks" / "seeds.py"
        seeds.parent.mkdir()
        seeds.write_text("open('seeds ran', 'w').close()\n", encoding="utf-8")

    def write(self, *sources):
        """Writes the notebook, of cells that have an old output and an old fingerprint."""
        old = new_output("stream", name="stdout", text="old ä\n")
        cells = [new_code_cell(source, outputs=[old], execution_count=1) for source in sources]
        cells[0].metadata.tags = ["functions"]
        cells.append(new_code_cell("1 / 0", metadata={"tags": ["solution"]}, outputs=[old]))
        cells.insert(0, new_markdown_cell("# Wörter"))
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        notebook = new_notebook(cells=cells, metadata=spec | {"fingerprint": "old"})
        self.notebook.write_bytes(nbformat.writes(notebook).encode())

    def make(self, *parts, **environment):
        """Runs the command, with nothing but an ASCII locale. Returns the process."""
        command = [sys.executable, self.folder / ".github" / "classroom.py", *parts]
        environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"} | environment
        options = {"capture_output": True, "encoding": "utf-8", "env": environment}
        return subprocess.run(command, cwd=self.folder.parent, **options)

    def made(self, *parts, **environment):
        """Runs the command, which must succeed. Returns what it printed."""
        done = self.make(*parts, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, path):
        return nbformat.read(self.folder / path, as_version=4)

    def files(self):
        """All files but those of Python."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in paths if path.suffix != ".pyc"}


@pytest.fixture
def copy(tmp_path):
    copy = Copy(tmp_path / "a folder")
    copy.write(DATA, "print('hello ä')")
    return copy


def test_help_names_each_part_and_what_it_needs_without_any_package(copy):
    command = [sys.executable, "-I", "-S", copy.folder / ".github" / "classroom.py", "--help"]
    text = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    for part in ("student", "instructor", "data", "model", "packages", "slides", "page", "refresh"):
        (line,) = (line for line in text.splitlines() if line.startswith(f"  {part} "))
        assert "Needs " in line
    assert copy.make().returncode == copy.make("teacher").returncode == 2


def test_students_copy_has_neither_outputs_nor_solutions(tmp_path, notebook):
    """Of the notebook as it is, and all else stays as it is."""
    copy = Copy(tmp_path)
    shutil.copy(NOTEBOOK, copy.notebook)
    copy.made("student")
    student = copy.read("class/lesson/student.ipynb")
    nbformat.validate(student)
    left = [cell for cell in notebook.cells if not cell.id.startswith("solution-")]
    assert len(notebook.cells) - len(left) >= 5
    parts = [[(c.id, c.source, c.metadata) for c in cells] for cells in (student.cells, left)]
    assert parts[0] == parts[1]
    for cell in student.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert "fingerprint" not in student.metadata
    assert copy.read(NOTEBOOK.name) == notebook


def test_instructors_copy_is_the_notebook(copy):
    copy.made("instructor")
    made = copy.folder / "class" / "lesson" / "instructor.ipynb"
    assert made.read_bytes() == copy.notebook.read_bytes()


def test_data_hold_each_array_under_its_name(copy):
    """Training and test images, pixels and labels: all four differ here."""
    assert copy.made("data").startswith("checked\n")
    with np.load(copy.folder / "class" / "shared" / "data" / "cifar10.npz") as file:
        arrays = {name: file[name] for name in file.files}
    assert list(arrays) == ["x_train", "y_train", "x_test", "y_test"]
    assert arrays["x_train"].shape == (5, 2, 2, 3) and (arrays["x_train"] == 5).all()
    assert arrays["x_test"].shape == (3, 2, 2, 3) and (arrays["x_test"] == 3).all()
    assert arrays["y_train"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["y_test"].tolist() == [7, 8, 9]


def test_data_that_are_refused_replace_none(copy):
    copy.made("data")
    before, made = copy.files(), copy.folder / "class" / "shared" / "data" / "cifar10.npz"
    good = made.read_bytes()
    copy.write(DATA.replace("return loaded", "raise ValueError"))
    assert copy.make("data").returncode
    assert made.read_bytes() == good and copy.files() == before


def test_model_is_the_trained_network_or_a_sentence(copy):
    before = copy.files()
    done = copy.make("model", "instructor")
    assert done.returncode == 1 and "run the notebook" in done.stderr
    assert "Traceback" not in done.stderr and copy.files() == before
    (copy.folder / "alexnet_cifar10.keras").write_bytes(b"trained")
    copy.made("model")
    made = copy.folder / "class" / "lesson" / "alexnet_cifar10.keras"
    assert made.read_bytes() == b"trained"


def test_packages_are_those_of_the_requirements_and_the_constraints(copy, tmp_path):
    """A stand-in for pip notes what it is told, and what the files say that it is given."""
    (tmp_path / "pip.py").write_text(
        "import json, pathlib, sys\n"
        "files = [word for word in sys.argv if word.endswith('.txt')]\n"
        "texts = {name: pathlib.Path(name).read_text(encoding='utf-8') for name in files}\n"
        "pathlib.Path('told').write_text(json.dumps([sys.argv[1:], texts]))\n",
        encoding="utf-8",
    )
    copy.made("packages", PYTHONPATH=str(tmp_path))
    words, texts = json.loads((copy.folder / "told").read_text(encoding="utf-8"))
    assert words[0] == "download" and words[-2:] == ["-d", str(copy.folder / "class" / "packages")]
    assert words[words.index("-r") + 1] == "requirements.txt"
    assert words[words.index("-c") + 1] == ".github/constraints.txt"
    assert all("tensorflow==" in text for text in texts.values())
    # pip reads this one where there are no constraints beside it
    kept = (copy.folder / "class" / "requirements.txt").read_text(encoding="utf-8")
    assert kept == texts["requirements.txt"] and "\n-c" not in kept


@pytest.mark.parametrize("part", ["slides", "page"])
@pytest.mark.skipif(sys.platform == "win32", reason="they are made by bash")
def test_slides_and_page_are_made_by_their_own_command(copy, part):
    """Stand-ins note who was called; test_browser.py looks at what the real ones make."""
    for name in ("slides", "page"):
        file = copy.folder / ".ci" / name
        file.write_text(f"touch {name}-was-made\n", encoding="utf-8")
    before = copy.files()
    copy.made(part)
    assert copy.files() - before == {f"{part}-was-made"}


def test_refresh_stores_new_outputs_their_fingerprint_and_the_results(copy):
    """The requirement of CIFAR-10 reaches the notebook."""
    copy.write("import os", "print('hello ä', os.environ['REQUIRE_CIFAR10'])", "raise_nothing = 0")
    text = copy.notebook.read_text(encoding="utf-8").replace("1 / 0", "1 / 1")
    copy.notebook.write_bytes(text.encode())
    before = copy.files()
    copy.made("refresh")
    notebook = copy.read(NOTEBOOK.name)
    assert notebook.cells[2].outputs[0].text == "hello ä 1\n"
    assert notebook.metadata.fingerprint == fingerprint(notebook)
    assert copy.notebook.read_bytes() == (nbformat.writes(notebook) + "\n").encode()
    assert copy.files() - before == {"seeds ran"}


@pytest.mark.parametrize("fault", ["fails", "is edited while it runs"])
def test_refresh_leaves_the_notebook_as_it_was_if_its_run(copy, fault):
    """The last cell divides by zero, or the first one writes into the notebook."""
    edit = f"print('new', file=open({NOTEBOOK.name!r}, 'a'))"
    copy.write(edit if "edited" in fault else "print('new')")
    if "edited" in fault:
        text = copy.notebook.read_text(encoding="utf-8").replace("1 / 0", "1 / 1")
        copy.notebook.write_bytes(text.encode())
    before, files = copy.notebook.read_bytes(), copy.files()
    done = copy.make("refresh")
    assert done.returncode == 1
    edited = b"new\n" if "edited" in fault else b""
    assert copy.notebook.read_bytes() == before + edited
    left = {"executed.refresh.ipynb"} if "edited" in fault else set()
    assert copy.files() - files == left
