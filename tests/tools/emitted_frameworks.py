"""Objects of the deep learning, boosting and statistics frameworks. See ``emitted_models``."""

# ruff: noqa: PLC0415 -- each framework is imported only where it is wanted, because it may be absent

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import OrderedDict

ROWS = 40
TORCH_ARGUMENTS = ((), (4,), (4, 4), (4, 4, 1), (4, 1), ([2],), (1, 4, 2), ([4], 2), (4, 8, [2, 6]), (2, [3]), (1, 1.0))
"""Arguments that some class of ``torch.nn`` can be made with, tried in turn."""


LARGE = 100_000
"""Parameters of a module that only costs time."""


def small_data():
    """Features and two classes, enough for a booster."""
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.random((ROWS, 3)), np.arange(ROWS) % 2


def torch_tensors():
    """Tensors, storages and values of every type, and all the ways in which tensors are rebuilt."""
    import torch

    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    for dtype in sorted(dtypes, key=str):
        yield dtype
        with contextlib.suppress(Exception):
            yield torch.zeros((2, 3), dtype=dtype)
    yield from (torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), requires_grad=False))
    yield from (torch.ones(2, requires_grad=True), torch.Size([1]), torch.device("cpu"), torch.device("cuda", 1))
    yield from (torch.eye(2).to_sparse(), torch.zeros(2, device="meta"), torch.strided, torch.sparse_coo)
    for kind in ("csr", "csc", "bsr", "bsc"):
        with contextlib.suppress(Exception):
            size = ((1, 1),) if kind.startswith("b") else ()
            yield getattr(torch.eye(2), f"to_sparse_{kind}")(*size)
    for quantised in (torch.qint8, torch.quint8, torch.qint32):
        yield torch.quantize_per_tensor(torch.ones(2), 0.1, 0, quantised)
    yield torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.qint8)
    yield from (torch.Generator(), torch.get_rng_state(), torch.ones(2, dtype=torch.complex64).conj())
    yield torch.ones(3).untyped_storage()
    yield from (
        torch.ones(3).storage(),
        torch.ones(4, dtype=torch.complex64).imag,
        torch.ones(3, 4).t(),
        torch.ones(9)[2::3],
    )
    with contextlib.suppress(Exception):
        yield torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with contextlib.suppress(Exception):
        yield torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    with contextlib.suppress(AttributeError):
        yield torch.nn.Buffer(torch.ones(2))
    shared = torch.ones(4)
    tagged = torch.nn.Parameter(torch.ones(2))
    tagged.note = "a"
    yield from ({"a": shared, "b": shared[1:]}, tagged, torch.finfo(torch.float32), torch.iinfo(torch.int8))


def torch_modules():
    """One module of every class of ``torch.nn``, and modules with hooks, parametrisations and masks."""
    import torch
    from torch import nn
    from torch.nn.utils import prune

    encoder, decoder = nn.TransformerEncoderLayer(4, 2), nn.TransformerDecoderLayer(4, 2)
    options = (*TORCH_ARGUMENTS, (encoder, 1), (decoder, 1), (nn.Linear(2, 2),), (4, 2), ({"a": nn.Linear(1, 1)},))
    namespaces = [nn, nn.modules.conv, nn.modules.batchnorm]
    for path in ("quantized", "quantized.dynamic", "quantizable", "qat", "intrinsic", "intrinsic.qat"):
        with contextlib.suppress(AttributeError, ImportError):
            namespaces.append(__import__(f"torch.ao.nn.{path}", fromlist=["nn"]))
    for namespace in namespaces:
        for _, cls in inspect.getmembers(namespace, inspect.isclass):
            for arguments in options:
                with contextlib.suppress(Exception):
                    module = cls(*arguments)
                    if isinstance(module, nn.Module) and sum(each.numel() for each in module.parameters()) < LARGE:
                        yield module
                        break
    yield from (nn.Transformer(4, 2, 1, 1, 8), nn.LSTM(4, 4, 2, bidirectional=True), nn.GRU(4, 4, 2), nn.RNN(4, 4))
    yield from (
        encoder,
        decoder,
        nn.MultiheadAttention(4, 2, kdim=2, vdim=2),
        nn.MultiheadAttention(4, 2, add_bias_kv=True),
    )
    for activation in (nn.functional.gelu, nn.functional.relu, "gelu"):
        yield nn.TransformerEncoderLayer(4, 2, activation=activation, batch_first=True)
    for old in (nn.utils.weight_norm, nn.utils.spectral_norm):
        with contextlib.suppress(Exception):
            yield old(nn.Linear(2, 2))
    for method in (prune.random_unstructured, prune.l1_unstructured):
        yield method(nn.Linear(4, 4), "weight", amount=0.5)
    yield torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    yield nn.DataParallel(nn.Linear(2, 2))


