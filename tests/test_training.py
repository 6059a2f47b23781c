"""Schedule, optimizer, training, saving; one device, several, and a GPU's kernels."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest


def test_schedule_rises_for_a_fifth_and_ends_at_zero(nb):
    schedule = nb.warmup_cosine(0.5, 1000)
    rates = np.array([float(schedule(step)) for step in range(1002)])
    assert rates[0] == 0 and rates.argmax() == 200
    assert rates[[100, 200, 600]] == pytest.approx([0.25, 0.5, 0.25])
    assert rates[1000:] == pytest.approx(0, abs=1e-7)


def test_weight_decay_of_0005_shrinks_kernels_only(nb, small_model):
    """A step at the peak along a gradient of zero: what changes is decay. And the loss."""
    nb.compile_model(small_model, 10)
    weights, optimizer = small_model.trainable_variables, small_model.optimizer
    for weight in weights:
        weight.assign(np.ones(weight.shape))
    optimizer.build(weights)
    optimizer.iterations.assign(2)  # a fifth of 10
    optimizer.apply([nb.tf.zeros(w.shape) for w in weights])
    for weight in weights:
        expected = 1 - nb.PEAK_RATE * 0.005 if weight.path.endswith("kernel") else 1
        np.testing.assert_allclose(weight, expected, rtol=1e-6, err_msg=weight.path)
    loss = small_model.loss(np.eye(10)[[2]], 0.05 + 0.5 * np.eye(10)[[2]])  # targets 0.91, 0.01
    assert float(loss) == pytest.approx(-0.91 * np.log(0.55) - 0.09 * np.log(0.05), rel=1e-5)


def second_step(optimizer, gradients):
    """What the second of two steps does to a kernel and to a matrix."""
    weights = [keras.Variable(np.zeros(g.shape, "float32")) for g in gradients[0]]
    optimizer.build(weights)
    for step in gradients:
        before = [np.array(weight) for weight in weights]
        optimizer.apply([keras.ops.cast(gradient, "float32") for gradient in step])
    return [np.array(weight - old).reshape(72, 16) for weight, old in zip(weights, before)]


def test_steps_of_convolutions_are_orthogonal_all_others_sgds(nb):
    """Along the directions of SGD's step, about equally far: 0.15 times the learning rate."""
    random, unequal = np.random.default_rng(0), np.linspace(1, 9, 16)
    shapes = (3, 3, 8, 16), (72, 16)
    gradients = [[random.normal(size=s) * unequal for s in shapes] for _ in range(2)]
    settings = {"momentum": 0.9, "nesterov": True}
    kernel, matrix = second_step(nb.KernelMuon(0.5, **settings), gradients)
    sgds_kernel, sgds_matrix = second_step(keras.optimizers.SGD(0.5, **settings), gradients)
    np.testing.assert_allclose(matrix, sgds_matrix, rtol=1e-4)
    left, _, right = np.linalg.svd(sgds_kernel, full_matrices=False)
    along = left.T @ kernel @ right.T / (0.5 * 0.15)
    lengths = along.diagonal()
    assert 0.6 < lengths.min() and lengths.max() < 1.3
    np.testing.assert_allclose(along, np.diag(lengths), atol=0.02)


HEAD = """
import sys
import numpy as np
sys.path.append(sys.argv[1])
from notebook_cells import code_cells_by_id, notebook_functions, read_notebook
code_cells = code_cells_by_id(read_notebook())
nb = notebook_functions(code_cells)
images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype="uint8")
labels = np.repeat(np.arange(10), 30)
nb.pixel_mean, nb.pixel_std = np.full(3, 128.0), np.full(3, 73.5)
nb.loaded = (nb.x_all, nb.y_all), (nb.x_test, nb.y_test) = 2 * [(images, labels)]
exec(code_cells["identify"].source, vars(nb))
"""


def start_python(folder, *parts):
    """Runs code in a process of its own."""
    command = [sys.executable, "-c", "\n".join(parts), Path(__file__).parent]
    subprocess.run(command, cwd=folder, check=True, timeout=300)


TWICE = """
from tensorflow.python.framework.config import is_op_determinism_enabled
def train(seed, read=False):
    data = nb.make_batches(images, labels, seed)
    if read:
        nb.augmentation(1)(images[:7], training=True)
        next(iter(nb.make_batches(images, labels, 1)))
    nb.keras.utils.set_random_seed(seed)
    model = nb.build_alexnet()
    nb.compile_model(model, 4)
    model.fit(data, epochs=2, shuffle=False, verbose=0)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])
assert is_op_determinism_enabled(), "without it, equal runs would be luck"
first, again, other = train(1), train(1, read=True), train(2)
assert (first == again).all() and (first != other).any()
"""


