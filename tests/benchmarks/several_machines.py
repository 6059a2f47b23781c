"""Trains the notebook's network on several machines, each with a part of the images.

    python tests/benchmarks/several_machines.py 192.168.0.7:7654 2 0    # on the first
    python tests/benchmarks/several_machines.py 192.168.0.7:7654 2 1    # on the second

The same command on each: address and a free port of the first machine, how many machines
there are, and which one this is. They need `jax` beside the notebook's packages: Keras runs
on JAX, whose runtime connects them, and `keras.distribution` adds up their gradients. The
first machine saves the network after each epoch, and each has a log in its folder. If one
dies, the others end with a sentence that says so. The same commands again go on after the
last epoch that was saved. With DIGITS=1 in the environment they train on scikit-learn's
digits, which takes a minute.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import common
import numpy as np


def restored(model, file, index):
    """Gives a model what the first machine saved. Returns the number of epochs done."""
    from jax.experimental import multihost_utils

    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    values, done = [np.asarray(variable) for variable in variables], np.int32(0)
    if index == 0 and file.exists():
        with np.load(file) as saved:
            *values, done = (saved[name] for name in saved.files)
    done, values = multihost_utils.broadcast_one_to_all((done, values))
    for variable, value in zip(variables, values):
        variable.assign(value)
    return int(done)


def save(model, file, epochs):
    """Saves all variables and the number of epochs; a half-written file replaces none."""
    variables = [*model.variables, *model.optimizer.variables]
    new = file.with_suffix(".new.npz")
    np.savez(new, *(np.asarray(variable) for variable in variables), np.int32(epochs))
    new.replace(file)


def work(address, machines, index, epochs, file):
    """Trains, as one of so many machines, and prints a line an epoch."""
    import jax
    import keras
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # TensorFlow only prepares the batches
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(address, machines, index)
    everything = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(everything)

    nb, (x, x_val, y, y_val), _ = common.load(digits=bool(os.environ.get("DIGITS")))
    if nb.BATCH_SIZE % machines:
        sys.exit(f"{nb.BATCH_SIZE} images of a batch cannot be shared by {machines}.")
    nb.BATCH_SIZE //= machines
    steps = len(x) // machines // nb.BATCH_SIZE  # the same on all
    keras.utils.set_random_seed(nb.SEED)
    model = nb.build_alexnet()
    nb.compile_model(model, epochs * steps)
    done = restored(model, file, index)
    print(f"machine {index} of {machines}: {done} epochs are done", flush=True)

    def after_epoch(epoch, logs):
        if index == 0:
            save(model, file, epoch + 1)
        print(f"epoch {epoch + 1}: loss {logs['loss']:.3f}", flush=True)

    mine = slice(index, None, machines)
    # one seed for all: Keras keeps it in a variable, and variables are equal everywhere
    data = nb.make_batches(x[mine], y[mine], seed=nb.SEED + done)
    each_epoch = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    options = {"shuffle": False, "verbose": 0, "callbacks": [each_epoch]}
    model.fit(data.take(steps), epochs=epochs, initial_epoch=done, **options)
    mine = slice(index, len(x_val) - len(x_val) % machines, machines)
    views = nb.make_batches(nb.center_crop(x_val[mine]), y_val[mine])
    right = model.evaluate(views, verbose=0)[1]
    print(f"{right:.1%} of the validation images right", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="of the first machine, with a free port")
    parser.add_argument("machines", type=int, help="how many there are")
    parser.add_argument("index", type=int, help="which one this is, from 0")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("several_machines"))
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if not 0 <= a.index < a.machines:
        parser.error(f"the index of one of {a.machines} is from 0 to {a.machines - 1}")
    if not importlib.util.find_spec("jax"):
        parser.error("JAX is needed: .venv/bin/pip install jax==0.10.2")
    if a.work:
        return work(a.address, a.machines, a.index, a.epochs, a.folder / "saved.npz")
    a.folder.mkdir(exist_ok=True)
    log = a.folder / f"machine_{a.index}.log"
    command = [sys.executable, __file__, *sys.argv[1:], "--work"]
    with log.open("w", encoding="utf-8") as file:
        environment = os.environ | {"KERAS_BACKEND": "jax"}
        code = subprocess.run(command, env=environment, stderr=file).returncode
    if code:
        sys.exit(
            f"The training ended early, here or on another machine (why: {log}). Run the "
            "command again on all: it goes on after the last saved epoch."
        )


if __name__ == "__main__":
    main()
