"""How far do five networks come in the same time, on the same machine and data?

    python tests/benchmarks/time_to_accuracy.py

trains the contenders one after another, each in a process of its own and for 600 seconds, on
the same 45,000 images of CIFAR-10. It writes results.json beside this file, the table in the
README there, and .github/time_to_accuracy.png. The clock stands still while a network is tried
on 2,000 validation images for the curves. The test images are used once, after the training.
"""

import json
import time

import common
import keras
import numpy as np
from contenders import CONTENDERS, SEED

RESULTS = common.HERE / "results.json"
SECONDS = 600  # of training, for each
STYLES = ["o-", "s--", "^-.", "v:", "D-"]


def share_right(contender, images, labels):
    """Returns the accuracy of a contender's predictions."""
    return float((contender.predict(images).argmax(axis=1) == labels).mean())


class Clock(keras.callbacks.Callback):
    """Keeps time, tries the model at each mark, and ends the training.

    marks: seconds of training after which to try it. `curve` then holds the results.
    """

    def __init__(self, budget, marks=(), *tries):
        super().__init__()
        self.budget, self.marks, self.tries = budget, marks, tries

    def on_train_begin(self, logs=None):
        self.curve, self.steps = [], 0
        self.begin, self.begin_cpu = time.time(), time.process_time()

    def taken(self):
        return time.time() - self.begin, time.process_time() - self.begin_cpu

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        seconds, cpu = self.taken()
        if seconds >= self.budget:
            self.model.stop_training = True
        elif len(self.curve) < len(self.marks) and seconds >= self.marks[len(self.curve)]:
            self.curve.append((round(seconds, 1), share_right(*self.tries)))
            self.begin += self.taken()[0] - seconds
            self.begin_cpu += self.taken()[1] - cpu

    def on_train_end(self, logs=None):
        self.seconds, self.cpu = self.taken()


def steps_in(make, budget):
    """Returns how many steps of a recipe fit into the seconds, by running a few of them."""
    contender = make()
    contender.compile(1000)
    batches = contender.batches().repeat()
    contender.model.fit(batches.take(10), shuffle=False, verbose=0)  # compiles
    watch = Clock(budget / 30)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    return max(1, int(0.98 * budget * watch.steps / watch.seconds))


def run(name, budget):
    """Trains one contender for the given seconds, tests it, returns a row of the table."""
    nb = common.load()
    x_train, y_train, x_val, y_val = nb.x_train, nb.y_train, nb.x_val, nb.y_val

    def make():
        keras.utils.set_random_seed(SEED)
        return CONTENDERS[name](nb, x_train, y_train)

    scheduled = make().scheduled
    steps = steps_in(make, budget) if scheduled else None
    contender = make()
    contender.compile(steps)
    batches = contender.batches().repeat()
    marks = np.linspace(0, budget, 11)[1:-1]
    tries = contender, x_val[:2000], y_val[:2000]
    watch = Clock(np.inf if scheduled else budget, marks, *tries)
    if scheduled:
        batches = batches.take(steps)
    contender.model.fit(batches, shuffle=False, verbose=0, callbacks=[watch])
    tried = share_right(*tries)
    size = len(next(iter(batches))[0])
    return {
        "name": name,
        "accuracy": share_right(contender, nb.x_test, nb.y_test),
        "seconds": round(watch.seconds),
        "cpu": round(watch.cpu),
        "epochs": round(watch.steps * size / len(x_train), 1),
        "parameters": contender.model.count_params(),
        "work": common.multiply_adds(contender.model) / 1e6,
        "memory": common.peak_memory(),
        "curve": [*watch.curve, (round(watch.seconds, 1), tried)],
    }


def table(rows):
    """Returns the results as a table in Markdown."""
    heading = "network | test accuracy | training | parameters | multiply-adds | peak memory"
    line = (
        "{name} | **{accuracy:.1%}** | {epochs} epochs, {seconds} s, {cpu} CPU s | "
        "{parameters:,} | {work:.0f} million | {memory:.1f} GiB"
    )
    return common.markdown(heading, [line.format(**row) for row in rows])


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
    rows = []
    for name in CONTENDERS:
        rows.append(common.in_a_process(run, name, SECONDS))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    rows.sort(key=lambda row: -row["accuracy"])
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    common.write_into_readme({"networks": table(rows)})
    draw(rows, common.FIGURES / "time_to_accuracy.png")


if __name__ == "__main__":
    main()
