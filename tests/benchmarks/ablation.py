"""What is each idea worth? Trains the notebook's network with one thing out or put back.

    python tests/benchmarks/ablation.py new.json --epochs 5 --seeds 1 2 3

first looks for the peak learning rate of the whole network, and of each arm that changes what
a learning rate acts through (OWN_RATE). It does so with a seed that is not reported, in training
runs of half the length; with a constant learning rate, whose best value depends on the length,
in runs of all of it. The grid is half the notebook's rate, the rate, and twice the rate, and
grows by factors of two while the best lies at its edge. All other arms have the whole network's
rate. Then it trains each arm with all seeds, and prints the differences to the whole network on
the 5,000 validation images. The test images take no part.

Each training run is kept in the file that is named, and none is done twice: the command can be
stopped and goes on where it was. Give another kind of device its name (`--device H100`):
differences are taken within a device.

ablation.json beside this file holds what the README there and the notebook show. It was measured
with the second edition's code, which had batches of 256, dropout 0.3, and another pipeline, so
new training runs need a file of their own.
"""

import argparse
import functools
import json
import re
import statistics
from pathlib import Path

import common
import keras
import numpy as np
from contenders import Bias
from keras import layers

RESULTS = common.HERE / "ablation.json"
WHOLE = "the whole network"
CONSTANT = "constant learning rate"
GRID_SEED = 0
PIXELS = 62  # their standard deviation, about, before they are normalized
PAPER = {  # points of top-1 accuracy that an arm loses on ImageNet
    "four convolutions": "2",  # about, for a convolution in the middle; section 7
    "2 x 2 pools": "0.4",  # section 3.4
}


# A change takes the notebook's functions and replaces some of them.
def chain(*changes):
    """Returns a change that makes several, one after another."""
    return lambda nb: [change(nb) for change in changes]


def replaced(**names):
    """Returns a change of the notebook's settings or functions."""
    return lambda nb: vars(nb).update(names)


def rebuilt(function):
    """Returns a change that passes each new network through function(nb, model)."""

    def change(nb):
        build = nb.build_alexnet
        nb.build_alexnet = lambda: function(nb, build())

    return change


def swapped(replace):
    """Returns a change that copies each new network, layer by layer.

    replace(model, layer): what stands in the place of a layer; None for a copy of it.
    """

    def copy(nb, model):
        def clone(layer):
            return replace(model, layer) or layer.from_config(layer.get_config())

        return keras.models.clone_model(model, clone_function=clone)

    return rebuilt(copy)


def drawn(nb, model, bias=0.0):
    """He initialization; `bias` for the biases where the paper has ones."""
    nb.draw_weights(model)
    for variable in model.variables:
        if re.search("bias_(conv[245]|fc)", variable.path):
            variable.assign(np.full(variable.shape, bias))
    return model


def biases_alone(model, layer):
    """A bias for each channel in place of its batch normalization."""
    if isinstance(layer, layers.BatchNormalization):
        main = [old for old in model.layers if hasattr(old, "kernel") or old is layer]
        return Bias(name=f"bias_{main[main.index(layer) - 1].name}")


class ResponseNormalization(layers.Layer):
    """The notebook's LRN for normalized pixels; a convolution adds up faster.

    The paper's constants are for pixels of 0 to 255; these are PIXELS times smaller.
    """

    def call(self, inputs):
        channels = np.arange(inputs.shape[-1])
        near = np.abs(np.subtract.outer(channels, channels)) <= 2
        ones = near[None, None].astype("float32")
        total = keras.ops.conv(inputs**2, ones, padding="same")
        root = keras.ops.rsqrt(2 + 1e-4 * PIXELS**2 * total)
        return inputs * root * keras.ops.sqrt(root)


def lrn_instead(model, layer):
    """Bias, ReLU, LRN, and pool in the first two stages; biases in the others."""
    stages = ("conv1_pool", "conv2_pool")
    if layer.name in stages:
        bias = Bias(name=f"bias_{layer.name.removesuffix('_pool')}")
        pool = layer.from_config(layer.get_config())
        parts = [bias, layers.ReLU(), ResponseNormalization(), pool]
        return keras.Sequential(parts, name=layer.name)
    if isinstance(layer, layers.BatchNormalization):
        if model.layers[model.layers.index(layer) - 1].name in stages:
            return layers.Identity()
    return biases_alone(model, layer)


