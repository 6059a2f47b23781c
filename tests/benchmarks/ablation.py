"""What is each idea worth? Trains the notebook's network with one thing out or put back.

    python tests/benchmarks/ablation.py --epochs 5 --seeds 1 2 3

first looks for the peak rate of the whole network, and of each arm that changes what a rate
acts through (those in OWN_RATE), on a seed that is not reported and in trainings of half
the length (the constant rate's: of all of it, since its best depends on the length): half
the notebook's rate, the rate, and twice it; while the best of them lies at the edge, the
grid grows there by another factor of two. All other arms have the rate of the whole
network. Then trains each arm with all seeds, as many steps and the same order of images for
all, and prints the differences to the whole network on the 5,000 validation images with
their standard error (`seeds.py` takes them to the README beside this file).
Each training is kept in ablation.json there, and none is done twice: the command can be
stopped and goes on where it was. Give another kind of device its name (`--device H100`):
differences are taken within a device. The test images take no part.
"""

import argparse
import functools
import json
import os
import re
import statistics
from pathlib import Path

import numpy as np
import search
from search import in_a_process, plain_sgd, settings, smoothing

RESULTS = Path(__file__).with_name("ablation.json")
WHOLE = "the whole network"
CONSTANT = "constant rate, no warm-up"
GRID_SEED = 0
PIXELS = 62  # their standard deviation, about, before they are normalised
PAPER = {  # points of top-1 accuracy that an arm loses on ImageNet
    "four convolutions": "2",  # about, for a convolution in the middle; section 7
    "2 x 2 pools": "0.4",  # section 3.4
}


def swap(replace):
    """Returns a change that copies each new network, layer by layer.

    replace(nb, model, layer): what stands in the place of a layer; None for a copy of it.
    """

    def change(nb):
        build = nb.build_alexnet

        def clone(model, layer):
            if layer.name == "pixels":
                return layer
            new = replace(nb, model, layer)
            return layer.from_config(layer.get_config()) if new is None else new

        def build_changed(pixels):
            model = build(pixels)
            function = functools.partial(clone, model)
            return nb.keras.models.clone_model(model, clone_function=function)

        nb.build_alexnet = build_changed

    return change


def without(idea):
    """Returns a change that takes out one of the ideas in the notebook's SWAPS."""

    def replace(nb, model, layer):
        kind, instead = nb.SWAPS[idea]
        return instead(layer) if isinstance(layer, kind) else None

    return swap(replace)


def drawn(nb, bias=0.0):
    """Lets each new network start with He's weights; `bias` where the paper has ones."""
    build = nb.build_alexnet

    def build_drawn(pixels):
        model = build(pixels)
        nb.draw_weights(model)
        for variable in model.variables:
            if re.search("bias_(conv[245]|fc)", variable.path):
                variable.assign(np.full(variable.shape, bias))
        return model

    nb.build_alexnet = build_drawn


def biases_alone(nb, model, layer):
    """A bias for each channel in place of its batch normalisation."""
    from contenders import Bias

    if isinstance(layer, nb.layers.BatchNormalization):
        main = [old for old in model.layers if hasattr(old, "kernel") or old is layer]
        return Bias(name=f"bias_{main[main.index(layer) - 1].name}")
    return None


def lrn_instead(nb, model, layer):
    """Bias, ReLU, response normalisation, pool in the first two stages; then biases.

    The paper's constants are for pixels of 0 to 255; here they are divided by about 62.
    """
    from contenders import Bias

    class OfPixels(nb.layers.Layer):
        """The notebook's layer for such pixels; a convolution adds up faster."""

        def call(self, inputs):
            channels = np.arange(inputs.shape[-1])
            near = np.abs(np.subtract.outer(channels, channels)) <= 2
            ones = near[None, None].astype("float32")
            total = nb.keras.ops.conv(inputs**2, ones, padding="same")
            root = nb.keras.ops.rsqrt(2 + 1e-4 * PIXELS**2 * total)
            return inputs * root * nb.keras.ops.sqrt(root)

    if layer.name in ("pool1", "pool2"):
        bias = Bias(name=layer.name.replace("pool", "bias_conv"))
        pool = layer.from_config(layer.get_config())
        parts = [bias, nb.layers.ReLU(), OfPixels(), pool]
        return nb.keras.Sequential(parts, name=layer.name)
    if isinstance(layer, nb.layers.BatchNormalization):
        before = model.layers[model.layers.index(layer) - 1]
        if before.name in ("pool1", "pool2"):
            return nb.layers.Identity()
    return biases_alone(nb, model, layer)


