"""What does a change of network or recipe bring? Trains in pairs, on the notebook's cells.

    python tests/benchmarks/search.py --pflop 0.14 --seeds 1 2 -- "dropout 0.3" "cosine"

trains the notebook's network as it is and with each of the changes named (all of CHANGES
where none is), for the same arithmetic and with the same seeds, and prints the differences
in accuracy on the 5,000 validation images with their standard errors. Each training is kept
in search.json beside this file, and none is done twice: the command can be stopped and goes
on where it was. The test images take no part.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "search.json"
AS_IT_IS = "the notebook as it is"
sys.path += [str(HERE), str(HERE.parent)]


def settings(**values):
    """Returns a change of the notebook's settings."""
    return lambda nb: vars(nb).update(values)


def widths(*kernels):
    """Returns a change of the numbers of kernels of the five convolutions."""

    def change(nb):
        build_block, numbers = nb.convolution, dict(zip(("conv1", "conv2"), kernels))
        numbers |= dict(zip(("conv3", "conv4", "conv5"), kernels[2:]))

        def block(name, kernels, pool=None):
            return build_block(name, numbers[name], pool)

        nb.convolution = block

    return change


def identity_kernels(nb):
    """Kernels that start by passing their inputs on, as far as there are so many."""
    from contenders import Dirac

    build_block = nb.convolution

    def block(name, kernels, pool=None):
        first, *rest = build_block(name, kernels, pool)
        if name != "conv1":
            config = first.get_config() | {"kernel_initializer": Dirac()}
            first = nb.layers.Conv2D.from_config(config)
        return [first, *rest]

    nb.convolution = block


def cosine(nb):
    """Keras's own schedule: linear up for a fifth of the steps, then half a cosine down."""

    def schedule(peak, steps):
        up = max(1, steps // 5)
        options = {"warmup_target": peak, "warmup_steps": up}
        return nb.keras.optimizers.schedules.CosineDecay(0.0, steps - up, **options)

    nb.Triangle = schedule


def averaged_weights(nb):
    """Keras's moving average of the weights, taken over at the end of each epoch."""
    sgd = nb.keras.optimizers.SGD

    def with_average(*arguments, **options):
        average = {"use_ema": True, "ema_momentum": 0.99}
        return sgd(*arguments, **options, **average)

    def compile_model(model, peak, steps):
        nb.keras.optimizers.SGD = with_average
        try:
            plain(model, peak, steps)
        finally:
            nb.keras.optimizers.SGD = sgd

    plain, nb.compile_model = nb.compile_model, compile_model


CHANGES = {
    AS_IT_IS: settings(),
    "peak rate 0.2": settings(PEAK_RATE=0.2),
    "peak rate 0.8": settings(PEAK_RATE=0.8),
    "batches of 128, peak rate 0.2": settings(BATCH_SIZE=128, PEAK_RATE=0.2),
    "dropout 0.3": settings(DROPOUT=0.3),
    "weight decay 0.0025": settings(WEIGHT_DECAY=0.0025),
    "weight decay 0.01": settings(WEIGHT_DECAY=0.01),
    "kernels 64-192-192-128-128": widths(64, 192, 192, 128, 128),
    "identity kernels": identity_kernels,
    "cosine": cosine,
    "averaged weights": averaged_weights,
}


def train(change, seed, pflop):
    """Trains once. Returns a row for search.json: accuracies in percent, and steps."""
    import keras
    from contenders import multiply_adds, variance
    from notebook_cells import code_cells_by_id, notebook_functions, read_notebook

    nb = notebook_functions(code_cells_by_id(read_notebook()))
    (images, labels), _ = nb.load_cifar10()
    x, x_val, y, y_val = nb.split_validation(images, labels.ravel())
    del images
    CHANGES[change](nb)
    spread = {"mean": x.mean((0, 1, 2)), "variance": variance(x)}
    pixels = nb.layers.Normalization(name="pixels", **spread)
    keras.utils.set_random_seed(seed)
    model = nb.build_alexnet(pixels)
    steps = round(pflop * 1e15 / (6 * multiply_adds(model) * nb.BATCH_SIZE))
    nb.compile_model(model, nb.PEAK_RATE, steps)
    data = nb.training_batches(x, y, seed).repeat().take(steps)
    model.fit(data, shuffle=False, verbose=0)
    answers = [
        model.predict(view, batch_size=250, verbose=0) for view in nb.ten_crops(x_val)
    ]
    right = [answers[4].argmax(axis=1) == y_val, sum(answers).argmax(axis=1) == y_val]
    centre, ten = (round(100 * float(share.mean()), 2) for share in right)
    names = {"change": change, "seed": seed, "pflop": pflop}
    return names | {"steps": steps, "centre": centre, "ten": ten}


def table(rows):
    """Returns the mean differences over seeds, with standard errors, as Markdown."""
    lines = ["| change | PFLOP | seeds | centre crop | ten crops |", "|---" * 5 + "|"]
    for change, pflop in dict.fromkeys((row["change"], row["pflop"]) for row in rows):
        cells = []
        for key in ("centre", "ten"):
            of = {
                name: {
                    row["seed"]: row[key]
                    for row in rows
                    if (row["change"], row["pflop"]) == (name, pflop)
                }
                for name in (AS_IT_IS, change)
            }
            seeds = sorted(of[AS_IT_IS].keys() & of[change].keys())
            gains = [of[change][seed] - of[AS_IT_IS][seed] for seed in seeds]
            if change == AS_IT_IS and seeds:
                cells.append(f"{statistics.mean(of[change].values()):.2f}%")
            elif len(gains) > 1:
                error = statistics.stdev(gains) / len(gains) ** 0.5
                cells.append(f"{statistics.mean(gains):+.2f} ± {error:.2f}")
            else:
                cells.append(f"{gains[0]:+.2f}" if gains else "")
        lines.append(f"| {change} | {pflop} | {len(seeds)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pflop", type=float, default=0.14, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("changes", nargs="*", help="names of changes; all, if none")
    arguments = parser.parse_args()
    unknown = set(arguments.changes) - set(CHANGES)
    if unknown:
        parser.error(f"no change of this name: {unknown}. There are: {list(CHANGES)}")
    out = arguments.out.resolve()
    os.chdir(HERE.parent.parent)
    rows = json.loads(out.read_text()) if out.exists() else []
    for seed in arguments.seeds:
        for change in dict.fromkeys([AS_IT_IS, *(arguments.changes or CHANGES)]):
            task = (change, seed, arguments.pflop)
            if task in [(row["change"], row["seed"], row["pflop"]) for row in rows]:
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append(pool.apply(train, task))
            print(rows[-1], flush=True)
            out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
