"""Models that Keras itself saves are clean and fully examined, in each of its file formats."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    keras = pytest.importorskip("keras")

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_path

layers, ops = keras.layers, keras.ops
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras calls its own format a legacy, and numpy calls torch's one


def dense():
    """Layers one after the other."""
    return keras.Sequential(
        [
            layers.Input((8,)),
            layers.Dense(16, activation="relu", kernel_regularizer="l2", kernel_initializer="he_normal"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", kernel_constraint=keras.constraints.MaxNorm(2)),
        ]
    )


def images():
    """Convolutions and what prepares images."""
    start = layers.Input((16, 16, 3))
    x = layers.Rescaling(1 / 255)(layers.RandomFlip()(start))
    x = layers.Conv2D(4, 3, activation="gelu", padding="same")(x)
    x = layers.SeparableConv2D(4, 3)(layers.MaxPooling2D()(x))
    return keras.Model(start, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def several():
    """Several inputs and outputs, and operators between them."""
    first, second = layers.Input((4,), name="a"), layers.Input((5,), name="b")
    joined = layers.Concatenate()([layers.Dense(3)(first), layers.Dense(3)(second)])
    joined = ops.relu(joined) * 2 + ops.mean(joined, axis=-1, keepdims=True)
    return keras.Model({"a": first, "b": second}, [layers.Dense(1)(joined), layers.Dense(2)(joined[:, :2])])


def words():
    """Recurrent layers over embedded words."""
    return keras.Sequential(
        [
            layers.Input((10,), dtype="int32"),
            layers.Embedding(1000, 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(8, return_sequences=True)),
            layers.GRU(4),
            layers.Dense(1, activation=layers.LeakyReLU()),
        ]
    )


def attention():
    """A block of a transformer, in mixed precision."""
    start = layers.Input((7, 8))
    x = layers.MultiHeadAttention(2, 4, dtype="mixed_float16")(start, start)
    x = layers.LayerNormalization()(layers.Add()([x, start]))
    return keras.Model(start, layers.TimeDistributed(layers.Dense(3))(x))


def nested():
    """A model in a model, and a layer that has learnt from data."""
    scale = layers.Normalization(axis=-1)
    scale.adapt(np.arange(30.0).reshape(10, 3))
    inner = keras.Sequential([layers.Input((3,)), scale, layers.Dense(2)])
    start = layers.Input((3,))
    return keras.Model(start, inner(start))


def compiled():
    """Ways to train: nothing, names, objects and functions."""
    yield {}
    yield {"optimizer": "adam", "loss": "mse", "metrics": ["mae"]}
    yield {
        "optimizer": keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
        "loss": keras.losses.CategoricalCrossentropy(from_logits=True),
        "metrics": [keras.metrics.AUC(), "accuracy"],
    }
    yield {"optimizer": keras.optimizers.AdamW(), "loss": keras.losses.mean_squared_error}


MODELS = (dense, images, several, words, attention, nested)


@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5"])
@pytest.mark.parametrize("make", MODELS)
def test_a_model_that_keras_saves_is_clean(tmp_path, make, ending):
    model = make()
    for number, settings in enumerate(compiled()):
        outputs = len(model.outputs)
        if settings and (outputs == 1 or ending == ".weights.h5"):
            model.compile(**(settings if outputs == 1 else {"loss": ["mse", "mae"]}))
        path = tmp_path / f"{number}{ending}"
        (model.save_weights if ending == ".weights.h5" else model.save)(path)
        report = scan_path(path)
        assert report.verdict is Verdict.CLEAN, [finding.detail for finding in report.findings]
        assert report.total_coverage is Coverage.EXAMINED


@pytest.mark.parametrize("make", MODELS)
def test_the_json_of_a_model_is_clean(tmp_path, make):
    path = tmp_path / "model.json"
    path.write_text(make().to_json())
    assert scan_path(path).verdict is Verdict.CLEAN


def test_a_lambda_that_keras_saves_is_dangerous(tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Lambda(lambda x: x * 2)])
    for name in ("model.keras", "model.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(tmp_path / name)
        report = scan_path(tmp_path / name)
        assert report.verdict is Verdict.DANGEROUS
        assert any(finding.rule == "keras/lambda" for finding in report.findings)


def test_a_layer_of_ones_own_is_suspicious(tmp_path):
    @keras.saving.register_keras_serializable("ours")
    class Doubled(layers.Layer):
        def call(self, x):
            return x * 2

    keras.Sequential([layers.Input((3,)), Doubled()]).save(tmp_path / "model.keras")
    report = scan_path(tmp_path / "model.keras")
    assert report.verdict is Verdict.SUSPICIOUS
    assert {finding.rule for finding in report.findings} == {"keras/custom-object"}
