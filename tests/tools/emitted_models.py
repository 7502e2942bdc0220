"""Saves many objects of every framework that is installed, in all pickle protocols.

``PYTHONPATH=tests python -m tools.emitted_models FOLDER [FRAMEWORK...]`` needs nothing but those frameworks, so it runs
under any version of them. The tests take their benign files from here, ``derive_allow_lists.py`` its lists.
"""

# ruff: noqa: PLC0415 -- each framework is imported only where it is wanted, because it may be absent

from __future__ import annotations

import array
import contextlib
import datetime as dt
import decimal
import fractions
import functools
import importlib
import importlib.util
import inspect
import ipaddress
import json
import math
import operator
import pathlib
import pickle
import random
import re
import subprocess
import sys
import types
import uuid
import warnings
import zoneinfo
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from pathlib import Path

from tools import emitted_frameworks

PROTOCOLS = range(6)


def containers():
    """Plain objects of the standard library that turn up inside models."""
    yield from (OrderedDict(a=1), defaultdict(list, a=[1]), defaultdict(int), defaultdict(dict), defaultdict(float))
    yield from (Counter("abc"), deque([1, 2], maxlen=3), ChainMap({1: 2}), {1, 2}, frozenset({1}))
    yield from (bytearray(b"abc"), b"\x00\xff abc", b"", 1j, slice(1, 2), range(3), Ellipsis, NotImplemented)
    yield from (type(None), int, float, str, bool, bytes, list, dict, tuple, set, frozenset, object, complex)
    yield from (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.date(2020, 1, 1), dt.time(1), dt.timedelta(1))
    yield from (dt.UTC, dt.timezone(dt.timedelta(hours=1)))
    yield from (decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=5), types.SimpleNamespace(a=1))
    yield from (pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("a"), pathlib.PosixPath("a"))
    yield from (len, abs, min, max, sum, sorted, round, any, all, str.lower, str.upper, str.strip, str.split, str.title)
    yield from (getattr(math, name) for name in ("sqrt", "log", "log2", "log10", "log1p", "exp", "expm1", "sin", "cos"))
    yield from (getattr(math, name) for name in ("tan", "tanh", "floor", "ceil", "fabs", "isnan", "isfinite"))
    yield from (operator.add, operator.sub, operator.truediv, operator.neg, operator.eq, operator.lt, operator.gt)
    yield from (
        array.array("d", [1.0]),
        array.array("i", [1]),
        random.Random(0),
        re.IGNORECASE,
        zoneinfo.ZoneInfo("UTC"),
    )
    yield from (
        UserDict(a=1),
        UserList([1]),
        UserString("a"),
        inspect.Parameter.empty,
        ipaddress.ip_address("127.0.0.1"),
    )
    yield from (functools.partial(int, base=2), operator.itemgetter(1), operator.attrgetter("a"), re.compile("a+"))


def numpy_objects():
    """Arrays, scalars, dtypes, generators and ufuncs of numpy."""
    import numpy as np

    rng = np.random.default_rng(0)
    for code in "?bhilqBHILQefdgFDGSUVOMm":
        dtype = {"S": "S3", "U": "U3", "V": "V4", "M": "M8[ns]", "m": "m8[s]"}.get(code, code)
        array = np.zeros((3, 2), dtype=dtype)
        yield from (
            array,
            np.asfortranarray(array),
            array[::2],
            array[0],
            array[0, 0],
            array.dtype,
            np.array(array[0, 0]),
        )
    for code in (">f8", ">i4", "<U2"):
        yield from (np.zeros(3, code), np.dtype(code))
    structured = np.dtype([("a", "f8"), ("b", "i4", (2,)), ("c", "O"), ("d", [("x", "u1")])])
    yield from (
        structured,
        np.zeros(2, structured),
        np.zeros(2, structured)[0],
        np.dtype({"names": ["a"], "formats": ["f8"]}),
    )
    yield from (np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), np.matrix([[1, 2]]))
    yield from (np.ma.masked_array([1, 2], mask=[0, 1]), np.ma.masked, np.array(["a", None, 3.0], dtype=object))
    yield from (np.random.RandomState(0), rng, np.random.SeedSequence(1), np.zeros((0, 3)), np.float64(1.5))
    for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"):
        yield from (np.random.Generator(getattr(np.random, name)(0)), getattr(np.random, name)(0))
    for name in ("polynomial", "chebyshev", "legendre", "laguerre", "hermite", "hermite_e"):
        module = getattr(np.polynomial, name)
        yield from (
            v([1, 2]) for k, v in vars(module).items() if inspect.isclass(v) and k[0].isupper() and k != "ABCPolyBase"
        )
    yield np.poly1d([1, 2])
    for name in dir(np):
        value = getattr(np, name)
        if isinstance(value, np.ufunc) or (inspect.isclass(value) and issubclass(value, np.generic)):
            yield value
    for name in [
        "mean",
        "median",
        "sum",
        "std",
        "var",
        "min",
        "max",
        "amin",
        "amax",
        "average",
        "nanmean",
        "nanmedian",
        "argmax",
        "argmin",
        "clip",
        "where",
        "round",
        "prod",
    ]:
        yield getattr(np, name)
    for name in [
        "ndarray",
        "nan_to_num",
        "concatenate",
        "stack",
        "ravel",
        "squeeze",
        "sort",
        "argsort",
        "unique",
        "cumsum",
        "dot",
        "transpose",
        "diff",
    ]:
        yield getattr(np, name)