def four_convolutions(nb, model, layer):
    """No conv4, nor what belongs to it."""
    first = [old.name for old in model.layers].index("conv4")
    gone = model.layers[first : first + 3]
    return nb.layers.Identity() if layer in gone else None


def no_augmentation(nb):
    """The centre of each image, always."""
    nb.augment = lambda images, seed: nb.centre_crop(images)


def constant_rate(nb):
    nb.warmup_cosine = lambda peak, steps: peak


def rate_by_steps(nb):
    """Divided by 10 three times: after a half, three quarters and seven eighths."""

    def schedule(peak, steps):
        borders = [steps // 2, 3 * steps // 4, 7 * steps // 8]
        rates = [peak / 10**n for n in range(4)]
        return nb.keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)

    nb.warmup_cosine = schedule


def plain_momentum(nb):
    """SGD with momentum, without Muon and without Nesterov's look ahead."""

    def optimizer(rate, nesterov, **options):
        return nb.keras.optimizers.SGD(rate, **options)

    nb.KernelMuon = optimizer


def chain(*changes):
    """Returns a change that makes several, one after another."""

    def change(nb):
        for part in changes:
            part(nb)

    return change


recipe_of_2012 = chain(smoothing(0), plain_momentum, settings(DROPOUT=0.5))
CHANGES = {
    WHOLE: settings(),
    "tanh for ReLU": without("ReLU"),
    "no normalisation, weights of He": chain(swap(biases_alone), drawn),
    "LRN for batch normalisation": chain(swap(lrn_instead), drawn),
    "2 x 2 pools": without("overlapping pools"),
    "four convolutions": swap(four_convolutions),
    "no augmentation": no_augmentation,
    "no dropout": settings(DROPOUT=0.0),
    CONSTANT: constant_rate,
    "no weight decay": settings(WEIGHT_DECAY=0.0),
    "no label smoothing": smoothing(0),
    "SGD for Muon": plain_sgd,
    "recipe of 2012": chain(  # but for the size of the first weights: He's
        recipe_of_2012, rate_by_steps, swap(lrn_instead), functools.partial(drawn, bias=1.0)
    ),
    "2012 with batch normalisation": chain(recipe_of_2012, rate_by_steps, drawn),
    "2012 with batch normalisation and cosine": chain(recipe_of_2012, drawn),
}
OWN_RATE = {  # what a rate acts through: slopes, sizes of the sums, steps, schedule
    "tanh for ReLU",
    "no normalisation, weights of He",
    "LRN for batch normalisation",
    CONSTANT,
    "SGD for Muon",
    "recipe of 2012",
    "2012 with batch normalisation",
    "2012 with batch normalisation and cosine",
}


