"""Keras' ConvLSTM layers by their names: the same values as Keras' own, and programs that change one import."""

import os

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

from amstel.interop import keras as ours

pytestmark = pytest.mark.usefixtures("one_thread")


def _pair(name, *args, **options):
    """A layer of ours and Keras' own, made alike."""
    return [getattr(module, name)(*args, **options) for module in (ours, keras.layers)]


def _same(name, x, *args, **options):
    mine, theirs = _pair(name, *args, **options)
    theirs(x)
    mine(x)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.5, w.shape).astype("float32") for w in theirs.get_weights()]
    for layer in (mine, theirs):
        layer.set_weights(weights)
        for state in getattr(layer, "states", None) or []:
            state.assign(torch.zeros(state.shape))
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = mine(leaf), theirs(other)
    found, expected = ([t] if isinstance(t, torch.Tensor) else list(t) for t in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)
    sum(t.square().sum() for t in found).backward()
    sum(t.square().sum() for t in expected).backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-4, atol=1e-4)
    for a, b in zip(mine.trainable_variables, theirs.trainable_variables, strict=True):
        torch.testing.assert_close(a.value.grad, b.value.grad, rtol=1e-4, atol=2e-4)
    return mine, theirs


def _twice(method):
    return lambda *args, **more: 2 * method(*args, **more)


OPTIONS = {
    "default": {},
    "same": {"padding": "same", "return_sequences": True},
    "even kernel": {"kernel_size": (2, 4), "padding": "same"},
    "no bias": {"use_bias": False, "return_state": True},
    "channels first": {"data_format": "channels_first", "return_sequences": True, "return_state": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "last of backwards": {"go_backwards": True},
    "relu": {"activation": "relu", "padding": "same", "return_sequences": True},
    "hard sigmoid": {"recurrent_activation": "hard_sigmoid"},
    "softmax": {
        "activation": "softmax",
        "recurrent_activation": "softmax",
        "padding": "same",
        "return_sequences": True,
    },
    "softmax channels first": {
        "recurrent_activation": "softmax",
        "padding": "same",
        "data_format": "channels_first",
    },
    "strides": {"strides": (2, 1), "padding": "same", "return_sequences": True},
    "valid strides": {"strides": 2, "return_state": True},
    "dilation": {"dilation_rate": (2, 1), "padding": "same"},
    "valid dilation": {"dilation_rate": 2},
    "unit forget": {"unit_forget_bias": False, "padding": "same"},
    "dropout at rest": {"dropout": 0.3, "recurrent_dropout": 0.3},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_values_and_gradients_are_those_of_keras(name):
    options = {"kernel_size": (3, 3), **OPTIONS[name]}
    x = torch.randn(2, 3, 3, 7, 6) if "first" in name else torch.randn(2, 3, 7, 6, 3)
    _same("ConvLSTM2D", x, 4, **options)


@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"strides": 2, "padding": "same"}, {"activation": "relu"}]
)
def test_one_dimension(options):
    _same("ConvLSTM1D", torch.randn(2, 3, 8, 3), 4, 3, return_sequences=True, return_state=True, **options)


def test_an_initial_state_and_a_stateful_layer():
    x = torch.randn(2, 3, 6, 5, 3)
    state = [torch.randn(2, 6, 5, 4), torch.randn(2, 6, 5, 4)]
    mine, theirs = _pair("ConvLSTM2D", 4, 3, padding="same", return_state=True)
    for layer in (mine, theirs):
        layer(x)
    mine.set_weights(theirs.get_weights())
    for a, b in zip(mine(x, initial_state=state), theirs(x, initial_state=state), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)
    options = {"padding": "same", "stateful": True, "return_sequences": True}
    inputs = keras.Input(batch_shape=(2, 3, 6, 5, 3))
    models = []
    for module in (ours, keras.layers):
        layer = module.ConvLSTM2D(4, 3, **options)
        models.append(keras.Model(inputs, layer(inputs)))
    models[0].set_weights(models[1].get_weights())
    for _ in range(2):  # the second call goes on
        torch.testing.assert_close(models[0](x), models[1](x), rtol=2e-5, atol=2e-5)


