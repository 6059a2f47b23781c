"""How does the cost of a training grow? With images, width, side and devices.

    python tests/benchmarks/cost.py

trains the notebook's network for a few steps on random pixels, in a process of its own for
each case: with fewer images, half and twice as wide, on larger pictures, and on a processor
that TensorFlow splits into two and four devices. It writes cost.json beside this file, the
table of it and what follows for the AlexNet of 2012 into the README there, and a chart. Run
it on an otherwise idle machine (ten minutes).
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = HERE / "cost.json"
FIGURE = ROOT / ".github" / "cost.png"
sys.path += [str(HERE), str(HERE.parent)]

from notebook_cells import (  # noqa: E402, before TensorFlow
    code_cells_by_id,
    notebook_functions,
    read_notebook,
)
from search import in_a_process  # noqa: E402
from seeds import filled  # noqa: E402

AS_IT_IS = {"images": 45_000, "width": 1, "side": 28, "devices": 1}
OTHERS = [
    ("images", 5_000),
    ("images", 15_000),
    ("width", 0.5),
    ("width", 2),
    ("side", 42),
    ("side", 56),
    ("devices", 2),
    ("devices", 4),
]
UNITS = {"images": "training images", "width": "times the width", "side": "pixels a side"}
PAPER = {"images": 1_200_000, "epochs": 90}  # section 5
ITS_CARDS = "two NVIDIA GTX 580, 32 bits"
PEAKS = {  # in TFLOP/s, as NVIDIA's data sheets have them, dense
    ITS_CARDS: 3.16,
    "NVIDIA T4, 32 bits": 8.1,
    "NVIDIA H100 SXM, 32 bits": 67,
    "NVIDIA H100 SXM, TF32 on its tensor cores": 494,
}
SHARES = (0.3, 0.6)  # of the peak, to reckon with


def at_width(nb, factor):
    """Multiplies the kernels and units of the notebook's hidden layers."""
    convolution, hidden = nb.convolution, nb.hidden

    def wider_convolution(name, kernels, pool=None):
        return convolution(name, round(factor * kernels), pool)

    nb.convolution = wider_convolution
    nb.hidden = lambda name, units: hidden(name, round(factor * units))


def at_side(nb, side):
    """Enlarges each crop, so that the network sees side x side pixels."""
    import tensorflow as tf

    crop = nb.augment
    nb.augment = lambda images, seed: tf.image.resize(crop(images, seed), (side, side))


def build(nb, width, side):
    """Returns the notebook's network, wider, for pictures of another size."""
    at_width(nb, width)
    crop, nb.CROP = nb.CROP, side
    model = nb.build_alexnet(nb.layers.Normalization(mean=128, variance=64**2))
    nb.CROP = crop
    return model