class Rows:
    """The trainings that were done, in a file; trains what is missing."""

    def __init__(self, path, epochs, device):
        self.path, self.epochs, self.device = path, epochs, device
        self.rows = json.loads(path.read_text()) if path.exists() else []

    def get(self, arm, factor, seed):
        """Returns the row of an arm at a rate with a seed.

        In the search for a rate, what another device found will do.
        """
        is_half = seed == GRID_SEED and arm != CONSTANT  # its best depends on the length
        epochs = self.epochs / 2 if is_half else self.epochs
        key = {"change": arm, "factor": factor, "seed": seed, "epochs": epochs}
        known = [row for row in self.rows if key.items() <= row.items()]
        known.sort(key=lambda row: row["device"] != self.device)  # its own first
        if known and (seed == GRID_SEED or known[0]["device"] == self.device):
            return known[0]
        key["device"] = self.device
        options = {"epochs": epochs, "factor": factor, "module": "ablation"}
        self.rows.append(key | in_a_process(search.train, arm, seed, **options))
        print(self.rows[-1], flush=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")
        return self.rows[-1]

    def best_factor(self, arm):
        """Returns the factor on the notebook's rate that suits an arm best."""
        grid = [0.5, 1.0, 2.0]
        while True:
            found = [self.get(arm, factor, GRID_SEED)["centre"] for factor in grid]
            best = grid[found.index(max(found))]
            if best == grid[0]:
                grid.insert(0, best / 2)
            elif best == grid[-1]:
                grid.append(best * 2)
            else:
                return best


def pairs(rows):
    """Yields an arm's name and its {(device, seed): row}, for arms with three or more.

    The whole network comes first.
    """
    of = {}
    for row in rows:
        if row["seed"] != GRID_SEED:
            of.setdefault(row["change"], {})[row["device"], row["seed"]] = row
    yield WHOLE, of.pop(WHOLE)
    yield from ((arm, runs) for arm, runs in of.items() if len(runs) >= 3)


def effects(rows, key):
    """Returns {arm: (points, standard error)} for "centre" or "ten", the dearest first.

    rows: of ablation.json. The points are the mean of the differences in pairs. Three
    differences say little about their own spread, so it is pooled over the arms but for
    those of 2012; where an arm's own is larger, that one counts.
    """
    (_, whole), *arms = pairs(rows)
    gains = {arm: [runs[at][key] - whole[at][key] for at in runs] for arm, runs in arms}
    spread = {arm: statistics.variance(found) for arm, found in gains.items()}
    degrees = {arm: len(found) - 1 for arm, found in gains.items() if "2012" not in arm}
    squares = sum(spread[arm] * number for arm, number in degrees.items())
    pooled = squares / max(sum(degrees.values()), 1)
    found = {
        arm: (statistics.mean(gain), (max(pooled, spread[arm]) / len(gain)) ** 0.5)
        for arm, gain in gains.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def table(rows):
    """Returns the effects of all arms with three pairs or more as Markdown."""
    lines = [
        "| changed | rate | pairs | centre crop | ten crops | lost in the paper |",
        "|---" * 6 + "|",
    ]
    of = dict(pairs(rows))
    whole = of[WHOLE].values()
    for device in sorted({row["device"] for row in whole}):
        chosen = [row for row in whole if row["device"] == device]
        centre, ten = (statistics.mean(r[key] for r in chosen) for key in ("centre", "ten"))
        texts = f"x {chosen[0]['factor']:g} | {len(chosen)} | {centre:.2f}% | {ten:.2f}%"
        lines.append(f"| {WHOLE}, {device} | {texts} | |")
    of_ten = effects(rows, "ten")
    for arm, of_centre in effects(rows, "centre").items():
        rate = ", ".join(sorted({f"x {row['factor']:.3g}" for row in of[arm].values()}))
        texts = ["{:+.2f} ± {:.2f}".format(*effect) for effect in (of_centre, of_ten[arm])]
        cells = [arm, rate, str(len(of[arm])), *texts, PAPER.get(arm, "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def for_notebook(rows):
    """Returns {arm: [points lost, standard error]} at the centre, the dearest last."""
    lost = {}
    for arm, (change, error) in reversed(effects(rows, "centre").items()):
        paper = f" (paper: {PAPER[arm]})" if arm in PAPER else ""
        lost[arm + paper] = [round(-change, 2), round(error, 2)]
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=5, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--device", default="CPU", help="name of what it trains on")
    parser.add_argument("arms", nargs="*", help="names of arms; all, if none")
    arguments = parser.parse_args()
    unknown = set(arguments.arms) - set(CHANGES)
    if unknown or GRID_SEED in arguments.seeds:
        parser.error(f"arms: {list(CHANGES)}; seeds: any but {GRID_SEED}")
    done = Rows(arguments.out.resolve(), arguments.epochs, arguments.device)
    if {row["epochs"] for row in done.rows} - {arguments.epochs, arguments.epochs / 2}:
        parser.error(f"{arguments.out} holds trainings of another length; name another")
    os.chdir(search.HERE.parent.parent)
    for arm in dict.fromkeys([WHOLE, *(arguments.arms or CHANGES)]):
        factor = done.best_factor(arm if arm in OWN_RATE else WHOLE)
        for seed in arguments.seeds:
            done.get(arm, factor, seed)
    print(table(done.rows), for_notebook(done.rows), sep="\n\n")


if __name__ == "__main__":
    main()