def scipy_objects():
    """Sparse matrices, trees, splines, distributions, rotations and results of scipy."""
    import numpy as np
    import scipy.interpolate
    import scipy.optimize
    import scipy.sparse
    import scipy.spatial
    import scipy.special
    import scipy.stats

    x = np.linspace(0, 1, 12)
    for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia"):
        for suffix in ("matrix", "array"):
            yield getattr(scipy.sparse, f"{kind}_{suffix}")(np.eye(3))
    points = np.random.default_rng(0).random((12, 2))
    yield from (scipy.spatial.cKDTree(points), scipy.spatial.KDTree(points))
    yield scipy.spatial.transform.Rotation.from_quat([[0, 0, 0, 1.0], [0, 0, 1.0, 0]])
    splines = ("interp1d", "CubicSpline", "PchipInterpolator", "Akima1DInterpolator", "UnivariateSpline")
    for name in (*splines, "InterpolatedUnivariateSpline", "BarycentricInterpolator", "KroghInterpolator"):
        yield getattr(scipy.interpolate, name)(x, np.sin(x))
    yield from (scipy.interpolate.make_interp_spline(x, x), scipy.interpolate.BSpline(x, x[:8], 3))
    yield from (
        scipy.interpolate.RegularGridInterpolator((x, x), np.outer(x, x)),
        scipy.interpolate.RBFInterpolator(points, x),
    )
    yield from (scipy.interpolate.PPoly(np.ones((2, 2)), [0, 1, 2]), scipy.interpolate.NearestNDInterpolator(points, x))
    yield from (
        scipy.interpolate.LinearNDInterpolator(points, x),
        scipy.spatial.Delaunay(points),
        scipy.spatial.ConvexHull(points),
    )
    yield scipy.optimize.minimize(lambda v: (v**2).sum(), [1.0])
    yield scipy.stats.gaussian_kde(x)
    for name in dir(scipy.stats):
        value = getattr(scipy.stats, name)
        if isinstance(value, (scipy.stats.rv_continuous, scipy.stats.rv_discrete)):
            yield value
    yield from (
        scipy.stats.uniform(0, 1),
        scipy.stats.loguniform(1e-3, 1),
        scipy.stats.randint(1, 9),
        scipy.stats.norm(1, 2),
    )
    yield from (scipy.stats.ttest_1samp(x, 0), scipy.stats.pearsonr(x, x), scipy.stats.linregress(x, x))
    yield from (
        getattr(scipy.special, name)
        for name in dir(scipy.special)
        if isinstance(getattr(scipy.special, name), np.ufunc)
    )


def sklearn_data():
    """Small data for every kind of estimator: (X, y) pairs, to be tried in turn."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.random((24, 4))
    labels = np.tile([0, 1], 12)
    yield from ((x, labels), (x, x[:, 0]), (x, np.stack([labels, labels[::-1]], 1)), (x[:, :1].ravel(), x[:, 0]))
    yield from (((x * 10).astype(int), labels), (["a b", "b c", "c d"] * 8, labels), (labels, None))
    yield from (([{"a": 1, "b": "x"}, {"a": 2}] * 12, labels), ([["a", "b"], ["a"]] * 12, labels), (x @ x.T, labels))
    yield (x.astype(str).astype(object)[:, :2], labels)


def sklearn_estimators():
    """Every estimator of scikit-learn, made and fitted."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.utils import all_estimators

    for _, cls in all_estimators():
        for arguments in (
            {},
            {"estimator": LogisticRegression()},
            {"estimator": Ridge()},
            {"estimators": [("a", LogisticRegression())]},
            {"estimators": [("a", Ridge())]},
            {"transformers": [("a", "passthrough", [0])]},
            {"transformer_list": [("a", "passthrough")]},
            {"steps": [("a", Ridge())]},
            {"estimator": LogisticRegression(), "param_grid": {"C": [1, 2]}},
            {"estimator": LogisticRegression(), "param_distributions": {"C": [1, 2]}},
            {"dictionary": [[1.0, 0], [0, 1.0]]},
            {"base_estimator": LogisticRegression()},
        ):
            with contextlib.suppress(Exception):
                yield fitted(cls(**arguments))


