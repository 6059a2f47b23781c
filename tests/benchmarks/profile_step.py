"""Where does the time of a training run go? Run it on an otherwise idle machine.

    python tests/benchmarks/profile_step.py

trains the notebook's network for two short epochs on random images. It prints how long
`fit` took, how many cores were busy, and its speed as a share of that of a large matrix
product. Then it prints the operations of a training step by kind, as TensorFlow's profiler
sees them.
"""

import collections
import tempfile
from pathlib import Path

import common
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

STEPS, EPOCHS = 15, 2
KINDS = {  # part of an operation's name: what to call it; the first that fits
    "kernel_muon": "optimizer, with Muon's matrix products",
    "Conv2DBackpropFilter": "convolution, gradient of the kernels",
    "Conv2DBackpropInput": "convolution, gradient of the inputs",
    "Conv2D": "convolution, forward",
    "MatMul": "dense layers",
    "Pool": "pools",
    "norm": "normalization",
    "re_lu": "ReLU",
    "dropout": "dropout",
    "": "everything else",
}


def operations(function):
    """Yields name and milliseconds of each operation that a call runs on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        function()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if "CPU" in plane.name and "/" in name and ":" in name:
                    yield name, event.duration_ps / 1e9


def main():
    nb = common.functions()
    data, model = common.random_batches(nb, 4000), nb.build_alexnet()
    nb.compile_model(model, EPOCHS * STEPS)
    x, y = next(iter(data))
    for _ in range(3):  # compiles the step
        model.train_on_batch(x, y)
    meter = common.Meter()
    model.fit(data.take(STEPS), epochs=EPOCHS, shuffle=False, verbose=0)
    measured = meter.stop()
    work = 6 * common.multiply_adds(nb, model) * len(x) * STEPS * EPOCHS
    print(f"fit of {EPOCHS} epochs with {STEPS} steps: {measured}")
    print(f"its speed over the product's: {common.share_of_product(work, measured):.2f}")

    kinds = collections.Counter()
    for name, milliseconds in operations(lambda: model.train_on_batch(x, y)):
        kinds[next(text for key, text in KINDS.items() if key in name)] += milliseconds
    print("\nms a step, by kind (operations run side by side on the cores)")
    for kind, milliseconds in kinds.most_common():
        print(f"{milliseconds:8.1f}  {milliseconds / kinds.total():4.0%}  {kind}")


if __name__ == "__main__":
    main()