def test_masks_and_dropout_are_kerass_own():
    x = torch.randn(2, 3, 6, 5, 3)
    mine, theirs = _pair("ConvLSTM2D", 4, 3, return_sequences=True)
    mine(x), theirs(x)
    mine.set_weights(theirs.get_weights())
    mask = torch.tensor([[True, True, False], [True, False, True]])
    torch.testing.assert_close(mine(x, mask=mask), theirs(x, mask=mask))
    dropped = ours.ConvLSTM2D(4, 3, dropout=0.5, recurrent_dropout=0.5)
    assert not torch.equal(dropped(x, training=True), dropped(x, training=True))


@pytest.mark.parametrize("change", ["call", "input_conv", "hook"])
def test_a_cell_of_ones_own_runs_in_kerass_loop(change):
    x = torch.randn(2, 3, 6, 5, 3)
    mine, theirs = _pair("ConvLSTM2D", 4, 3, padding="same", return_sequences=True)
    plain = mine(x), theirs(x)
    mine.set_weights(theirs.get_weights())
    for layer in (mine, theirs):
        cell = layer.cell
        if change == "hook":
            cell.register_forward_hook(lambda m, args, out: (-out[0], out[1]))
        elif change == "call":

            def call(inputs, states, training=False, own=cell.call):
                h, states = own(inputs, states, training)
                return -h, states

            cell.call = call
        else:
            cell.__class__ = type("Own", (type(cell),), {"input_conv": _twice(type(cell).input_conv)})
    torch.testing.assert_close(mine(x), theirs(x), rtol=2e-5, atol=2e-5)
    assert not torch.allclose(theirs(x), plain[1])


def test_the_next_frame_example_with_one_import_changed():
    """A stack as keras.io/examples/vision/conv_lstm builds one: functional, normalized, relu, Conv3D on top."""
    from keras import layers

    from amstel.interop.keras import ConvLSTM2D  # instead of layers.ConvLSTM2D

    inputs = layers.Input(shape=(None, 12, 12, 1))
    x = inputs
    for size in (5, 3, 1):
        x = ConvLSTM2D(
            filters=4, kernel_size=(size, size), padding="same", return_sequences=True, activation="relu"
        )(x)
        x = layers.BatchNormalization()(x) if size > 1 else x
    x = layers.Conv3D(filters=1, kernel_size=(3, 3, 3), activation="sigmoid", padding="same")(x)
    model = keras.models.Model(inputs, x)
    model.compile(loss=keras.losses.binary_crossentropy, optimizer=keras.optimizers.Adam())
    frames = np.random.default_rng(0).random((4, 5, 12, 12, 1), np.float32).round()
    loss = model.fit(frames[:, :-1], frames[:, 1:], batch_size=2, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(loss).all() and loss[1] < loss[0]
    assert model.predict(frames, verbose=0).shape == (4, 5, 12, 12, 1)


def test_a_model_is_saved_and_loaded_and_gives_its_weights(tmp_path):
    from amstel.interop.conv_lstm import from_keras

    layer = ours.ConvLSTM2D(4, (3, 5), padding="same", return_sequences=True, kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((3, 8, 7, 2)), layer])
    x = torch.randn(2, 3, 8, 7, 2)
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert type(again.layers[0]) is ours.ConvLSTM2D and again.losses
    torch.testing.assert_close(again(x), model(x))
    plain = from_keras(layer.get_weights(), padding="same")
    torch.testing.assert_close(
        plain(x.permute(0, 1, 4, 2, 3))[0].permute(0, 1, 3, 4, 2), model(x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"activation": "relu", "return_sequences": True}])
def test_stateful_layers_train(options):
    x, weights = np.random.default_rng(0).normal(size=(4, 3, 6, 6, 1)).astype("float32"), []
    for module in (ours, keras.layers):
        keras.utils.set_random_seed(0)
        given = keras.Input(batch_shape=(2, 3, 6, 6, 1))
        model = keras.Model(given, module.ConvLSTM2D(4, 3, padding="same", stateful=True, **options)(given))
        model.compile("sgd", "mse")
        model.fit(x, np.ones((4, *model.output_shape[1:]), "float32"), batch_size=2, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for found, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
