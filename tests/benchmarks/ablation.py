"""What is each idea worth? Trains the notebook's network with one thing out or put back.

    python tests/benchmarks/ablation.py new.json
    python tests/benchmarks/ablation.py new.json "no dropout" "2 x 2 pools" --device H100

first looks for the peak learning rate of the whole network, and of each arm that changes what
a learning rate acts through (OWN_RATE). It does so with a seed that is not reported, in training
runs of half the length; only with a constant learning rate, whose best value depends on the
length, in runs of all of it. Then it trains each arm, or those that are named, with all seeds, and
prints the differences to the whole network on the validation images. They are taken within a
device, so give another kind of device its name. The test images take no part.

Each training run is kept in the file that is named, and none is done twice: the command can be
stopped and goes on where it was. ablation.json beside this file holds what the README there and
the notebook show. It is the second edition's, so new training runs need a file of their own.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

import common
import keras
from contenders import Bias
from keras import layers

RESULTS = common.HERE / "ablation.json"
EPOCHS, SEEDS = 5, (1, 2, 3)
GRID_SEED = 0
WHOLE = "the whole network"
CONSTANT = "constant learning rate"
IDEAS = {"four convolutions": "no fifth convolution", "2 x 2 pools": "no overlap of pools"}
PAPER = {  # points of top-1 accuracy that an arm loses on ImageNet
    "four convolutions": "2",  # about, for a convolution in the middle; section 7
    "2 x 2 pools": "0.4",  # section 3.4
}
ONES = ("conv2", "conv4", "conv5", "fc6", "fc7")  # whose biases start at 1; section 5


# A change takes the notebook's functions and replaces some of them.
def chain(*changes):
    """Returns a change that makes several, one after another."""
    return lambda nb: [change(nb) for change in changes]


def replaced(**names):
    """Returns a change of the notebook's settings or functions."""
    return lambda nb: vars(nb).update(names)


def edited(makers, edit):
    """Returns a change that passes what these functions make through edit(nb, made)."""

    def wrapped(nb, make):
        return lambda *arguments, **options: edit(nb, make(*arguments, **options))

    return lambda nb: vars(nb).update({name: wrapped(nb, getattr(nb, name)) for name in makers})


network = partial(edited, ["build_alexnet"])
blocks = partial(edited, ["conv_block", "dense_block"])  # lists of layers


def drawn(nb, model):
    """He initialization."""
    nb.draw_weights(model)
    return model


def with_biases(nb, block, ones=()):
    """Biases in place of batch normalization; they start at 0, in the layers `ones` at 1."""
    name = block[0].name
    bias = Bias("ones" if name in ones else "zeros", name=f"bias_{name}")
    return [bias if isinstance(x, layers.BatchNormalization) else x for x in block]


def with_lrn(nb, block, ones=()):
    """Biases, and LRN between ReLU and pool in the first two blocks, as in the paper.

    The notebook's LRN is for pixels of 0 to 255; the network's are PIXELS times smaller.
    """
    block = with_biases(nb, block, ones)
    if block[0].name not in ("conv1", "conv2"):
        return block
    convolution, pool, bias, relu = block
    larger, smaller = layers.Rescaling(common.PIXELS), layers.Rescaling(1 / common.PIXELS)
    return [convolution, bias, relu, larger, nb.LocalResponseNormalization(), smaller, pool]


def no_smoothing(nb):
    """Compiles again, with labels that are not smoothed."""
    compile_smooth = nb.compile_model

    def compile_model(model, *arguments, **options):
        compile_smooth(model, *arguments, **options)
        model.compile(model.optimizer, "categorical_crossentropy", metrics=["accuracy"])

    nb.compile_model = compile_model


def optimizer(make):
    """Returns a change of the optimizer, for the convolutions too."""
    return lambda nb: vars(nb).update(compile_model=partial(nb.compile_model, optimizer=make))


def plain_momentum(rate, nesterov, **options):
    """Returns SGD with momentum, without Nesterov's look ahead."""
    return keras.optimizers.SGD(rate, **options)


