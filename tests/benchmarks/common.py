"""What the benchmarks share: the notebook's cells, measurements, and tables."""

import contextlib
import json
import multiprocessing
import os
import re
import statistics
import sys
import time
import timeit
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))

# This import comes before TensorFlow: it asks for oneDNN's kernels, as the notebook does.
from notebook_cells import NOTEBOOK, code_cells_by_id, notebook_functions, read_notebook

HERE = Path(__file__).parent
ROOT = NOTEBOOK.parent
READMES = ROOT / "README.md", HERE / "README.md"
FIGURES = ROOT / ".github"
TRAINING, VALIDATION = 45_000, 5_000  # images
EDITION = 3  # of the notebook; results of different editions are never mixed
PIXELS = 62  # about the standard deviation of CIFAR-10's pixels


def functions(notebook=None):
    """Returns the notebook's functions and settings as a module.

    Its networks normalize pixels by rough figures, until load() brings those of the images.
    """
    nb = notebook_functions(code_cells_by_id(notebook or read_notebook()))
    nb.pixel_mean, nb.pixel_std = np.full(3, 2.0 * PIXELS), np.full(3, 1.0 * PIXELS)
    return nb


def load():
    """Returns the functions, with the images that the notebook's cells load and split.

    They are `x_train`, `x_val`, and `x_test`, and their labels `y_train`, `y_val`, and
    `y_test`. Without CIFAR-10 this fails, unless REQUIRE_CIFAR10 is 0.
    """
    os.environ.setdefault("REQUIRE_CIFAR10", "1")
    nb, cells = functions(), code_cells_by_id(read_notebook())
    with contextlib.chdir(ROOT):  # the notebook's paths start there
        for name in ("load", "identify", "split"):
            exec(cells[name].source, vars(nb))
    return nb


def random_batches(nb, count):
    """Returns the notebook's training batches of so many images with random pixels."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
    return nb.make_batches(images, random.integers(0, 10, count), seed=0)


def in_a_process(function, *arguments, **options):
    """Calls a function in a process of its own, so that two trainings share nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments, options)


def multiply_adds(nb, model):
    """Returns a model's multiply-adds for one image, by the notebook's describe()."""
    return sum(work for *_, work in nb.describe(model))


def product_speed(side=4096):
    """Returns the speed of a side x side matrix product, in GFLOP/s."""
    import keras

    random = np.random.default_rng(0)  # leaves Keras's own random numbers alone
    matrix = keras.ops.convert_to_tensor(random.random((side, side), "float32"))
    timer = timeit.Timer(lambda: float(keras.ops.matmul(matrix, matrix)[0, 0]))
    timer.timeit(2)
    return 2 * side**3 * 8 / timer.timeit(8) / 1e9


def peak_memory():
    """Returns the peak memory of this process in GiB."""
    if sys.platform == "win32":  # which has no module `resource`
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class Meter:
    """Measures from its creation to stop(), and a matrix product before and after."""

    def __init__(self):
        self.before = product_speed()
        self.begin, self.begin_cpu = time.time(), time.process_time()

    def stop(self):
        """Returns seconds, busy cores, and the speeds of the product in GFLOP/s."""
        seconds, cpu = time.time() - self.begin, time.process_time() - self.begin_cpu
        return {
            "seconds": round(seconds, 1),
            "busy_cores": round(cpu / seconds, 2),
            "product_before": round(self.before),
            "product_after": round(product_speed()),
        }


def share_of_product(operations, measured):
    """Returns the speed of so many operations over that of a matrix product."""
    product = (measured["product_before"] + measured["product_after"]) / 2
    return operations / measured["seconds"] / 1e9 / product


def means(rows):
    """Returns the mean accuracies of several results, at the center and with ten crops."""
    return [statistics.mean(row[key] for row in rows) for key in ("center", "ten")]


def read(path):
    """Returns the results in a file; none if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write(path, rows):
    """Writes results into a file."""
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def markdown(heading, lines):
    """Returns a table in Markdown, from lines like "a | b | c", some perhaps shorter."""
    columns = heading.count("|")
    lines = [line + (columns - line.count("|")) * " | " for line in lines]
    rule = " | ".join(["---"] * (columns + 1))
    return "\n".join(f"| {line} |" for line in [heading, rule, *lines])


def filled(text, blocks):
    """Returns a text in which what stands between the marks of each name is its block."""
    for name, block in blocks.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(marks, rf"\g<1>{block}\n\g<2>", text, flags=re.DOTALL)
    return text


def write_into_readmes(blocks):
    """Replaces the blocks of these names in both READMEs."""
    for readme in READMES:
        text = filled(readme.read_text(encoding="utf-8"), blocks)
        readme.write_text(text, encoding="utf-8")
