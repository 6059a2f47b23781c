"""The contenders of time_to_accuracy.py: five networks, each with its own recipe.

Each function takes the notebook's functions with its images, as common.load() returns them,
and returns a Contender. A recipe with a schedule is told how many steps fit into the time. A
recipe with a constant learning rate runs until the time is over. The batches are the
notebook's, with the size and the augmentation of the recipe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SEED = 2012


@dataclass
class Contender:
    """A model with its recipe. One without a schedule is compiled already."""

    model: keras.Model
    predict: Callable  # images -> (n, 10) scores, with the recipe's own test-time averaging
    batches: Callable  # () -> a tf.data.Dataset of one epoch or more, new each time it is read
    compile: Callable | None = None  # steps -> None, with a schedule for so many


def epoch(nb):
    """Returns the batches of an epoch, by the notebook's pipeline."""
    return nb.make_batches(nb.x_train, nb.y_train, seed=SEED)


def this_notebook(nb):
    """The notebook's network and recipe, from its own cells."""
    model = nb.build_alexnet()
    predict = partial(nb.predict_ten_crops, model)
    return Contender(model, predict, partial(epoch, nb), partial(nb.compile_model, model))


def constant_rate(nb, stages, size, optimizer):
    """A tutorial's recipe: a constant learning rate and no augmentation."""
    nb.BATCH_SIZE, nb.augmentation = size, lambda seed: layers.Identity()
    model = keras.Sequential([keras.Input((32, 32, 3)), *stages])
    model.compile(optimizer, "categorical_crossentropy")
    return Contender(model, partial(nb.predict, model), partial(epoch, nb))


def tensorflow_tutorial(nb):
    """The CNN of https://www.tensorflow.org/tutorials/images/cnn: Adam, batches of 32."""
    stages = [layers.Rescaling(1 / 255), layers.Conv2D(32, 3, activation="relu")]
    for _ in range(2):
        stages += [layers.MaxPooling2D(2), layers.Conv2D(64, 3, activation="relu")]
    stages += [layers.Flatten(), layers.Dense(64, activation="relu")]
    stages.append(layers.Dense(10, activation="softmax"))
    return constant_rate(nb, stages, 32, keras.optimizers.Adam())


def published_stages(first, pool):
    """AlexNet at full width, without groups, with batch normalization.

    Batch normalization follows the ReLU here, as it mostly does in tutorials.
    """

    def block(kernels, size):
        convolution = layers.Conv2D(kernels, size, padding="same", activation="relu")
        return [convolution, layers.BatchNormalization()]

    stages = [first, layers.BatchNormalization(), layers.MaxPooling2D(pool, 2)]
    stages += [*block(256, 5), layers.MaxPooling2D(3, 2), *block(384, 3), *block(384, 3)]
    stages += [*block(256, 3), layers.MaxPooling2D(3, 2), layers.Flatten()]
    for _ in range(2):
        stages += [layers.Dense(4096, activation="relu"), layers.Dropout(0.5)]
    return [*stages, layers.Dense(10, activation="softmax")]


def alexnet_32(nb):
    """AlexNet as tutorials fit it to 32 x 32 pixels: only the first layer is changed.

    After http://cswithjames.com/keras-9-1-buildtrain-alexnet-cifar10-dataset-keras/ (first
    kernels 3 x 3, stride 2; all widths as published); Adam at its default learning rate.
    """
    first = layers.Conv2D(96, 3, strides=2, padding="same", activation="relu")
    stages = [layers.Rescaling(1 / 255), *published_stages(first, 2)]
    return constant_rate(nb, stages, 128, keras.optimizers.Adam())


def alexnet_227(nb):
    """AlexNet on images enlarged to 227 x 227: SGD at a learning rate of 0.001.

    The recipe of many tutorials, for one
    https://github.com/keshavsingh4522/hacktoberfest/blob/master/Python/alexnet_architecture.py
    """
    first = layers.Conv2D(96, 11, strides=4, activation="relu")
    enlarge = [layers.Resizing(227, 227), layers.Rescaling(1 / 255)]
    stages = [*enlarge, *published_stages(first, 3)]
    return constant_rate(nb, stages, 32, keras.optimizers.SGD(0.001))


# airbench94, written anew in Keras after https://arxiv.org/abs/2404.00498 and
# https://github.com/KellerJordan/cifar10-airbench (94.0% in 9.9 epochs of 50,000 images).
AIRBENCH_BATCH = 1024
AIRBENCH_EPOCHS = 9.9
BIAS_SCALER = 64  # the learning rate of the normalizations' biases over the weights'
MOMENTUM = 0.85
SCALE = 1 + 1 / (1 - MOMENTUM)
RATE = 11.5 / SCALE  # for the mean of the loss over a batch
DECAY = 0.0153 / SCALE


class Bias(layers.Layer):
    """A trainable bias for each channel."""

    def __init__(self, start="zeros", **options):
        super().__init__(**options)
        self.start = start

    def build(self, shape):
        self.bias = self.add_weight(shape=shape[-1:], initializer=self.start, name="bias")

    def call(self, inputs):
        return inputs + self.bias


