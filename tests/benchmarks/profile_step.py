"""Where does the time of one training step go? Run it on an otherwise idle machine.

    python tests/benchmarks/profile_step.py

prints the speed of a large matrix product (what the processor can do), the time of a step
of the notebook's network, and the operations of TensorFlow's profiler, by layer and kind.
"""

import collections
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]

from notebook_cells import (  # isort: skip  # noqa: E402, before TensorFlow
    code_cells_by_id,
    notebook_functions,
    read_notebook,
)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from contenders import multiply_adds, this_notebook  # noqa: E402

KINDS = {  # what an operation's name holds: what to call it; the first that fits
    "kernel_muon": "optimizer, with Muon's matrix products",
    "Conv2DBackpropFilter": "convolution, gradient of the kernels",
    "Conv2DBackpropInput": "convolution, gradient of the inputs",
    "Conv2D": "convolution, forward",
    "MatMul": "dense layers",
    "Pool": "pools",
    "norm": "normalisation",
    "re_lu": "ReLU",
    "dropout": "dropout",
    "": "everything else",
}


def seconds_of(function, count=20):
    """Returns the mean wall-clock and CPU seconds of a call, after three calls."""
    for _ in range(3):
        function()
    begin, begin_cpu = time.time(), time.process_time()
    for _ in range(count):
        function()
    return (time.time() - begin) / count, (time.process_time() - begin_cpu) / count


def operations(function):
    """Yields name and milliseconds of each operation that a call runs on the CPU."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

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
    nb = notebook_functions(code_cells_by_id(read_notebook()))
    matrix = tf.random.normal((4096, 4096))
    product, _ = seconds_of(lambda: tf.matmul(matrix, matrix).numpy())
    print(f"matrix product: {2 * 4096**3 / product / 1e9:.0f} GFLOP/s")

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2560, 32, 32, 3), dtype="uint8")
    contender = this_notebook(nb, images, rng.integers(0, 10, 2560))
    contender.compile(1000)
    model, (x, y) = contender.model, next(iter(contender.batches()))
    wall, cpu = seconds_of(lambda: model.train_on_batch(x, y))
    work = 3 * 2 * len(x) * multiply_adds(model)
    print(f"a step of {len(x)} images: {wall:.3f} s, {cpu:.3f} CPU s", end=", ")
    print(f"{work / wall / 1e9:.0f} GFLOP/s in forward and backward")

    layers, kinds = collections.Counter(), collections.Counter()
    for _ in range(5):
        for name, milliseconds in operations(lambda: model.train_on_batch(x, y)):
            kind = next(text for key, text in KINDS.items() if key in name)
            kinds[kind] += milliseconds / 5
            for layer, *_ in nb.describe(model):  # convolutions, pools, dense layers
                if f"/{layer}/" in name or f"/{layer}_" in name:
                    layers[layer] += milliseconds / 5
    for title, times in (("by layer", layers), ("by kind", kinds)):
        print(f"\n{title}, ms a step (operations run side by side on the cores)")
        for name, milliseconds in times.most_common(10):
            print(
                f"{milliseconds:8.1f}  {100 * milliseconds / kinds.total():4.0f}%  {name}"
            )


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main()
