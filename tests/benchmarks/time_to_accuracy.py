"""How far do five networks come in the same time, on the same machine and data?

    python tests/benchmarks/time_to_accuracy.py

trains the contenders one after another, each in a process of its own and for 600 seconds, on
the same 45,000 images of CIFAR-10. It writes results.json beside this file, the table in the
README there, and .github/time_to_accuracy.png. The clock stands still while a network is tried
on 2,000 validation images for the curves. The test images are used once, after the training.
"""

import time
from functools import partial

import common
import keras
import matplotlib.pyplot as plt
import numpy as np
from contenders import CONTENDERS, SEED

RESULTS = common.HERE / "results.json"
SECONDS = 600  # of training, for each
STYLES = ["o-", "s--", "^-.", "v:", "D-"]


def now():
    """Returns seconds by the clock, and CPU seconds of this process."""
    return np.array([time.time(), time.process_time()])


class Clock(keras.callbacks.Callback):
    """Keeps time, tries the model at each mark, and ends the training.

    marks: seconds of training after which to call `attempt`. `curve` then holds what it returned.
    """

    def __init__(self, budget, marks=(), attempt=None):
        super().__init__()
        self.budget, self.marks, self.attempt = budget, marks, attempt

    def on_train_begin(self, logs=None):
        self.curve, self.steps, self.begin = [], 0, now()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        seconds, cpu = now() - self.begin
        if seconds >= self.budget:
            self.model.stop_training = True
        elif len(self.curve) < len(self.marks) and seconds >= self.marks[len(self.curve)]:
            self.curve.append((round(seconds, 1), self.attempt()))
            self.begin = now() - (seconds, cpu)

    def on_train_end(self, logs=None):
        self.taken = now() - self.begin


def steps_in(contender, budget):
    """Returns how many steps of a recipe fit into the seconds, by running a few of them."""
    contender.compile(1000)
    batches = contender.batches().repeat()
    contender.model.fit(batches.take(10), shuffle=False, verbose=0)  # compiles
    watch = Clock(budget / 30)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    return max(1, int(0.98 * budget * watch.steps / watch.taken[0]))


def run(name, budget):
    """Trains one contender for the given seconds, tests it, returns a row of the table."""
    nb = common.load()

    def make():
        keras.utils.set_random_seed(SEED)
        return CONTENDERS[name](nb)

    contender, steps, end = make(), -1, budget  # -1: without a number, until the time is over
    if contender.compile:
        steps, end = steps_in(contender, budget), np.inf
        contender = make()
        contender.compile(steps)

    def share_right(images, labels):
        return nb.metrics.accuracy_score(labels, contender.predict(images).argmax(axis=1))

    attempt = partial(share_right, nb.x_val[:2000], nb.y_val[:2000])
    watch = Clock(end, np.linspace(0, budget, 11)[1:-1], attempt)
    batches = contender.batches().repeat().take(steps)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    seconds, cpu = watch.taken
    return {
        "name": name,
        "accuracy": share_right(nb.x_test, nb.y_test),
        "seconds": round(seconds),
        "cpu": round(cpu),
        "epochs": round(watch.steps * nb.BATCH_SIZE / len(nb.x_train), 1),
        "parameters": contender.model.count_params(),
        "work": common.multiply_adds(nb, contender.model) / 1e6,
        "memory": common.peak_memory(),
        "curve": [*watch.curve, (round(seconds, 1), attempt())],
    }


def table(rows):
    """Returns the results as a table in Markdown."""
    heading = "network | test accuracy | training | parameters | multiply-adds | peak memory"
    line = "{name} | **{accuracy:.1%}** | {epochs} epochs, {seconds} s, {cpu} CPU s"
    line += " | {parameters:,} | {work:.0f} million | {memory:.1f} GiB"
    return common.markdown(heading, [line.format(**row) for row in rows])


def draw(rows, path):
    """Draws accuracy against seconds of training."""
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
    rows = []
    for name in CONTENDERS:
        rows.append(common.in_a_process(run, name, SECONDS))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    rows.sort(key=lambda row: -row["accuracy"])
    common.write(RESULTS, rows)
    common.write_into_readmes({"networks": table(rows)})
    draw(rows, common.FIGURES / "time_to_accuracy.png")


if __name__ == "__main__":
    main()
