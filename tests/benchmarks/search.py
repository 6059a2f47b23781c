"""What does a change of network or recipe bring? Trains the notebook's cells with changes.

    python tests/benchmarks/search.py --pflop 0.14 --seeds 1 2 -- "dropout 0.5"

trains the notebook's network as it is and with each of the changes named (where none is,
all of CHANGES but airbench94's), for the same arithmetic and with the same seeds, and
prints what each change adds to the accuracy on the 5,000 validation images, with its
standard error: the least-squares solution of accuracy = level of the seed + sum of the
changes' effects. For a change in pairs this is the mean difference. "a + b" stands for two
changes at once.

    python tests/benchmarks/search.py --pflop 0.06 --screen --seeds 1

tries the eleven changes of SCREEN, on top of BASE, in twelve trainings: each is in six and
not in the other six, and any two are together in three (the design of R. L. Plackett and
J. P. Burman, 1946). So each effect is a difference of two means of six. With --mirrored,
twelve more in which all is turned round: then no pair of changes can pass for a third.

Each training is kept in search.json beside this file, and none is done twice: the command
can be stopped and goes on where it was. The test images take no part.
"""

import argparse
import functools
import importlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "search.json"
AS_IT_IS = "the notebook as it is"
sys.path += [str(HERE), str(HERE.parent)]

import airbench_parts  # noqa: E402


def replaced(module, **names):
    """Returns a copy of a module's names, some of them replaced."""
    return SimpleNamespace(**vars(module) | names)


def settings(**values):
    """Returns a change of the notebook's settings."""
    return lambda nb: vars(nb).update(values)


def times(**factors):
    """Returns a change that multiplies settings."""

    def change(nb):
        for name, factor in factors.items():
            old = getattr(nb, name)
            setattr(nb, name, type(old)(old * factor))

    return change


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


def identity_start(nb):
    """The same, but with the other kernels as Keras draws them."""
    build = nb.build_alexnet

    def build_with_identity(pixels):
        model = build(pixels)
        for name in ("conv2", "conv3", "conv4", "conv5"):
            kernels = model.get_layer(name).get_weights()[0]
            n = min(kernels.shape[2:])
            kernels[..., :n] = 0
            kernels[1, 1, :n, :n] = np.eye(n)
            model.get_layer(name).set_weights([kernels])
        return model

    nb.build_alexnet = build_with_identity


def linear(nb):
    """The rate falls along a straight line: the notebook's way before it took Keras's."""

    class Triangle(nb.keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, peak, steps):
            self.peak, self.steps = peak, steps

        def __call__(self, step):
            done = nb.keras.ops.cast(step, "float32") / self.steps
            height = nb.keras.ops.minimum(done / 0.2, (1 - done) / 0.8)
            return self.peak * nb.keras.ops.maximum(0.0, height)

    nb.warmup_cosine = Triangle


def averaged_weights(nb):
    """Keras's moving average of the weights, taken over at the end of the training."""
    average = {"use_ema": True, "ema_momentum": 0.99}
    nb.KernelMuon = functools.partial(nb.KernelMuon, **average)


def fast_beta(nb):
    """Batch normalisation's beta at 16 times the rate of everything else."""

    class KernelMuon(nb.KernelMuon):
        def update_step(self, gradient, variable, rate):
            factor = 16 if variable.name == "beta" else 1
            super().update_step(factor * gradient, variable, rate)

    nb.KernelMuon = KernelMuon


def share_of_muon(factor):
    """Returns a change that multiplies Muon's share of the rate."""

    def change(nb):
        class KernelMuon(nb.KernelMuon):
            share = factor * nb.KernelMuon.share

        nb.KernelMuon = KernelMuon

    return change


def plain_sgd(nb):
    """Keras's SGD in place of Muon."""
    nb.KernelMuon = nb.keras.optimizers.SGD


def fixed_gamma(nb):
    """Batch normalisation without gamma, the learned factor of each channel."""
    norm = functools.partial(nb.layers.BatchNormalization, scale=False)
    nb.layers = replaced(nb.layers, BatchNormalization=norm)