def torch_training():
    """Checkpoints: state dicts, optimisers and schedulers."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Dropout())
    yield from (model, model.state_dict(), {"model": model.state_dict(), "epoch": 3, "loss": 0.5})
    yield OrderedDict(model.named_parameters())
    for _, cls in inspect.getmembers(torch.optim, inspect.isclass):
        if inspect.isabstract(cls) or cls.__name__ == "Optimizer":
            continue
        with contextlib.suppress(Exception):
            optimiser = cls(model.parameters(), lr=0.1)
            yield optimiser
            with contextlib.suppress(Exception):
                model(torch.ones(4, 2)).sum().backward()
                optimiser.step()
            yield from (optimiser.state_dict(), {"model": model.state_dict(), "optimizer": optimiser.state_dict()})
    for name, cls in inspect.getmembers(torch.optim.lr_scheduler, inspect.isclass):
        if name in {"LambdaLR", "MultiplicativeLR"} or not cls.__module__.startswith("torch.optim"):
            continue  # they hold functions of the user's own; the others are no schedulers
        for arguments in ((), (1,), ([1],), (0.5,), (0.01, 0.1)):
            with contextlib.suppress(Exception):
                scheduler = cls(torch.optim.SGD(model.parameters(), lr=0.1), *arguments)
                yield from (scheduler, scheduler.state_dict())
                break
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    schedules = torch.optim.lr_scheduler
    parts = [schedules.ConstantLR(optimiser), schedules.ExponentialLR(optimiser, 0.9)]
    yield from (schedules.OneCycleLR(optimiser, 0.1, 10), schedules.ChainedScheduler(parts))
    yield from (schedules.SequentialLR(optimiser, parts, [2]), torch.optim.swa_utils.SWALR(optimiser, 0.1))
    with contextlib.suppress(Exception):
        yield torch.amp.GradScaler("cpu").state_dict()


def torch_distributions():
    """Distributions and data sets, which checkpoints of agents and experiments hold."""
    import torch
    from torch import distributions

    half, one = torch.tensor(0.5), torch.tensor(1.0)
    for _, cls in inspect.getmembers(distributions, inspect.isclass):
        for arguments in ((half,), (half, one), (torch.ones(2),), (torch.zeros(2), torch.eye(2))):
            with contextlib.suppress(Exception):
                yield cls(*arguments)
                break
    yield from (torch.utils.data.TensorDataset(torch.ones(2)), torch.utils.data.Subset([1, 2], [0]))


def torch_objects():
    """Everything of torch."""
    yield from torch_tensors()
    yield from torch_modules()
    yield from torch_training()
    yield from torch_distributions()


def xgboost_objects():
    """Boosters and estimators of xgboost."""
    import numpy as np
    import xgboost

    features, labels = small_data()
    matrix = xgboost.DMatrix(features, labels, feature_names=["a", "b", "c"])
    for options in ({}, {"booster": "gblinear"}, {"booster": "dart"}, {"objective": "binary:logistic"}):
        yield xgboost.train({"max_depth": 2, **options}, matrix, 2)
    for name in ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"):
        cls = getattr(xgboost, name)
        yield from (cls(), cls(n_estimators=2, max_depth=2).fit(features, labels))
    yield xgboost.XGBRanker(n_estimators=2).fit(features, labels, group=[ROWS])
    yield xgboost.XGBClassifier(n_estimators=2).fit(features, np.arange(ROWS) % 3)
    with contextlib.suppress(Exception):
        stopping = xgboost.callback.EarlyStopping(2)
        yield stopping
        model = xgboost.XGBRegressor(n_estimators=2, callbacks=[stopping], eval_metric="rmse")
        yield model.fit(features, labels, eval_set=[(features, labels)], verbose=False)


def lightgbm_objects():
    """Boosters and estimators of lightgbm."""
    import lightgbm

    features, labels = small_data()
    options = {"min_child_samples": 1, "num_leaves": 3, "verbose": -1}
    for objective in ("binary", "regression", "poisson"):
        yield lightgbm.train({**options, "objective": objective}, lightgbm.Dataset(features, labels), 2)
    for boosting in ("gbdt", "dart", "rf"):
        extra = {"subsample": 0.5, "subsample_freq": 1} if boosting == "rf" else {}
        for cls in (lightgbm.LGBMClassifier, lightgbm.LGBMRegressor):
            model = cls(n_estimators=2, boosting_type=boosting, **options, **extra)
            yield from (cls(**options), model.fit(features, labels, eval_set=[(features, labels)]))
    yield lightgbm.LGBMRanker(n_estimators=2, **options).fit(features, labels, group=[ROWS])
    with contextlib.suppress(Exception):
        yield from (lightgbm.early_stopping(2), lightgbm.log_evaluation(2))


def catboost_objects():
    """Models of catboost."""
    import catboost

    features, labels = small_data()
    options = {"iterations": 2, "depth": 2, "verbose": 0, "allow_writing_files": False}
    for name in ("CatBoost", "CatBoostClassifier", "CatBoostRegressor"):
        cls = getattr(catboost, name)
        if name == "CatBoost":
            yield cls(options).fit(features, labels)
        else:
            yield from (cls(**options), cls(**options).fit(features, labels))
            yield cls(**options, cat_features=[0]).fit([["a", 1], ["b", 2]] * 10, [0, 1] * 10)
    yield catboost.CatBoostRanker(**options).fit(features, labels, group_id=[0] * ROWS)
    with contextlib.suppress(Exception):
        yield from (
            catboost.Pool(features, labels),
            catboost.CatBoostClassifier(**options).fit(features, labels, eval_set=(features, labels)),
        )


def statsmodels_objects():
    """Fitted models of statsmodels, from arrays and from formulas."""
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    warnings.simplefilter("ignore")  # statsmodels has just turned its own warnings on
    features, labels = small_data()
    design = sm.add_constant(features)
    frame = pd.DataFrame(features, columns=list("abc")).assign(y=labels, z=features.sum(1))
    for name in ("OLS", "WLS", "GLS", "GLSAR", "Logit", "Probit", "Poisson", "RLM", "QuantReg", "NegativeBinomial"):
        with contextlib.suppress(Exception):
            model = getattr(sm, name)(labels, design)
            yield model
            yield model.fit(**({} if name in ("OLS", "WLS", "GLS", "GLSAR", "RLM", "QuantReg") else {"disp": 0}))
    for family in ("Gaussian", "Binomial", "Poisson", "Gamma", "Tweedie", "NegativeBinomial", "InverseGaussian"):
        with contextlib.suppress(Exception):
            yield sm.GLM(
                labels + 1 * (family in ("Gamma", "InverseGaussian")), design, family=getattr(sm.families, family)()
            ).fit()
    for formula in ("z ~ a + b", "y ~ a * b + C(y)", "z ~ np.log1p(a) + I(b ** 2)"):
        with contextlib.suppress(Exception):
            yield smf.ols(formula, frame).fit()
    with contextlib.suppress(Exception):
        yield from (smf.logit("y ~ a", frame).fit(disp=0), smf.glm("z ~ a", frame).fit())
        mixed = smf.mixedlm("z ~ a", frame, groups=frame["y"]).fit()
        yield from (mixed, sm.MNLogit(np.arange(ROWS) % 3, design).fit(disp=0))
    series = np.cumsum(np.random.default_rng(1).normal(size=80))
    for make in (
        lambda: sm.tsa.ARIMA(series, order=(1, 1, 0)),
        lambda: sm.tsa.SARIMAX(series, order=(1, 0, 0)),
        lambda: sm.tsa.ExponentialSmoothing(series, trend="add"),
        lambda: sm.tsa.SimpleExpSmoothing(series),
        lambda: sm.tsa.Holt(series),
        lambda: sm.tsa.AutoReg(series, 2),
        lambda: sm.tsa.ETSModel(series),
        lambda: sm.tsa.UnobservedComponents(series, "local level"),
        lambda: sm.tsa.VAR(np.stack([series, series[::-1]], 1)),
        lambda: sm.tsa.ARIMA(pd.Series(series, pd.date_range("2020", periods=80)), order=(1, 0, 0)),
    ):
        with contextlib.suppress(Exception):
            model = make()
            yield model
            yield model.fit(**({"disp": False} if "disp" in inspect.signature(model.fit).parameters else {}))
    yield from (sm.nonparametric.KDEUnivariate(series).fit(), sm.PCA(features) if hasattr(sm, "PCA") else None)


def imblearn_objects():
    """Samplers and ensembles of imbalanced-learn."""
    from imblearn import pipeline
    from imblearn.utils.testing import all_estimators
    from sklearn.linear_model import LogisticRegression

    features, labels = small_data()
    labels = labels * (features[:, 0] > 0.3)
    for _, cls in all_estimators():
        with contextlib.suppress(Exception):
            estimator = cls()
            with contextlib.suppress(Exception):
                (estimator.fit_resample if hasattr(estimator, "fit_resample") else estimator.fit)(features, labels)
            yield estimator
    from imblearn.over_sampling import RandomOverSampler

    yield pipeline.Pipeline([("a", RandomOverSampler()), ("b", LogisticRegression())]).fit(features, labels)


def category_encoders_objects():
    """Encoders of category_encoders."""
    import category_encoders
    import pandas as pd

    frame = pd.DataFrame({"a": ["x", "y"] * 20, "b": range(40)})
    for name in category_encoders.__all__:
        with contextlib.suppress(Exception):
            encoder = getattr(category_encoders, name)()
            encoder.fit(frame, frame["b"] % 2)
            yield encoder


def tokenizers_objects():
    """Tokenizers and their parts."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    for model in (models.BPE(), models.WordLevel({"a": 0}, unk_token="a"), models.WordPiece(), models.Unigram()):
        yield from (model, tokenizers.Tokenizer(model))
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(["a b c ab abc"] * 3)
    yield from (trained, tokenizers.AddedToken("a"), tokenizers.Encoding())
    for namespace in (decoders, normalizers, pre_tokenizers, processors):
        for _, cls in inspect.getmembers(namespace, inspect.isclass):
            for arguments in ((), (("a", 1), ("b", 2)), ("a", 0)):
                with contextlib.suppress(Exception):
                    yield cls(*arguments)
                    break