def test_training_twice_gives_the_same_weights_bit_by_bit(tmp_path):
    """In between, views are drawn, as section 4 does, and the data are read once."""
    start_python(tmp_path, HEAD, TWICE)


def test_a_class_can_start_from_the_trained_network(session, nb, images, capsys):
    """And fit run again starts again, from the seed: else the weights would differ."""
    first, second, again = session(), session(), session(START_TRAINED=1)
    assert capsys.readouterr().out.count("Epoch 1/2") == 2
    for a, b in zip(first["model"].weights, second["model"].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.01, atol=0.01)
    loaded = keras.saving.load_model("run.keras")  # KernelMuon is registered
    assert type(loaded.optimizer).__name__ == "KernelMuon" and loaded.optimizer.iterations == 4
    layers = {type(layer).__module__.split(".")[0] for layer in loaded.layers}
    assert layers == {"keras"}  # so other programs can load it
    crops = nb.center_crop(images)
    for model in (again["trained"], loaded):
        np.testing.assert_array_equal(nb.predict(model, crops), nb.predict(second["model"], crops))
    assert again["curves"] == second["curves"]


@pytest.mark.fault
def test_data_sets_are_made_outside_of_the_strategy(code_cells):
    """Inside of it, tf.device("CPU") is ignored: the data would lie on each GPU."""
    trees = [ast.walk(ast.parse(cell.source)) for cell in code_cells.values()]
    blocks = [node for tree in trees for node in tree if isinstance(node, ast.With)]
    scopes = [block for block in blocks if "strategy.scope" in ast.unparse(block.items[0])]
    assert scopes and not any("make_batches" in ast.unparse(block) for block in scopes)


SIMULATED = """
import os
os.environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "NPROC": "8"}
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(8)  # they wait for one another
cpu = tf.config.list_physical_devices("CPU")[0]
each = 4 * [tf.config.LogicalDeviceConfiguration()]
tf.config.set_logical_device_configuration(cpu, each)
"""
SEVERAL = """
labels, losses = np.arange(300) % 5, []
images = (images // 8 + 45 * labels[:, None, None, None]).astype("uint8")
nb.RUN_FILE = "run.keras"
nb.SEED, nb.EPOCHS, nb.PEAK_RATE, nb.DROPOUT = 1, 8, 0.02, 0.0
nb.validation_data = nb.make_batches(nb.center_crop(images[:60]), labels[:60])
for nb.strategy in (nb.tf.distribute.get_strategy(), nb.strategy):
    nb.training_data = nb.make_batches(images, labels, seed=1)
    exec(code_cells["fit"].source, vars(nb))
    assert nb.curves["accuracy"][-1] > 0.9, nb.curves["accuracy"]
    losses.append(nb.curves["loss"][-1])
assert len(nb.devices) == USED and abs(losses[1] / losses[0] - 1) < 1 / 3, losses
"""


@pytest.mark.fault
@pytest.mark.parametrize("batch", [50, pytest.param(60, marks=pytest.mark.slow)])
def test_several_devices_learn_what_one_learns(tmp_path, batch):
    """Four simulated ones, of which as many are used as can share a batch equally: two, or all.

    On TensorFlow each device normalizes its own part of a batch: losses agree to a third.
    """
    head = HEAD.replace("exec(", f"nb.BATCH_SIZE = {batch}\nexec(")
    start_python(tmp_path, SIMULATED, head, SEVERAL.replace("USED", {50: "2", 60: "4"}[batch]))


@pytest.mark.parametrize("idea", [None, "ReLU", "batch normalization", "overlapping pools"])
def test_each_operation_of_a_training_step_has_a_gpu_kernel(nb, small_model, idea):
    """The kernels are registered in the CPU's package too, so no GPU is needed to see this."""
    from tensorflow.python.framework import kernels

    if not nb.tf.test.is_built_with_cuda():
        pytest.skip("this TensorFlow was built without CUDA, so it has no such kernels")
    model = nb.without(small_model, idea) if idea else small_model
    nb.compile_model(model, 10)
    model.optimizer.build(model.trainable_variables)

    def fits(kernel, node):  # "DEFAULT": on any device
        return kernel.device_type in ("GPU", "DEFAULT") and all(
            node.attr[rule.name].type in rule.allowed_values.list.type for rule in kernel.constraint
        )

    # what the data sets give: numbers of training, and raw pixels of validation
    for call, kind in ((model.train_step, "float32"), (model.test_step, "uint8")):
        batch = nb.tf.zeros((8, 28, 28, 3), kind), nb.tf.zeros((8, 10))
        graph = nb.tf.function(call).get_concrete_function(batch).graph.as_graph_def()
        nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
        assert len(nodes) > 50
        for node in nodes:
            registered = kernels.get_registered_kernels_for_op(node.op).kernel
            assert not registered or any(fits(kernel, node) for kernel in registered), node.op
