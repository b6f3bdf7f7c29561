"""The neural candidate: a small Keras network on JAX, an optional extra. It must never be imported where Keras may be
missing, nor see a row that is held out: it is trained for a fixed number of epochs.

A line runs beside the hidden layers, as in a wide-and-deep network (Cheng et al., 2016), and the hidden part begins at
zero: training starts from a linear model and bends it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HIDDEN_LAYERS = 32, 2
EPOCHS, BATCH_ROWS = 60, 128
LEARNING_RATE = 6e-3
WEIGHT_DECAY = 0.2
"""Keeps the hidden part from inventing bends where there are few customers: without it, the largest ones were off by
percents, and they make up most of the variance."""
PREDICT_ROWS = 4096
LIBRARIES = ("keras", "jax")
MISSING = (
    "the neural network is left out, since Keras and JAX are not installed: `.venv/bin/python -m pip install "
    "--require-hashes -r locks/keras.txt` adds them"
)


def keras_is_installed() -> bool:
    """Whether the extra is there; nothing is imported."""
    return all(find_spec(name) is not None for name in LIBRARIES)


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network from rows (n, columns) to numbers (n,)."""

    predict: Callable[[Floats], Floats]
    """By Keras itself."""
    hidden: tuple[tuple[Floats, Floats], ...]
    """(weights (in, out), biases (1, out)) of each hidden layer, each followed by max(0, x)."""
    last: tuple[Floats, Floats]
    """Weights (width, 1) and bias (1, 1) of the last layer."""
    beside: Floats
    """Weights (columns, 1) of the line that runs beside the hidden layers."""


def _keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"  # read by Keras when it is first imported
    return import_module("keras")


def train_network(rows: Floats, target: Floats, seed: int) -> Network:
    """Fit to rows (n, columns) and targets (n,) of about unit variance, by mean squared error."""
    keras = _keras()
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((rows.shape[1],))
    hidden = inputs
    layers = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(HIDDEN_LAYERS)]
    for layer in layers:
        hidden = layer(hidden)
    last, beside = keras.layers.Dense(1, kernel_initializer="zeros"), keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, keras.layers.Add()([last(hidden), beside(inputs)]))
    steps = EPOCHS * -(-len(rows) // BATCH_ROWS)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY), loss="mse")
    model.fit(rows.astype(np.float32), target.astype(np.float32), epochs=EPOCHS, batch_size=BATCH_ROWS, verbose=0)

    def predict(asked: Floats) -> Floats:
        found = model.predict(asked.astype(np.float32), batch_size=PREDICT_ROWS, verbose=0)
        return np.asarray(found, dtype=np.float64).reshape(len(asked))

    return Network(predict, tuple(map(_weights, layers)), _weights(last), _weights(beside)[0])


def _weights(layer: Any) -> tuple[Floats, Floats]:
    kernel, *bias = (np.asarray(each, dtype=np.float64) for each in layer.get_weights())
    return kernel, np.atleast_2d(bias[0]) if bias else np.zeros((1, kernel.shape[1]))
