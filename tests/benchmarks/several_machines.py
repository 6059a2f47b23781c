"""Trains the notebook's network on several machines, each with a part of the images.

    python tests/benchmarks/several_machines.py 192.168.0.7:7654 2 0    # on the first
    python tests/benchmarks/several_machines.py 192.168.0.7:7654 2 1    # on the second

The same command on each: address and a free port of the first machine, how many machines
there are, and which one this is. They need `jax` beside the notebook's packages: Keras runs
on JAX, whose runtime connects them, and `keras.distribution` adds up their gradients. The
settings in the environment are the notebook's. In the folder several_machines, the first one
saves the network after each epoch, and each has a log. If one dies, the others end with a
sentence that says so. The same commands again go on after the last epoch that was saved.
"""

import argparse
import importlib.util
import multiprocessing
import os
import sys
from pathlib import Path

import common
import numpy as np

FOLDER = Path("several_machines")
SAVED = FOLDER / "saved.npz"


def restore(variables, index):
    """Gives variables, on all machines, the values that the first one saved, if it did."""
    from jax.experimental import multihost_utils

    values = [np.asarray(variable) for variable in variables]
    if index == 0 and SAVED.exists():
        with np.load(SAVED) as saved:
            values = [saved[name] for name in saved.files]
    for variable, value in zip(variables, multihost_utils.broadcast_one_to_all(values)):
        variable.assign(value)


def save(variables):
    """Saves variables; a half-written file replaces none."""
    new = SAVED.with_suffix(".new.npz")
    np.savez(new, *(np.asarray(variable) for variable in variables))
    new.replace(SAVED)


def train(address, machines, index, log):
    """Trains, as one of so many machines, and prints a line an epoch."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    import jax
    import keras

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(address, machines, index)
    everything = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(everything)

    nb = common.load()
    if nb.BATCH_SIZE % machines:
        sys.exit(f"{nb.BATCH_SIZE} images of a batch cannot be shared by {machines}.")
    nb.BATCH_SIZE //= machines
    steps = len(nb.x_train) // machines // nb.BATCH_SIZE  # the same on all
    keras.utils.set_random_seed(nb.SEED)
    model = nb.build_alexnet()
    nb.compile_model(model, nb.EPOCHS * steps)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    restore(variables, index)
    done = int(model.optimizer.iterations) // steps
    print(f"machine {index} of {machines}: {done} epochs are done", flush=True)

    def after_epoch(epoch, logs):
        if index == 0:
            save(variables)
        print(f"epoch {epoch + 1}: loss {logs['loss']:.3f}", flush=True)

    mine = slice(index, None, machines)
    # one seed for all: Keras keeps it in a variable, and variables are equal everywhere
    data = nb.make_batches(nb.x_train[mine], nb.y_train[mine], seed=nb.SEED + done)
    each_epoch = keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)
    options = {"shuffle": False, "verbose": 0, "callbacks": [each_epoch]}
    model.fit(data.take(steps), epochs=nb.EPOCHS, initial_epoch=done, **options)
    mine = slice(index, len(nb.x_val) - len(nb.x_val) % machines, machines)
    views = nb.make_batches(nb.center_crop(nb.x_val[mine]), nb.y_val[mine])
    right = model.evaluate(views, verbose=0)[1]
    print(f"{right:.1%} of the validation images right", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="of the first machine, with a free port")
    parser.add_argument("machines", type=int, help="how many there are")
    parser.add_argument("index", type=int, help="which one this is, from 0")
    a = parser.parse_args()
    if not 0 <= a.index < a.machines:
        parser.error(f"the index of one of {a.machines} is from 0 to {a.machines - 1}")
    if not importlib.util.find_spec("jax"):
        parser.error("JAX is needed: .venv/bin/pip install jax==0.10.2")
    FOLDER.mkdir(exist_ok=True)
    log = FOLDER / f"machine_{a.index}.log"
    os.environ["KERAS_BACKEND"] = "jax"
    # JAX ends the whole process where another machine is lost, so it gets one of its own
    arguments = a.address, a.machines, a.index, log
    process = multiprocessing.get_context("spawn").Process(target=train, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(
            f"The training ended early, here or on another machine (why: {log}). Run the "
            "command again on all: it goes on after the last saved epoch."
        )


if __name__ == "__main__":
    main()