def four_convolutions(model, layer):
    """No conv4, nor what belongs to it."""
    first = [old.name for old in model.layers].index("conv4")
    return layers.Identity() if layer in model.layers[first : first + 3] else None


def no_smoothing(nb):
    """Compiles again, with labels that are not smoothed."""
    compile_smooth = nb.compile_model

    def compile_model(model, *arguments, **options):
        compile_smooth(model, *arguments, **options)
        model.compile(model.optimizer, "categorical_crossentropy", metrics=["accuracy"])

    nb.compile_model = compile_model


def optimizer(make):
    """Returns a change of the optimizer, for the convolutions too."""

    def change(nb):
        nb.compile_model = functools.partial(nb.compile_model, optimizer=make)

    return change


def plain_momentum(rate, nesterov, **options):
    """Returns SGD with momentum, without Nesterov's look ahead."""
    return keras.optimizers.SGD(rate, **options)


def by_steps(peak, steps):
    """A rate divided by 10 three times: after a half, three quarters and seven eighths."""
    borders = [steps // 2, 3 * steps // 4, 7 * steps // 8]
    rates = [peak / 10**n for n in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)


center_alone = layers.Pipeline([layers.CenterCrop(28, 28)])
lrn, he, divided = swapped(lrn_instead), rebuilt(drawn), replaced(warmup_cosine=by_steps)
recipe_of_2012 = chain(no_smoothing, optimizer(plain_momentum), replaced(DROPOUT=0.5))
CHANGES = {
    WHOLE: chain(),
    "tanh instead of ReLU": rebuilt(lambda nb, model: nb.without(model, "ReLU")),
    "no normalization, He initialization": chain(swapped(biases_alone), he),
    "LRN instead of batch normalization": chain(lrn, he),
    "2 x 2 pools": rebuilt(lambda nb, model: nb.without(model, "overlapping pools")),
    "four convolutions": swapped(four_convolutions),
    "no augmentation": replaced(augmentation=lambda seed: center_alone),
    "no dropout": replaced(DROPOUT=0.0),
    CONSTANT: replaced(warmup_cosine=lambda peak, steps: peak),
    "no weight decay": replaced(WEIGHT_DECAY=0.0),
    "no label smoothing": no_smoothing,
    "SGD instead of Muon": optimizer(keras.optimizers.SGD),
    "recipe of 2012": chain(  # except the size of the first weights, which is He's
        recipe_of_2012, divided, lrn, rebuilt(functools.partial(drawn, bias=1.0))
    ),
    "2012 with batch normalization": chain(recipe_of_2012, divided, he),
    "2012 with batch normalization and cosine": chain(recipe_of_2012, he),
}
OWN_RATE = {  # what a learning rate acts through: slopes, sizes, steps, schedule
    "tanh instead of ReLU",
    "no normalization, He initialization",
    "LRN instead of batch normalization",
    CONSTANT,
    "SGD instead of Muon",
    *(arm for arm in CHANGES if "2012" in arm),
}


def train(arm, seed, epochs, factor):
    """Trains an arm once, at a factor on the peak rate. Returns what was measured."""
    nb = common.load()
    x, x_val, y, y_val = nb.x_train, nb.x_val, nb.y_train, nb.y_val
    CHANGES[arm](nb)
    keras.utils.set_random_seed(seed)
    model, data = nb.build_alexnet(), nb.make_batches(x, y, seed=seed)
    steps = round(epochs * len(data))
    nb.compile_model(model, steps, factor * nb.PEAK_RATE)
    model.fit(data.repeat().take(steps), shuffle=False, verbose=0)
    found = {"steps": steps}
    center = nb.predict(model, nb.center_crop(x_val))
    for name, p in (("center", center), ("ten", nb.predict_ten_crops(model, x_val))):
        found[name] = round(100 * float(np.mean(p.argmax(axis=1) == y_val)), 2)
    return found


class Rows:
    """The training runs that were done, in a file; trains what is missing."""

    def __init__(self, path, epochs, device):
        self.path, self.epochs, self.device = path, epochs, device
        self.rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        kinds = {(row["edition"], row["epochs"]) for row in self.rows}
        if not kinds <= {(common.EDITION, epochs), (common.EDITION, epochs / 2)}:
            raise ValueError(f"{path} has training runs of another edition or length.")

    def get(self, arm, factor, seed):
        """Returns the row of an arm at a factor with a seed."""
        is_half = seed == GRID_SEED and arm != CONSTANT  # its best depends on the length
        epochs = self.epochs / 2 if is_half else self.epochs
        key = {"change": arm, "factor": factor, "seed": seed, "epochs": epochs}
        key |= {"edition": common.EDITION, "device": self.device}
        for row in self.rows:
            if key.items() <= row.items():
                return row
        self.rows.append(key | common.in_a_process(train, arm, seed, epochs, factor))
        print(self.rows[-1], flush=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        return self.rows[-1]

    def best_factor(self, arm):
        """Returns the factor on the notebook's rate that suits an arm best."""
        grid = [0.5, 1.0, 2.0]
        while True:
            found = [self.get(arm, factor, GRID_SEED)["center"] for factor in grid]
            best = grid[found.index(max(found))]
            if grid[0] < best < grid[-1]:
                return best
            grid = [best / 2, *grid] if best == grid[0] else [*grid, best * 2]


def pairs(rows):
    """Returns {arm: {(device, seed): row}}, for the whole network, and arms with three or more."""
    of = {}
    for row in rows:
        if row["seed"] != GRID_SEED:
            of.setdefault(row["change"], {})[row["device"], row["seed"]] = row
    return {arm: runs for arm, runs in of.items() if arm == WHOLE or len(runs) >= 3}


def effects(rows, key):
    """Returns {arm: (points, standard error)} for "center" or "ten", largest loss first.

    The points are the mean of the differences in pairs. Three differences say little about
    their own spread, so it is pooled over all arms except those of 2012; where an arm's own
    is larger, that one counts.
    """
    arms = pairs(rows)
    whole = arms.pop(WHOLE)
    gains = {a: [runs[at][key] - whole[at][key] for at in runs] for a, runs in arms.items()}
    spread = {arm: statistics.variance(gain) for arm, gain in gains.items()}
    degrees = {arm: len(gain) - 1 for arm, gain in gains.items() if "2012" not in arm}
    squares = sum(spread[arm] * number for arm, number in degrees.items())
    pooled = squares / max(sum(degrees.values()), 1)
    found = {
        arm: (statistics.mean(gain), (max(pooled, spread[arm]) / len(gain)) ** 0.5)
        for arm, gain in gains.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def table(rows):
    """Returns the effects of all arms with three pairs or more as Markdown."""
    heading = "changed | learning rate | pairs | center crop | ten crops | lost in the paper"
    of, of_ten, lines = pairs(rows), effects(rows, "ten"), []
    for device in sorted({row["device"] for row in of[WHOLE].values()}):
        runs = [row for row in of[WHOLE].values() if row["device"] == device]
        center, ten = common.means(runs)
        rate = f"x {runs[0]['factor']:g} | {len(runs)}"
        lines.append(f"{WHOLE}, {device} | {rate} | {center:.2f}% | {ten:.2f}% | ")
    for arm, of_center in effects(rows, "center").items():
        rate = ", ".join(sorted({f"x {row['factor']:.3g}" for row in of[arm].values()}))
        both = "{:+.2f} ± {:.2f} | {:+.2f} ± {:.2f}".format(*of_center, *of_ten[arm])
        lines.append(f"{arm} | {rate} | {len(of[arm])} | {both} | {PAPER.get(arm, '')}")
    return common.markdown(heading, lines)


def for_notebook(rows):
    """Returns {arm: [points lost, standard error]} at the center, the largest loss last."""
    lost = {}
    for arm, (change, error) in reversed(effects(rows, "center").items()):
        paper = f" (paper: {PAPER[arm]})" if arm in PAPER else ""
        lost[arm + paper] = [round(-change, 3), round(error, 3)]
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="of the training runs, new or begun")
    parser.add_argument("--epochs", type=float, default=5, help="of each training run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--device", default="CPU", help="name of what it trains on")
    parser.add_argument("--arms", nargs="+", default=list(CHANGES), help="names of arms")
    arguments = parser.parse_args()
    if not set(arguments.arms) <= set(CHANGES) or GRID_SEED in arguments.seeds:
        parser.error(f"arms: {list(CHANGES)}; seeds: any but {GRID_SEED}")
    done = Rows(arguments.file, arguments.epochs, arguments.device)
    for arm in dict.fromkeys([WHOLE, *arguments.arms]):
        factor = done.best_factor(arm if arm in OWN_RATE else WHOLE)
        for seed in arguments.seeds:
            done.get(arm, factor, seed)
    print(table(done.rows), for_notebook(done.rows), sep="\n\n")


if __name__ == "__main__":
    main()
