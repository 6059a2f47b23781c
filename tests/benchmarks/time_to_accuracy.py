"""How far do five networks come in the same time, on the same machine and data?

    python tests/benchmarks/time_to_accuracy.py

trains the contenders one after another, each in a process of its own and for the same
seconds of training (600 unless --seconds says otherwise), on the same 45,000 images of
CIFAR-10. Prints a table, and writes results.json beside this file and
.github/time_to_accuracy.png. The clock stands still while a network is tried on 2,000
validation images for the curves; the test images are used once, after the training.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FIGURE = ROOT / ".github" / "time_to_accuracy.png"
RESULTS = HERE / "results.json"
sys.path += [str(HERE), str(ROOT / "tests")]

STYLES = ["o-", "s--", "^-.", "v:", "D-"]
HEADINGS = (
    "test accuracy",
    "training",
    "parameters",
    "multiply-adds an image",
    "peak memory",
)


def share_right(contender, images, labels):
    """Returns the accuracy of a contender's predictions."""
    return float((contender.predict(images).argmax(axis=1) == labels).mean())


def clock(contender, budget, marks, images, labels):
    """Returns a callback that keeps time, tries the model at each mark, and ends training.

    marks: seconds of training after which to try it, and which its `curve` then holds.
    """
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.curve, self.steps = [], 0
            self.begin, self.begin_cpu = time.time(), time.process_time()

        def taken(self):
            return time.time() - self.begin, time.process_time() - self.begin_cpu

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            seconds, cpu = self.taken()
            if seconds >= budget:
                self.model.stop_training = True
            elif len(self.curve) < len(marks) and seconds >= marks[len(self.curve)]:
                self.curve.append(
                    (round(seconds, 1), share_right(contender, images, labels))
                )
                self.begin += self.taken()[0] - seconds
                self.begin_cpu += self.taken()[1] - cpu

        def on_train_end(self, logs=None):
            self.seconds, self.cpu = self.taken()

    return Clock()


def steps_in(make, budget):
    """Returns how many steps of a recipe fit into the seconds, by running a few of them."""
    contender = make()
    contender.compile(1000)
    batches = contender.batches().repeat()
    contender.model.fit(
        batches.take(10), shuffle=False, verbose=0
    )  # not timed: it compiles
    watch = clock(contender, budget / 30, [], None, None)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    return max(1, int(0.98 * budget * watch.steps / watch.seconds))


def run(name, budget):
    """Trains one contender for the given seconds, tests it, returns a row of the table."""
    import keras
    import numpy as np
    from contenders import CONTENDERS, SEED, multiply_adds
    from notebook_cells import code_cells_by_id, notebook_functions, read_notebook

    nb = notebook_functions(code_cells_by_id(read_notebook()))
    (images, labels), (x_test, y_test) = nb.load_cifar10()
    x_train, x_val, y_train, y_val = nb.split_validation(images, labels.ravel())
    del images

    def make():
        keras.utils.set_random_seed(SEED)
        return CONTENDERS[name](nb, x_train, y_train)

    scheduled = make().scheduled
    steps = steps_in(make, budget) if scheduled else None
    contender = make()
    contender.compile(steps)
    batches = contender.batches().repeat()
    marks = np.linspace(0, budget, 11)[1:-1]
    tries = x_val[:2000], y_val[:2000]
    watch = clock(contender, np.inf if scheduled else budget, marks, *tries)
    if scheduled:
        batches = batches.take(steps)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    tried = share_right(contender, *tries)
    accuracy = share_right(contender, x_test, y_test.ravel())
    size = len(next(iter(batches))[0])
    return {
        "name": name,
        "accuracy": accuracy,
        "seconds": round(watch.seconds),
        "cpu": round(watch.cpu),
        "epochs": round(watch.steps * size / len(x_train), 1),
        "parameters": contender.model.count_params(),
        "work": multiply_adds(contender.model) / 1e6,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "curve": [*watch.curve, (round(watch.seconds, 1), tried)],
    }


def table(rows):
    """Returns the results as a table in Markdown."""
    lines = ["| | " + " | ".join(HEADINGS) + " |", "|---" * (len(HEADINGS) + 1) + "|"]
    for row in rows:
        lines.append(
            "| {name} | **{accuracy:.1%}** | {epochs} epochs, {seconds} s, {cpu} CPU s | "
            "{parameters:,} | {work:.0f} million | {memory:.1f} GiB |".format(**row)
        )
    return "\n".join(lines)


def draw(rows, path):
    """Draws accuracy against seconds of training."""
    import matplotlib.pyplot as plt

    plt.style.use("tableau-colorblind10")
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for row, style in zip(rows, STYLES):
        seconds, accuracies = zip(*row["curve"])
        axis.plot(seconds, [100 * a for a in accuracies], style, label=row["name"], ms=4)
    axis.set(xlabel="seconds of training", ylabel="validation accuracy (%)", ylim=(0, 100))
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="of training, for each")
    parser.add_argument("--only", nargs="+", help="names of those to run again")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    from contenders import CONTENDERS

    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    found = {row["name"]: row for row in known} if arguments.only else {}
    for name in arguments.only or CONTENDERS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[name] = pool.apply(run, (name, arguments.seconds))
        print(table([found[name]]).splitlines()[-1], flush=True)
        rows = sorted(found.values(), key=lambda row: -row["accuracy"])
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    if arguments.out == RESULTS:
        draw(rows, FIGURE)


if __name__ == "__main__":
    main()