def smoothing(factor):
    """Returns a change that multiplies the label smoothing."""

    def change(nb):
        plain = nb.keras.losses.CategoricalCrossentropy

        def loss(label_smoothing):
            return plain(label_smoothing=factor * label_smoothing)

        losses = replaced(nb.keras.losses, CategoricalCrossentropy=loss)
        nb.keras = replaced(nb.keras, losses=losses)

    return change


def principal_components(nb):
    """conv1 starts with the principal components of patches, and their negatives."""
    build = nb.build_alexnet

    def build_with_components(pixels):
        model, random = build(pixels), np.random.default_rng(0)
        some = random.integers(0, len(nb.training_images), 2000)
        images = np.asarray(pixels(nb.training_images[some]))
        y, x = random.integers(0, 30, (2, 2000))
        patches = np.stack(
            [i[a : a + 3, b : b + 3].ravel() for i, a, b in zip(images, y, x)]
        )
        _, vectors = np.linalg.eigh(patches.T @ patches)
        components = vectors.T[::-1].reshape(27, 3, 3, 3)  # the strongest first
        found = np.moveaxis(np.concatenate([components, -components]), 0, -1)
        kernels = model.get_layer("conv1").get_weights()[0]
        n = min(kernels.shape[-1], 54)  # a wider conv1 keeps some of Keras's
        kernels[..., :n] = found[..., :n]
        model.get_layer("conv1").set_weights([kernels])
        return model

    nb.build_alexnet = build_with_components