def fitted(estimator):
    """The estimator after the first fit that works, or as it is."""
    for x, y in sklearn_data():
        with contextlib.suppress(Exception):
            estimator.fit(x, y)
            return estimator
    return estimator


def sklearn_objects():
    """Estimators with options that pull in other classes, and everything around them."""
    import numpy as np
    import sklearn
    import sklearn.ensemble as ens
    import sklearn.experimental.enable_halving_search_cv
    import sklearn.linear_model as lm
    import sklearn.model_selection as ms
    import sklearn.neighbors as nb
    import sklearn.neural_network as nn
    import sklearn.preprocessing as pre
    from scipy.stats import loguniform, uniform
    from sklearn import metrics, tree
    from sklearn.gaussian_process import kernels
    from sklearn.utils import Bunch

    yield from sklearn_estimators()
    for loss in ("squared_error", "absolute_error", "poisson", "quantile", "gamma"):
        options = {"quantile": 0.5} if loss == "quantile" else {}
        yield fitted(ens.HistGradientBoostingRegressor(loss=loss, max_iter=2, min_samples_leaf=1, **options))
    yield from (
        fitted(ens.GradientBoostingRegressor(loss=loss, n_estimators=2))
        for loss in ("squared_error", "absolute_error", "huber", "quantile")
    )
    yield from (
        fitted(ens.GradientBoostingClassifier(loss=loss, n_estimators=2)) for loss in ("log_loss", "exponential")
    )
    many = (np.random.default_rng(1).random((30, 3)), np.arange(30) % 3)
    yield from (
        e.fit(*many)
        for e in (
            ens.GradientBoostingClassifier(n_estimators=2),
            ens.HistGradientBoostingClassifier(max_iter=2),
            lm.LogisticRegression(),
            ens.ExtraTreesClassifier(2, bootstrap=True, oob_score=True),
        )
    )
    for loss in (
        "hinge",
        "log_loss",
        "modified_huber",
        "squared_hinge",
        "perceptron",
        "squared_error",
        "huber",
        "epsilon_insensitive",
        "squared_epsilon_insensitive",
    ):
        with contextlib.suppress(Exception):
            yield fitted(lm.SGDClassifier(loss=loss))
            yield fitted(lm.SGDRegressor(loss=loss))
    for metric in (
        "euclidean",
        "manhattan",
        "minkowski",
        "chebyshev",
        "hamming",
        "canberra",
        "braycurtis",
        "jaccard",
        "dice",
        "haversine",
        "seuclidean",
        "mahalanobis",
        "rogerstanimoto",
        "russellrao",
        "sokalsneath",
        "sokalmichener",
        "matching",
    ):
        for algorithm in ("ball_tree", "kd_tree", "brute"):
            x, y = next(iter(sklearn_data()))
            with contextlib.suppress(Exception):
                width = 2 if metric == "haversine" else 4
                params = {"seuclidean": {"V": np.ones(4)}, "mahalanobis": {"VI": np.eye(4)}}.get(metric)
                yield nb.KNeighborsClassifier(metric=metric, algorithm=algorithm, metric_params=params).fit(
                    x[:, :width], y
                )
        with contextlib.suppress(Exception):
            yield metrics.DistanceMetric.get_metric(metric)
    for solver in ("adam", "sgd", "lbfgs"):
        yield fitted(nn.MLPClassifier((3,), solver=solver, max_iter=3))
        yield fitted(nn.MLPRegressor((3,), solver=solver, max_iter=3))
    for criterion in ("gini", "entropy", "log_loss"):
        yield fitted(tree.DecisionTreeClassifier(criterion=criterion, random_state=np.random.RandomState(0)))
    yield from (
        cls()
        for _, cls in inspect.getmembers(ms._split, inspect.isclass)
        if _
        in (
            "KFold",
            "StratifiedKFold",
            "GroupKFold",
            "LeaveOneOut",
            "LeaveOneGroupOut",
            "ShuffleSplit",
            "StratifiedShuffleSplit",
            "GroupShuffleSplit",
            "TimeSeriesSplit",
            "RepeatedKFold",
            "RepeatedStratifiedKFold",
            "StratifiedGroupKFold",
        )
    )
    for scorer in sorted(metrics.get_scorer_names()):
        with contextlib.suppress(Exception):
            yield metrics.get_scorer(scorer)
            yield ms.GridSearchCV(tree.DecisionTreeClassifier(), {"max_depth": [1]}, scoring=scorer, cv=ms.KFold(2))
    yield fitted(ms.RandomizedSearchCV(lm.LogisticRegression(), {"C": loguniform(0.1, 1)}, n_iter=2, cv=2))
    yield fitted(ms.RandomizedSearchCV(lm.LogisticRegression(), {"C": uniform(0.1, 1)}, n_iter=2, cv=2))
    yield from (
        fitted(ms.HalvingGridSearchCV(lm.LogisticRegression(), {"C": [0.1, 1]}, cv=2)),
        Bunch(a=1, b=np.zeros(2)),
    )
    yield from (fitted(pre.FunctionTransformer(f)) for f in (np.log1p, np.sqrt, np.abs, None))
    yield from (
        v()
        if k
        in (
            "WhiteKernel",
            "RBF",
            "Matern",
            "DotProduct",
            "ConstantKernel",
            "RationalQuadratic",
            "ExpSineSquared",
            "PairwiseKernel",
        )
        else kernels.RBF() + kernels.WhiteKernel() * kernels.RBF() ** 2
        for k, v in inspect.getmembers(kernels, inspect.isclass)
        if k[0].isupper() and k not in ("Kernel", "KernelOperator", "Hyperparameter", "CompoundKernel")
    )
    yield kernels.CompoundKernel([kernels.RBF()])
    yield from (getattr(metrics, name) for name in dir(metrics) if inspect.isfunction(getattr(metrics, name)))
    yield from (
        getattr(sklearn.metrics.pairwise, n)
        for n in dir(sklearn.metrics.pairwise)
        if n.endswith(("_kernel", "_distances", "_distance"))
    )
    yield from (
        getattr(sklearn.feature_selection, n)
        for n in ["f_classif", "chi2", "f_regression", "mutual_info_classif", "mutual_info_regression", "r_regression"]
    )
    for module in ("sklearn.datasets",):
        for name in ("load_iris", "load_digits", "load_wine", "load_diabetes", "load_breast_cancer"):
            yield getattr(importlib.import_module(module), name)()