def by_steps(peak, steps):
    """A rate divided by 10 three times: after a half, three quarters and seven eighths."""
    borders = [steps // 2, 3 * steps // 4, 7 * steps // 8]
    rates = [peak / 10**n for n in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)


center_alone = layers.CenterCrop(28, 28)
he, divided = network(drawn), replaced(warmup_cosine=by_steps)
recipe_of_2012 = chain(no_smoothing, optimizer(plain_momentum), replaced(DROPOUT=0.5), he)
CHANGES = {
    WHOLE: chain(),
    "tanh instead of ReLU": network(lambda nb, model: nb.without(model, "ReLU")),
    "no normalization, He initialization": chain(blocks(with_biases), he),
    "LRN instead of batch normalization": chain(blocks(with_lrn), he),
    "2 x 2 pools": network(lambda nb, model: nb.without(model, "overlapping pools")),
    "four convolutions": blocks(lambda nb, block: [] if block[0].name == "conv4" else block),
    "no augmentation": replaced(augmentation=lambda seed: center_alone),
    "no dropout": replaced(DROPOUT=0.0),
    CONSTANT: replaced(warmup_cosine=lambda peak, steps: peak),
    "no weight decay": replaced(WEIGHT_DECAY=0.0),
    "no label smoothing": no_smoothing,
    "SGD instead of Muon": optimizer(keras.optimizers.SGD),
    "recipe of 2012": chain(  # except the size of the first weights, which is He's
        recipe_of_2012, divided, blocks(partial(with_lrn, ones=ONES))
    ),
    "2012 with batch normalization": chain(recipe_of_2012, divided),
    "2012 with batch normalization and cosine": recipe_of_2012,
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
    CHANGES[arm](nb)
    keras.utils.set_random_seed(seed)
    model, data = nb.build_alexnet(), nb.make_batches(nb.x_train, nb.y_train, seed=seed)
    steps = round(epochs * len(data))
    nb.compile_model(model, steps, factor * nb.PEAK_RATE)
    model.fit(data.repeat().take(steps), shuffle=False, verbose=0)
    scores = nb.predict(model, nb.center_crop(nb.x_val)), nb.predict_ten_crops(model, nb.x_val)
    right = [nb.metrics.accuracy_score(nb.y_val, found.argmax(axis=1)) for found in scores]
    return {"steps": steps, "center": round(100 * right[0], 2), "ten": round(100 * right[1], 2)}


class Rows:
    """The training runs that were done, in a file; trains what is missing."""

    def __init__(self, path, device):
        self.path, self.device, self.rows = path, device, common.read(path)
        for row in self.rows:
            if row["edition"] != common.EDITION or row["epochs"] not in (EPOCHS, EPOCHS / 2):
                raise ValueError(f"{path} has training runs of another edition or length.")

    def get(self, arm, factor, seed):
        """Returns the row of an arm at a factor with a seed."""
        is_half = seed == GRID_SEED and arm != CONSTANT  # its best depends on the length
        epochs = EPOCHS / 2 if is_half else EPOCHS
        key = {"change": arm, "factor": factor, "seed": seed, "epochs": epochs}
        key |= {"edition": common.EDITION, "device": self.device}
        for row in self.rows:
            if key.items() <= row.items():
                return row
        self.rows.append(key | common.in_a_process(train, arm, seed, epochs, factor))
        print(self.rows[-1], flush=True)
        common.write(self.path, self.rows)
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
    """Returns {what is missing: [points lost, standard error]} at the center, largest last."""
    lost = {}
    for arm, (change, error) in reversed(effects(rows, "center").items()):
        lost[IDEAS.get(arm, arm.split(",")[0])] = [round(-change, 3), round(error, 3)]
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="of the training runs, new or begun")
    parser.add_argument("arms", nargs="*", help="names of arms; all if none is given")
    parser.add_argument("--device", default="CPU", help="name of what it trains on")
    arguments = parser.parse_args()
    if not set(arguments.arms) <= set(CHANGES):
        parser.error(f"arms: {list(CHANGES)}")
    done = Rows(arguments.file, arguments.device)
    for arm in dict.fromkeys([WHOLE, *(arguments.arms or CHANGES)]):
        factor = done.best_factor(arm if arm in OWN_RATE else WHOLE)
        for seed in SEEDS:
            done.get(arm, factor, seed)
    print(table(done.rows), for_notebook(done.rows), sep="\n\n")


if __name__ == "__main__":
    main()