def shifted(images, seed):
    """Each image moved by up to two pixels, with its borders reflected."""
    import tensorflow as tf

    padded = tf.pad(images, [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")
    size = (2, tf.shape(images)[0], 1)
    corner = tf.random.stateless_uniform(size, seed + 1, 0, 5, tf.int32)
    rows = tf.gather(padded, corner[0] + tf.range(32), axis=1, batch_dims=1)
    return tf.gather(rows, corner[1] + tf.range(32), axis=2, batch_dims=1)


def reflected_borders(nb):
    """Crops that reach up to two pixels beyond the image, which is reflected there."""
    augment, nb.before_crop = nb.augment, shifted
    nb.augment = lambda images, seed: augment(shifted(images, seed), seed)


def alternating_mirror(nb):
    """Half of the images mirrored in one epoch, the other half in the next."""
    import tensorflow as tf

    def training_batches(images, labels, seed):
        with tf.device("CPU"):
            images, labels = tf.constant(images), tf.one_hot(labels, 10)
        order = tf.data.Dataset.range(len(images)).shuffle(len(images), seed=seed)
        order = tf.data.Dataset.range(1000).flat_map(
            lambda epoch: order.map(lambda number: (number, (number + epoch) % 2 == 0))
        )
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

        def batch(order, seed):
            numbers, mirrored = order
            size = (2, len(numbers), 1)
            corner = tf.random.stateless_uniform(size, seed, 0, 33 - nb.CROP, tf.int32)
            rows, columns = corner[0] + tf.range(nb.CROP), corner[1] + tf.range(nb.CROP)
            columns = tf.where(mirrored[:, None], columns[:, ::-1], columns)
            chosen = tf.gather(images, numbers)
            if hasattr(nb, "before_crop"):
                chosen = nb.before_crop(chosen, seed)
            crops = tf.gather(chosen, rows, axis=1, batch_dims=1)
            crops = tf.gather(crops, columns, axis=2, batch_dims=1)
            return crops, tf.gather(labels, numbers)

        order = order.batch(nb.BATCH_SIZE, drop_remainder=True)
        return tf.data.Dataset.zip(order, seeds).map(batch).prefetch(2)

    nb.training_batches = training_batches


PLAIN = "plain SGD"
CHANGES = {
    AS_IT_IS: settings(),
    PLAIN: plain_sgd,
    "kernels 64-192-192-128-128": widths(64, 192, 192, 128, 128),
    "identity kernels": identity_kernels,
    "batches of 128, half the rate": times(BATCH_SIZE=0.5, PEAK_RATE=0.5),
    "half the rate": times(PEAK_RATE=0.5),
    "dropout 0.5": settings(DROPOUT=0.5),
    "half the weight decay": times(WEIGHT_DECAY=0.5),
    "alternating mirror": alternating_mirror,
    "16 times the rate for beta": fast_beta,
    "gamma fixed": fixed_gamma,
    "label smoothing 0.2": smoothing(2),
    "straight way down": linear,
    "twice the rate": times(PEAK_RATE=2),
    "twice the weight decay": times(WEIGHT_DECAY=2),
    "averaged weights": averaged_weights,
    "identity start": identity_start,
    "principal components": principal_components,
    "reflected borders": reflected_borders,
    "twice Muon's rate": share_of_muon(2),
    "half Muon's rate": share_of_muon(0.5),
    **airbench_parts.CHANGES,
}
BASE = "identity start"  # of all trainings of the screen: without it two fell far behind
SCREEN = [
    "principal components",
    "batches of 128, half the rate",
    "dropout 0.5",
    "half the weight decay",
    "alternating mirror",
    "reflected borders",
    "label smoothing 0.2",
    "straight way down",
    "averaged weights",
    "half the rate",
    "kernels 64-192-192-128-128",
]
FIRST_ROW = "++-+++---+-"  # of the design for 12 trainings; the others are this one turned


def designed(mirrored):
    """Returns the twelve combinations of SCREEN, as names of changes."""
    rows = [FIRST_ROW[-turn:] + FIRST_ROW[:-turn] for turn in range(11)] + [11 * "-"]
    sign = "-" if mirrored else "+"
    chosen = [[name for name, s in zip(SCREEN, row) if s == sign] for row in rows]
    return [" + ".join([BASE, *names]) for names in chosen]


def train(change, seed, pflop=None, epochs=None, factor=1.0, module="search"):
    """Trains once, for so much arithmetic or so many epochs. Returns what was found.

    change: names in the CHANGES of a module; factor: on the peak rate.
    """
    from notebook_cells import code_cells_by_id, notebook_functions, read_notebook

    import keras  # isort: skip
    from contenders import multiply_adds, variance  # isort: skip
    from profile_step import seconds_of  # isort: skip

    nb = notebook_functions(code_cells_by_id(read_notebook()))
    (images, labels), _ = nb.load_cifar10()
    x, x_val, y, y_val = nb.split_validation(images, labels.ravel())
    del images
    nb.SEED, nb.training_images = seed, x
    changes = importlib.import_module(module).CHANGES
    for name in change.split(" + "):
        changes[name](nb)
    spread = {"mean": x.mean((0, 1, 2)), "variance": variance(x)}
    pixels = nb.layers.Normalization(name="pixels", **spread)
    keras.utils.set_random_seed(seed)
    model = nb.build_alexnet(pixels)
    work = 6 * multiply_adds(model) * nb.BATCH_SIZE  # of a step, in operations
    steps = round(pflop * 1e15 / work if pflop else epochs * len(x) / nb.BATCH_SIZE)
    nb.compile_model(model, factor * nb.PEAK_RATE, steps)
    data = nb.training_batches(x, y, seed).repeat().take(steps)
    matrix = keras.random.normal((4096, 4096))
    product, _ = seconds_of(lambda: np.asarray(keras.ops.matmul(matrix, matrix)))
    begin = time.time()
    model.fit(data, shuffle=False, verbose=0)
    speed = work * steps / (time.time() - begin) / (2 * 4096**3 / product)
    answers = [
        model.predict(view, batch_size=250, verbose=0) for view in nb.ten_crops(x_val)
    ]
    right = [answers[4].argmax(axis=1) == y_val, sum(answers).argmax(axis=1) == y_val]
    centre, ten = (round(100 * float(share.mean()), 2) for share in right)
    return {"steps": steps, "speed": round(speed, 2), "centre": centre, "ten": ten}


def in_a_process(function, *arguments, **options):
    """Calls a function in a process of its own, so that no two trainings share anything."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments, options)


def effects(rows, key):
    """Returns the effect of each change on row[key], and its standard error (or None).

    rows: trainings of one length. One unknown for each seed, one for each change. An effect
    is None where these trainings cannot tell it from others.
    """
    seeds = sorted({row["seed"] for row in rows})
    names = [row["change"].split(" + ") for row in rows]
    tried = set().union(*names) - {AS_IT_IS}
    changes = [name for name in CHANGES if name in tried]
    unknowns = [*seeds, *changes]
    has = [[row["seed"], *name] for row, name in zip(rows, names)]
    matrix = np.array([[float(unknown in row) for unknown in unknowns] for row in has])
    found = np.array([row[key] for row in rows])
    inverse = np.linalg.pinv(matrix.T @ matrix)
    solution = inverse @ matrix.T @ found
    spare = len(rows) - np.linalg.matrix_rank(matrix)
    squares = np.sum((found - matrix @ solution) ** 2)
    errors = (
        np.sqrt(np.diag(inverse) * squares / spare) if spare else [None] * len(solution)
    )
    told_apart = np.isclose(np.diag(inverse @ matrix.T @ matrix), 1)
    found = [
        (effect, error) if known else (None, None)
        for effect, error, known in zip(solution, errors, told_apart)
    ]
    return dict(zip(unknowns, found))


def kinds(rows):
    """Yields PFLOP, an optimizer's name, and the trainings of this length with it.

    What a change brings may differ from one optimizer to the other, so they do not mix.
    """
    for pflop in sorted({row["pflop"] for row in rows}):
        for suffix in ("", f", {PLAIN}"):
            chosen = []
            for row in rows:
                names = row["change"].split(" + ")
                if row["pflop"] == pflop and (PLAIN in names) == bool(suffix):
                    rest = [name for name in names if name != PLAIN] or [AS_IT_IS]
                    chosen.append(row | {"change": " + ".join(rest)})
            yield pflop, suffix, chosen


def table(rows):
    """Returns the effects of all changes, one block for each length, as Markdown.

    A training with a note was given up with its design and does not count.
    """
    rows = [row for row in rows if "note" not in row]
    lines = ["| change | PFLOP | trainings | centre crop | ten crops |", "|---" * 5 + "|"]
    for pflop, suffix, chosen in kinds(rows):
        if not chosen:
            continue
        centre, ten = effects(chosen, "centre"), effects(chosen, "ten")
        for name in centre:
            texts = [
                "not told apart yet"
                if effect is None
                else f"{effect:+.2f}" + ("" if error is None else f" ± {error:.2f}")
                for effect, error in (centre[name], ten[name])
            ]
            count = sum(name in row["change"].split(" + ") for row in chosen)
            if isinstance(name, int):
                texts = [text.lstrip("+") for text in texts]
                name = f"seed {name}{suffix}"
            lines.append(f"| {name} | {pflop} | {count or ''} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pflop", type=float, default=0.14, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--screen", action="store_true", help="the design for twelve")
    parser.add_argument("--mirrored", action="store_true", help="the same turned round")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("changes", nargs="*", help="names of changes; all, if none")
    arguments = parser.parse_args()
    ours = [name for name in CHANGES if name not in airbench_parts.CHANGES]
    changes = [AS_IT_IS, *(arguments.changes or ours)]
    if arguments.screen:
        changes = designed(arguments.mirrored)
    unknown = set(" + ".join(changes).split(" + ")) - set(CHANGES)
    if unknown:
        parser.error(f"no change of this name: {unknown}. There are: {list(CHANGES)}")
    out = arguments.out.resolve()
    os.chdir(HERE.parent.parent)
    rows = json.loads(out.read_text()) if out.exists() else []
    for seed in arguments.seeds:
        for change in dict.fromkeys(changes):
            task = (change, seed, arguments.pflop)
            done = [row for row in rows if "note" not in row]
            if task in [(row["change"], row["seed"], row["pflop"]) for row in done]:
                continue
            row = dict(zip(("change", "seed", "pflop"), task))
            rows.append(row | in_a_process(train, *task))
            print(rows[-1], flush=True)
            out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