def pandas_objects():
    """Frames, series, indexes and scalars of pandas."""
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame(
        {"a": [1, 2, 3], "b": ["x", "y", None], "c": [1.5, 2, np.nan], "d": pd.to_datetime(["2020-01-01"] * 3)}
    )
    frame["e"] = pd.Categorical(["u", "v", "u"])
    frame["f"] = pd.array([1, None, 3], dtype="Int64")
    frame["g"] = pd.array([True, None, False], dtype="boolean")
    frame["h"] = pd.array(["a", None, "b"], dtype="string")
    frame["i"] = pd.to_timedelta([1, 2, 3], unit="s")
    frame["j"] = pd.to_datetime(["2020-01-01"] * 3).tz_localize("UTC")
    frame["k"] = pd.period_range("2020-01", periods=3, freq="M")
    frame["l"] = pd.interval_range(0, 3)
    frame["m"] = pd.array([1.5, None, 2], dtype="Float64")
    yield pd.Series(pd.arrays.SparseArray([0, 0, 1]))
    frame["n"] = pd.array([1.5, None, 2], dtype="Float64")
    yield from (frame, frame[["a"]], frame.set_index("d"), frame.groupby("b").size(), frame[["a", "c"]].describe())
    yield from (frame[c] for c in frame)
    yield from (pd.Index(frame[c]) for c in frame)
    yield from (
        pd.RangeIndex(3),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
        pd.Timestamp("2020-01-01"),
        pd.NaT,
        pd.NA,
    )
    yield from (
        pd.date_range("2020", periods=3),
        pd.date_range("2020", periods=3, freq="MS", tz="Europe/Paris"),
        pd.Timedelta(1),
    )
    yield from (
        pd.Period("2020-01", "M"),
        pd.Interval(0, 1),
        pd.CategoricalDtype(["a"]),
        pd.Int64Dtype(),
        pd.StringDtype(),
    )
    for name in dir(pd.offsets):
        with contextlib.suppress(Exception):
            yield getattr(pd.offsets, name)()
    for width in (8, 16, 32, 64):
        for kind in ("Int", "UInt"):
            yield pd.Series([1, None], dtype=f"{kind}{width}")
        yield pd.date_range("2020", periods=3, freq="D").astype("datetime64[s]" if width == 64 else "datetime64[ns]")
    yield pd.Series([1, None], dtype="Float32")
    for dtype in ("int64[pyarrow]", "string[pyarrow]", "double[pyarrow]", "bool[pyarrow]", "timestamp[ns][pyarrow]"):
        with contextlib.suppress(Exception):
            yield pd.Series([None, None], dtype=dtype)
            yield pd.DataFrame({"a": pd.Series(["a", None], dtype="string[pyarrow]")}).set_index("a")
    yield pd.Series(pd.to_datetime(["2020-01-01"]).tz_localize("Europe/Paris"))
    yield from (frame.groupby("b"), frame["a"].rolling(2), frame.style if hasattr(frame, "nothing") else frame["a"])
    yield from (pd.DataFrame({"a": [object()]}), pd.Series({"x": dt.date(2020, 1, 1)}), pd.DataFrame(index=[1]))
    yield from (
        frame["a"].array,
        pd.arrays.IntegerArray(np.array([1]), np.array([False])),
        pd.DatetimeTZDtype("ns", "UTC"),
    )


