"""How does the cost of training grow? With images, width, side, and devices.

    python tests/benchmarks/cost.py

trains the notebook's network for a few steps on random pixels, in a process of its own for
each case: with fewer images, half and twice as wide, on larger images, and on a processor
that TensorFlow splits into two and four devices. It writes cost.json beside this file and
the table in the README there. Run it on an otherwise idle machine (ten minutes).
"""

import json
import time

import common
import keras
import numpy as np
import tensorflow as tf

RESULTS = common.HERE / "cost.json"
AS_IT_IS = {"images": common.TRAINING, "width": 1, "side": 28, "devices": 1}
OTHERS = {"images": (5_000, 15_000), "width": (0.5, 2), "side": (42, 56), "devices": (2, 4)}
UNITS = {"images": "training images", "width": "times the width", "side": "pixels a side"}


def build(nb, width, side):
    """Returns the notebook's network, `width` times as wide, for side x side pixels."""
    conv_block, dense_block = nb.conv_block, nb.dense_block
    nb.conv_block = lambda name, n, pool=None: conv_block(name, round(width * n), pool)
    nb.dense_block = lambda name, n: dense_block(name, round(width * n))
    copies = [layer.from_config(layer.get_config()) for layer in nb.build_alexnet().layers]
    return keras.Sequential([keras.Input((side, side, 3)), *copies])


def enlarge(nb, side):
    """Lets the notebook's batches have images of side x side pixels."""
    augmentation, larger = nb.augmentation, nb.layers.Resizing(side, side)
    nb.augmentation = lambda seed: nb.layers.Pipeline([augmentation(seed), larger])


def measure(images, width, side, devices, steps=15):
    """Trains for a few steps. Returns arithmetic, relative speed, and peak memory."""
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = devices * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(processor, parts)
    product = common.product_speed()

    nb, random = common.functions(), np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, 32, 32, 3), dtype="uint8")
    common.normalize(nb, pixels)
    if side != AS_IT_IS["side"]:
        enlarge(nb, side)
    data = nb.make_batches(pixels, random.integers(0, 10, images), seed=0)
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(devices)])
    with strategy.scope():
        model = build(nb, width, side)
        nb.compile_model(model, 1000)
    ends = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.time())
    )
    model.fit(data.take(steps), shuffle=False, verbose=0, callbacks=[note])
    seconds = np.median(np.diff(ends)[2:])
    work = common.multiply_adds(model)
    case = {"images": images, "width": width, "side": side, "devices": devices}
    return case | {
        "multiply_adds": work,
        "parameters": model.count_params(),
        "gflops_of_product": round(product),
        "share": round(float(6 * work * nb.BATCH_SIZE / seconds / 1e9 / product), 2),
        "memory": round(common.peak_memory(), 2),
    }


def what(row):
    """Returns what is special about a case, in words."""
    for key, value in AS_IT_IS.items():
        if row[key] != value:
            return f"{row[key]:,} {UNITS.get(key, key)}"
    return "the notebook as it is"


def table(rows):
    """Returns the measured cases as a table in Markdown."""
    heading = "case | parameters | multiply-adds an image | an epoch | speed | peak memory"
    line = "{what} | {parameters:,} | {work:.0f} million | {epoch:.1f} TFLOP | {share:.2f}"
    lines = []
    for row in rows:
        millions = row["multiply_adds"] / 1e6
        more = {"work": millions, "epoch": 6e-6 * millions * row["images"]}
        lines.append((line + " | {memory:.2f} GiB").format(what=what(row), **row, **more))
    return common.markdown(heading, lines)


def main():
    rows = []
    others = [{key: value} for key, values in OTHERS.items() for value in values]
    for change in [{}, *others]:
        rows.append(common.in_a_process(measure, **AS_IT_IS | change))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    common.write_into_readme({"cost": table(rows)})


if __name__ == "__main__":
    main()