def measure(images, width, side, devices, steps=15):
    """Trains for a few steps. Returns arithmetic, relative speed and peak memory."""
    import keras
    import numpy as np
    import tensorflow as tf
    from contenders import multiply_adds
    from profile_step import seconds_of

    processor = tf.config.list_physical_devices("CPU")[0]
    parts = devices * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(processor, parts)
    matrix = keras.random.normal((4096, 4096))
    product, _ = seconds_of(lambda: keras.ops.matmul(matrix, matrix).numpy(), 8)

    nb = notebook_functions(code_cells_by_id(read_notebook()))
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(devices)])
    with strategy.scope():
        model = build(nb, width, side)
        nb.compile_model(model, nb.PEAK_RATE, 1000)
    if side != nb.CROP:
        at_side(nb, side)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3), dtype="uint8")
    data = nb.training_batches(pixels, random.integers(0, 10, images), 0)
    ends = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.time())
    )
    model.fit(data.take(steps), shuffle=False, verbose=0, callbacks=[note])
    seconds = np.median(np.diff(ends)[2:])
    work = multiply_adds(model)
    peak = 2 * 4096**3 / product
    return {
        "images": images,
        "width": width,
        "side": side,
        "devices": devices,
        "multiply_adds": work,
        "parameters": model.count_params(),
        "gflops_of_product": round(peak / 1e9),
        "share": round(float(6 * work * nb.BATCH_SIZE / seconds / peak), 2),
        "memory": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def what(row):
    """Returns what is special about a case, in words."""
    for key, value in AS_IT_IS.items():
        if row[key] != value:
            return f"{row[key]:,} {UNITS.get(key, key)}"
    return "the notebook as it is"


def table(rows):
    """Returns the measured cases as a table in Markdown."""
    lines = [
        "| | parameters | multiply-adds an image | an epoch | of a matrix product's speed "
        "| peak memory |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        epoch = 6 * row["multiply_adds"] * row["images"] / 1e12
        lines.append(
            f"| {what(row)} | {row['parameters']:,} | {row['multiply_adds'] / 1e6:.0f} "
            f"million | {epoch:.1f} TFLOP | {row['share']:.2f} | {row['memory']:.2f} GiB |"
        )
    return "\n".join(lines)


def days(speed, work):
    """Returns how long so much work takes at a speed in TFLOP/s, as text."""
    hours = work / 1e12 / speed / 3600
    return f"{hours / 24:.1f} days" if hours > 48 else f"{hours:.1f} hours"


def projection(rows, multiply_adds):
    """Returns what AlexNet on ImageNet takes at shares of some peaks, in Markdown."""
    work = 6 * multiply_adds * PAPER["images"] * PAPER["epochs"]
    here = rows[0]["gflops_of_product"] / 1e3
    lines = [
        f"6 x {multiply_adds:,} multiply-adds x {PAPER['images']:,} images x "
        f"{PAPER['epochs']} epochs = {work / 1e15:.0f} PFLOP.",
        "",
        "| | peak | " + " | ".join(f"at {share:.0%} of it" for share in SHARES) + " |",
        "|---" * (2 + len(SHARES)) + "|",
    ]
    peaks = {"this server, its matrix product measured": here} | PEAKS
    for name, peak in peaks.items():
        times = " | ".join(days(share * peak, work) for share in SHARES)
        lines.append(f"| {name} | {peak:.3g} TFLOP/s | {times} |")
    low, high = (work / (d * 24 * 3600e12) / PEAKS[ITS_CARDS] for d in (6, 5))
    lines += ["", f"The paper's five to six days: {low:.0%} to {high:.0%} of their peak."]
    return "\n".join(lines)


def draw(rows, path):
    """Draws memory and relative speed against each of the four sizes."""
    import matplotlib.pyplot as plt

    plt.style.use("tableau-colorblind10")
    figure, axes = plt.subplots(
        2, 4, figsize=(12, 6), sharey="row", sharex="col", layout="constrained"
    )
    for column, key in enumerate(AS_IT_IS):
        rest = {k: v for k, v in AS_IT_IS.items() if k != key}
        line = [row for row in rows if rest.items() <= row.items()]
        line.sort(key=lambda row: row[key])
        for axis, measured in zip(axes[:, column], ("memory", "share")):
            values = [row[measured] for row in line]
            axis.plot([row[key] for row in line], values, "o-")
            axis.grid(alpha=0.3)
        axes[1, column].set(xlabel=UNITS.get(key, key))
    axes[0, 0].set(ylabel="peak memory (GiB)", ylim=(0, None))
    axes[1, 0].set(ylabel="relative speed", ylim=(0, None))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def written_anew(text, rows, multiply_adds):
    """Returns the README with the two blocks of this command made from its figures."""
    blocks = {"cost": table(rows), "imagenet": projection(rows, multiply_adds)}
    return filled(text, blocks)


def work_of_2012():
    """Returns the multiply-adds of the AlexNet of 2012 for one picture."""
    from contenders import multiply_adds

    nb = notebook_functions(code_cells_by_id(read_notebook()))
    return multiply_adds(nb.alexnet_2012())


def main():
    os.chdir(ROOT)
    rows = []
    for change in [{}, *({key: value} for key, value in OTHERS)]:
        rows.append(in_a_process(measure, **AS_IT_IS | change))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    readme = HERE / "README.md"
    readme.write_text(written_anew(readme.read_text(), rows, work_of_2012()))
    draw(rows, FIGURE)


if __name__ == "__main__":
    main()