def pyarrow_objects():
    """Arrays, tables and types of pyarrow, which pandas keeps its texts in."""
    import pyarrow as pa

    values = ([1, None], [1.5], ["a", None], [True], [[1], []], [{"a": 1}], [b"x"], [None])
    for value in values:
        array = pa.array(value)
        yield from (array, array.type, pa.chunked_array([array]), pa.table({"a": array}), array[0])
    yield from (pa.schema([("a", pa.int8())]), pa.field("a", pa.utf8()), pa.py_buffer(b"a"))
    yield from (pa.array(["a"]).dictionary_encode(), pa.timestamp("ns", "UTC"), pa.large_string())


def keras_objects():
    """Models and layers of keras as pickles."""
    import keras

    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    inputs = keras.layers.Input((3,))
    yield from (model, model.get_config(), model.get_weights())
    yield keras.Model(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization()(inputs)))


def onnx_objects():
    """Protocol buffers of onnx as pickles."""
    from onnx import helper

    yield helper.make_tensor("a", 1, [1], [1.0])


SOURCES = {
    "torch": torch_objects,
    "xgboost": xgboost_objects,
    "lightgbm": lightgbm_objects,
    "catboost": catboost_objects,
    "statsmodels": statsmodels_objects,
    "imblearn": imblearn_objects,
    "category_encoders": category_encoders_objects,
    "tokenizers": tokenizers_objects,
    "pyarrow": pyarrow_objects,
    "keras": keras_objects,
    "onnx": onnx_objects,
}