SOURCES = {
    "stdlib": containers,
    "numpy": numpy_objects,
    "scipy": scipy_objects,
    "sklearn": sklearn_objects,
    "pandas": pandas_objects,
    **emitted_frameworks.SOURCES,
}


WITH_JOBLIB = frozenset(
    {"sklearn", "numpy", "scipy", "pandas", "xgboost", "lightgbm", "catboost", "imblearn", "category_encoders"}
)
"""Frameworks whose objects people save with joblib."""


def save(folder, number, thing, writers):
    """Write one object in every way its framework knows."""
    for suffix, write in writers.items():
        path = folder / f"{number:05}.{suffix}"
        try:
            with path.open("wb") as file:
                write(thing, file)
        except Exception:  # noqa: BLE001 -- what cannot be saved teaches nothing
            path.unlink()


def writers_for(source):
    """Ways of saving, by file suffix."""
    ways = {
        f"p{protocol}.pkl": (lambda thing, file, protocol=protocol: pickle.dump(thing, file, protocol))
        for protocol in PROTOCOLS
        if source != "torch" or protocol > 1  # quantised modules end the process at the oldest ones
    }
    if source in WITH_JOBLIB:
        with contextlib.suppress(ImportError):
            import joblib

            ways["joblib"] = joblib.dump
    if source == "torch":
        import torch

        ways["pt"] = torch.save
        ways["legacy.pt"] = lambda thing, file: torch.save(thing, file, _use_new_zipfile_serialization=False)
    return ways


def emit(folder, source):
    """Save everything of one framework into ``folder``, with its version beside it."""
    warnings.simplefilter("ignore")
    place = folder / source
    place.mkdir(parents=True, exist_ok=True)
    ways = writers_for(source)
    number = 0
    try:
        for number, thing in enumerate(SOURCES[source]()):
            save(place, number, thing, ways)
    except Exception as error:  # noqa: BLE001 -- an older framework lacks something: what came before it counts
        print(f"{source}: stopped after {number}: {error!r}", file=sys.stderr)
    print(f"{source}: {number + 1} objects", file=sys.stderr)
    versions = {"python": sys.version.split()[0]}
    for name in {source, "joblib" if "joblib" in ways else source}:
        with contextlib.suppress(ImportError, AttributeError):
            versions[name] = importlib.import_module(name).__version__
    (place / "versions.json").write_text(json.dumps(versions))


def is_installed(source):
    """Whether the framework is there to be asked."""
    return source == "stdlib" or importlib.util.find_spec(source) is not None


def emit_all(folder, sources):
    """Save everything of each framework in a process of its own: native code may crash on an odd machine."""
    for source in sources:
        if is_installed(source):
            subprocess.run([sys.executable, "-m", "tools.emitted_models", str(folder), source, "--here"], check=False)


if __name__ == "__main__":
    if sys.argv[3:] == ["--here"]:
        emit(Path(sys.argv[1]), sys.argv[2])
    else:
        emit_all(Path(sys.argv[1]), sys.argv[2:] or SOURCES)