class Triangle(keras.optimizers.schedules.LearningRateSchedule):
    """From a fifth of the peak up to all of it at 23% of the steps, then down to 7%."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        done = keras.ops.cast(step, "float32") / self.steps
        up = 0.2 + 0.8 * done / 0.23
        down = 1 - 0.93 * (done - 0.23) / 0.77
        return self.peak * keras.ops.minimum(up, down)


class AirbenchSGD(keras.optimizers.SGD):
    """SGD with PyTorch's weight decay, and two kinds of biases that learn in another way."""

    def __init__(self, steps):
        super().__init__(Triangle(RATE, steps), MOMENTUM, nesterov=True)
        self.whiten_steps = steps * 3 / AIRBENCH_EPOCHS

    def apply(self, gradients, variables=None):
        whitens = keras.ops.cast(self.iterations < self.whiten_steps, "float32")
        changed = []
        for gradient, variable in zip(gradients, variables):
            scale = BIAS_SCALER if variable.path.endswith("beta") else 1
            gradient = scale * gradient + DECAY / RATE * variable
            changed.append(whitens * gradient if "whiten" in variable.path else gradient)
        super().apply(changed, variables)


class Airbench(keras.Sequential):
    """The network with its loss, its optimizer, and Lookahead."""

    def prepare(self, steps):
        """Compiles the model for so many steps."""
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
        self.compile(AirbenchSGD(steps), loss)
        self.steps = steps
        self.slow = [(w.value, tf.Variable(w.value)) for w in self.weights]

    def train_step(self, data):
        logs = super().train_step(data)
        step = tf.cast(self.optimizer.iterations.value, "float32")

        def look_ahead():  # pulls the weights back to their slow average
            keep = tf.where(step >= self.steps, 1.0, 0.95**5 * (step / self.steps) ** 3)
            for fast, slow in self.slow:
                fast.assign(slow.assign(keep * slow + (1 - keep) * fast))
            return 0

        tf.cond((step % 5 == 0) | (step >= self.steps), look_ahead, lambda: 0)
        return logs


def uniform():
    """PyTorch's default initialization of convolutions and dense layers."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class Dirac(keras.initializers.Initializer):
    """PyTorch's uniform kernels, but the first ones pass their input channel on."""

    def __call__(self, shape, dtype=None):
        kernel = np.array(uniform()(shape))
        size, _, inputs, outputs = shape
        passed = np.arange(min(inputs, outputs))
        kernel[..., passed] = 0
        kernel[size // 2, size // 2, passed, passed] = 1
        return keras.ops.convert_to_tensor(kernel, dtype)


def group(width):
    """Convolution, pool, normalization, GELU; then the same without the pool."""
    convolution = {"padding": "same", "use_bias": False, "kernel_initializer": Dirac()}
    norm = {"momentum": 0.6, "epsilon": 1e-12, "scale": False}
    stages = []
    for pool in ([layers.MaxPooling2D(2)], []):
        stages += [layers.Conv2D(width, 3, **convolution), *pool]
        stages += [layers.BatchNormalization(**norm), layers.Activation("gelu")]
    return stages


def airbench94(nb):
    """airbench94: whitened first layer, alternating flips, Lookahead, triangular rate."""
    nb.BATCH_SIZE, nb.augmentation = AIRBENCH_BATCH, airbench_augmentation
    pixels = (nb.x_train[:5000] - nb.pixel_mean) / nb.pixel_std
    patches = np.reshape(keras.ops.image.extract_patches(pixels, 2, strides=1), (-1, 12))
    values, vectors = np.linalg.eigh(patches.T @ patches / len(patches))
    whitening = (vectors / np.sqrt(values + 5e-4)).reshape(2, 2, 3, 12)

    normalize = layers.Normalization(mean=nb.pixel_mean, variance=nb.pixel_std**2)
    whiten = layers.Conv2D(24, 2, use_bias=False, trainable=False, name="fixed")
    stages = [normalize, whiten, Bias(name="whiten_bias"), layers.Activation("gelu")]
    stages += [*group(64), *group(256), *group(256), layers.MaxPooling2D(3), layers.Flatten()]
    stages.append(layers.Dense(10, use_bias=False, kernel_initializer=uniform()))
    model = Airbench([keras.Input((32, 32, 3)), *stages, layers.Rescaling(1 / 9)])
    whiten.set_weights([np.concatenate([whitening, -whitening], axis=-1)])
    predict = partial(predict_airbench, nb, model)
    return Contender(model, predict, partial(two_epochs, nb), model.prepare)


def airbench_augmentation(seed):
    """Returns what moves (n, 32, 32, 3) images by up to 2 pixels, with mirrored borders."""
    shift = layers.RandomTranslation(2.5 / 36, 2.5 / 36, interpolation="nearest", seed=seed)
    move = layers.Pipeline([shift, layers.CenterCrop(32, 32)])
    border = [[0, 0], [2, 2], [2, 2], [0, 0]]
    return lambda images, training: move(tf.pad(images, border, "REFLECT"), training=training)


def two_epochs(nb):
    """Returns batches with each image mirrored in one epoch; they are all full."""
    images, count = nb.x_train, len(nb.x_train) // nb.BATCH_SIZE
    is_first = np.random.default_rng(SEED).random((len(images), 1, 1, 1)) < 0.5
    first, second = (
        nb.make_batches(np.where(turned, images[:, :, ::-1], images), nb.y_train, seed).take(count)
        for turned, seed in ((is_first, SEED), (~is_first, SEED + 1))
    )
    return first.concatenate(second)


def predict_airbench(nb, model, images):
    """Scores over six views: the image, half of the weight, two shifts, all mirrored."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    views = [images, padded[:, :32, :32], padded[:, 2:, 2:]]
    scores = [nb.predict(model, x) + nb.predict(model, x[:, :, ::-1]) for x in views]
    return np.average(scores, axis=0, weights=[2, 1, 1])


CONTENDERS = {
    "this notebook": this_notebook,
    "airbench94, in Keras": airbench94,
    "AlexNet at full width, 32 x 32": alexnet_32,
    "TensorFlow's CNN tutorial": tensorflow_tutorial,
    "AlexNet on images of 227 x 227": alexnet_227,
}
