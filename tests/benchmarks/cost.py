"""How does the cost of training grow? With images, width, side, and devices.

    python tests/benchmarks/cost.py

trains the notebook's network for a few steps on random pixels, in a process of its own for
each case: with fewer images, half and twice as wide, on larger images, and on a processor
that TensorFlow splits into two and four devices. It writes cost.json beside this file and
the table in the README there. Run it on an otherwise idle machine (ten minutes).
"""

import time

import common
import keras
import numpy as np
import tensorflow as tf

RESULTS = common.HERE / "cost.json"
STEPS = 15
CASES = {  # what is another one than in the notebook
    "the notebook as it is": {},
    "5,000 training images": {"images": 5_000},
    "15,000 training images": {"images": 15_000},
    "0.5 times the width": {"width": 0.5},
    "2 times the width": {"width": 2},
    "42 pixels a side": {"side": 42},
    "56 pixels a side": {"side": 56},
    "2 devices": {"devices": 2},
    "4 devices": {"devices": 4},
}


def build(nb, width, side):
    """Returns the notebook's network, `width` times as wide, for side x side pixels."""
    conv_block, dense_block = nb.conv_block, nb.dense_block
    nb.conv_block = lambda name, n, pool=None: conv_block(name, round(width * n), pool)
    nb.dense_block = lambda name, n: dense_block(name, round(width * n))
    copies = [layer.from_config(layer.get_config()) for layer in nb.build_alexnet().layers]
    return keras.Sequential([keras.Input((side, side, 3)), *copies])


def measure(images=common.TRAINING, width=1, side=28, devices=1):
    """Trains for a few steps. Returns arithmetic, relative speed, and peak memory."""
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = devices * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(processor, parts)
    nb, strategy = common.functions(), tf.distribute.get_strategy()
    nb.BATCH_SIZE -= nb.BATCH_SIZE % devices  # an equal part for each
    if side != 28:
        crop, larger = nb.augmentation, keras.layers.Resizing(side, side)
        nb.augmentation = lambda seed: keras.layers.Pipeline([crop(seed), larger])
    if devices > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(devices)])
    with strategy.scope():
        model = build(nb, width, side)
        nb.compile_model(model, 1000)
    data, ends = common.random_batches(nb, images), []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.time())
    )
    meter = common.Meter()
    model.fit(data.take(STEPS), shuffle=False, verbose=0, callbacks=[note])
    step = meter.stop() | {"seconds": float(np.median(np.diff(ends)[2:]))}
    work = common.multiply_adds(nb, model)
    case = {"images": images, "width": width, "side": side, "devices": devices} | step
    return case | {
        "multiply_adds": work,
        "parameters": model.count_params(),
        "share": round(common.share_of_product(6 * work * nb.BATCH_SIZE, step), 2),
        "memory": round(common.peak_memory(), 2),
    }


def table(rows):
    """Returns the measured cases as a table in Markdown."""
    heading = "case | parameters | multiply-adds an image | an epoch | speed | peak memory"
    lines = []
    for name, row in zip(CASES, rows, strict=True):
        work, epoch = row["multiply_adds"], 6 * row["multiply_adds"] * row["images"]
        line = f"{name} | {row['parameters']:,} | {work / 1e6:.0f} million"
        line += f" | {epoch / 1e12:.1f} TFLOP | {row['share']:.2f} | {row['memory']:.2f} GiB"
        lines.append(line)
    return common.markdown(heading, lines)


def main():
    rows = []
    for name, changes in CASES.items():
        rows.append(common.in_a_process(measure, **changes))
        print(name, rows[-1], flush=True)
    common.write(RESULTS, rows)
    common.write_into_readmes({"cost": table(rows)})


if __name__ == "__main__":
    main()
