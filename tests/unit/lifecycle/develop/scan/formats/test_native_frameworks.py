"""Models as their libraries really write them pass: clean, and examined to the last byte."""

from __future__ import annotations

import collections
import datetime as dt
import io
import json
import warnings
import zipfile

import pytest

from bartizan.lifecycle.develop.scan import Coverage, Verdict, scan_bytes, scan_path

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
catboost = pytest.importorskip("catboost")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
sio = pytest.importorskip("skops.io")
calibration = pytest.importorskip("sklearn.calibration")
cluster = pytest.importorskip("sklearn.cluster")
compose = pytest.importorskip("sklearn.compose")
decomposition = pytest.importorskip("sklearn.decomposition")
ensemble = pytest.importorskip("sklearn.ensemble")
text = pytest.importorskip("sklearn.feature_extraction.text")
kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
gaussian_process = pytest.importorskip("sklearn.gaussian_process")
impute = pytest.importorskip("sklearn.impute")
linear_model = pytest.importorskip("sklearn.linear_model")
model_selection = pytest.importorskip("sklearn.model_selection")
naive_bayes = pytest.importorskip("sklearn.naive_bayes")
neighbors = pytest.importorskip("sklearn.neighbors")
neural_network = pytest.importorskip("sklearn.neural_network")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")
svm = pytest.importorskip("sklearn.svm")
tree = pytest.importorskip("sklearn.tree")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
FRAME = pd.DataFrame(X, columns=["a", "b", "c d", "\u00e9"]).assign(kind=pd.Categorical(RNG.choice(list("xyz"), 120)))


def is_clean(report):
    """Assert that nothing was found and everything was read."""
    assert (report.verdict, report.total_coverage) == (Verdict.CLEAN, Coverage.EXAMINED), (
        report.reasons,
        [(finding.rule, finding.detail) for finding in report.findings],
    )
    return True


XGBOOST = {
    "binary": ({"objective": "binary:logistic", "max_depth": 3}, X, Y),
    "regression": ({"objective": "reg:squarederror", "eval_metric": "mae"}, X, X[:, 1]),
    "multiclass": ({"objective": "multi:softprob", "num_class": 3}, X, THREE),
    "poisson": ({"objective": "count:poisson"}, X, THREE),
    "dart": ({"booster": "dart", "rate_drop": 0.5}, X, Y),
    "linear": ({"booster": "gblinear"}, X, Y),
    "forest": ({"num_parallel_tree": 4, "subsample": 0.5}, X, Y),
    "pruned": ({"gamma": 5, "max_depth": 6}, X, Y),
    "no depth": ({"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 5}, X, Y),
    "categories": ({"max_cat_to_onehot": 1, "max_depth": 4}, FRAME, THREE),
    "two outputs": ({"multi_strategy": "multi_output_tree"}, X, np.c_[Y, 1 - Y]),
}


@pytest.mark.parametrize("kind", ["json", "ubj"])
@pytest.mark.parametrize("case", XGBOOST)
def test_xgboost(case, kind, tmp_path):
    parameters, data, target = XGBOOST[case]
    model = xgboost.train(parameters | {"verbosity": 0}, xgboost.DMatrix(data, target, enable_categorical=True), 4)
    model.set_attr(best="3", note="trained on Monday")
    path = tmp_path / f"model.{kind}"
    model.save_model(path)
    report = scan_path(path)
    assert is_clean(report)
    assert report.format == "xgboost"
    assert is_clean(scan_bytes(bytes(model.save_raw(kind)), "x"))


def test_xgboost_ranking_and_the_settings_of_a_whole_booster(tmp_path):
    data = xgboost.DMatrix(X, Y, group=[60, 60])
    model = xgboost.train({"objective": "rank:ndcg", "verbosity": 0}, data, 3)
    assert is_clean(scan_bytes(bytes(model.save_raw("ubj")), "x"))
    assert is_clean(scan_bytes(bytes(model.__getstate__()["handle"]), "x"))
    estimator = xgboost.XGBClassifier(n_estimators=3).fit(X, Y)
    estimator.save_model(tmp_path / "model.json")
    assert is_clean(scan_path(tmp_path / "model.json"))


LIGHTGBM = {
    "regression": ({}, X, X[:, 1]),
    "binary": ({"objective": "binary"}, X, Y),
    "multiclass": ({"objective": "multiclass", "num_class": 3}, X, THREE),
    "dart": ({"boosting": "dart"}, X, Y),
    "goss": ({"data_sample_strategy": "goss"}, X, Y),
    "forest": ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, X, Y),
    "linear trees": ({"linear_tree": True}, X, X[:, 1]),
    "categories": ({"max_cat_to_onehot": 1, "min_data_per_group": 5, "cat_smooth": 1}, FRAME, THREE == 1),
    "monotone": ({"monotone_constraints": [1, 0, 0, -1]}, X, X[:, 0]),
    "quantile": ({"objective": "quantile", "alpha": 0.9}, X, X[:, 1]),
    "stumps": ({"num_leaves": 2}, X, Y),
    "nothing to learn": ({}, X, np.ones(120)),
}


@pytest.mark.parametrize("case", LIGHTGBM)
@pytest.mark.filterwarnings("ignore")
def test_lightgbm(case, tmp_path):
    parameters, data, target = LIGHTGBM[case]
    frame = data.rename(columns={"c d": "c"}) if case == "categories" else data
    model = lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 3, "num_leaves": 7} | parameters, lightgbm.Dataset(frame, target), 4
    )
    model.save_model(tmp_path / "model.txt")
    report = scan_path(tmp_path / "model.txt")
    assert is_clean(report)
    assert (report.format, report.facts["trees"] > 0) == ("lightgbm", True)
    assert is_clean(scan_bytes(json.dumps(model.dump_model()).encode(), "model.json"))


CATBOOST = {
    "binary": ("CatBoostClassifier", {}, X, Y),
    "regression": ("CatBoostRegressor", {}, X, X[:, 1]),
    "multiclass": ("CatBoostClassifier", {"loss_function": "MultiClass"}, X, THREE),
    "leaf by leaf": ("CatBoostClassifier", {"grow_policy": "Lossguide", "max_leaves": 5}, X, Y),
    "level by level": ("CatBoostRegressor", {"grow_policy": "Depthwise"}, X, X[:, 1]),
    "categories": ("CatBoostClassifier", {"cat_features": ["kind"], "one_hot_max_size": 1}, FRAME, THREE),
    "ranking": ("CatBoostRanker", {"loss_function": "YetiRank"}, X, Y),
}


@pytest.mark.parametrize("case", CATBOOST)
def test_catboost(case, tmp_path):
    maker, parameters, data, target = CATBOOST[case]
    model = getattr(catboost, maker)(iterations=4, depth=3, verbose=0, allow_writing_files=False, **parameters)
    frame = data.astype({"kind": str}) if case == "categories" else data
    extra = {"group_id": [0] * 60 + [1] * 60} if case == "ranking" else {}
    model.fit(frame, target, **extra)
    for kind in ["cbm"] + (["json"] if case != "categories" else []):
        path = tmp_path / f"model.{kind}"
        model.save_model(str(path), format=kind)
        report = scan_path(path)
        assert is_clean(report)
        assert (report.format, report.facts["trees"]) == ("catboost", 4)


def test_catboost_with_texts(tmp_path):
    frame = pd.DataFrame({"a": X[:, 0], "words": ["hello big world", "small moon"] * 60})
    model = catboost.CatBoostClassifier(
        iterations=3, depth=2, verbose=0, allow_writing_files=False, text_features=["words"]
    ).fit(frame, Y)
    model.save_model(str(tmp_path / "model.cbm"))
    assert is_clean(scan_path(tmp_path / "model.cbm"))
    data = (tmp_path / "model.cbm").read_bytes()
    assert scan_bytes(data + b"\x7fELF\x02\x01\x01" + bytes(60), "model.cbm").exit_code == 1


def skops_models():
    """Fitted estimators of every family."""
    positive = np.abs(X)
    plain = [
        linear_model.LogisticRegression(),
        linear_model.SGDClassifier(),
        linear_model.RidgeCV(),
        tree.DecisionTreeClassifier(),
        ensemble.RandomForestClassifier(4, random_state=np.random.RandomState(0)),
        ensemble.GradientBoostingRegressor(n_estimators=3),
        ensemble.HistGradientBoostingClassifier(max_iter=3),
        ensemble.IsolationForest(n_estimators=3),
        ensemble.VotingClassifier([("a", tree.DecisionTreeClassifier()), ("b", naive_bayes.GaussianNB())]),
        ensemble.StackingClassifier([("a", tree.ExtraTreeClassifier())], cv=2),
        svm.SVC(probability=False),
        neighbors.KNeighborsClassifier(),
        neural_network.MLPClassifier(max_iter=3, random_state=0),
        cluster.KMeans(2, n_init=1),
        decomposition.PCA(2),
        naive_bayes.MultinomialNB(),
        calibration.CalibratedClassifierCV(cv=2),
        gaussian_process.GaussianProcessRegressor(kernels.RBF() + kernels.WhiteKernel()),
        model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [0.1, 1]}, cv=2),
        pipeline.make_pipeline(
            impute.SimpleImputer(),
            preprocessing.FunctionTransformer(np.log1p),
            pipeline.make_union(preprocessing.StandardScaler(), preprocessing.QuantileTransformer(n_quantiles=9)),
            linear_model.LogisticRegression(),
        ),
        pipeline.make_pipeline(
            compose.make_column_transformer(
                (preprocessing.StandardScaler(), [0, 1]), (preprocessing.KBinsDiscretizer(3), slice(2, 4))
            ),
            ensemble.ExtraTreesClassifier(3),
        ),
    ]
    for model in plain:
        name = type(model).__name__ if not isinstance(model, pipeline.Pipeline) else f"Pipeline of {len(model.steps)}"
        yield name, model.fit(positive, Y)
    words = pipeline.make_pipeline(text.TfidfVectorizer(), linear_model.LogisticRegression())
    yield "words", words.fit(["red fox", "blue bird"] * 5, [0, 1] * 5)
    encoder = pipeline.make_pipeline(preprocessing.OneHotEncoder(), linear_model.LogisticRegression())
    yield "categories", encoder.fit([["a", "x"], ["b", "y"]] * 5, [0, 1] * 5)


def test_skops():
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, model in skops_models():
            report = scan_bytes(sio.dumps(model), f"{name}.skops")
            assert is_clean(report), name
            assert report.format == "skops"
            seen += 1
    assert seen > 20


def test_skops_with_plain_values_and_compression():
    value = {
        "list": [1.5, None, True, b"x", bytearray(b"y"), {1, 2}, (1, 2), slice(1, 2), np.float32(1)],
        3: np.random.default_rng(0),
        "arrays": [np.arange(3), np.array(["a", None], dtype=object), np.ma.array([1, 2], mask=[0, 1]), np.dtype("f4")],
        "maps": [collections.defaultdict(list, a=[1]), collections.OrderedDict(a=1)],
        "zone": dt.UTC,
    }
    assert is_clean(scan_bytes(sio.dumps(value), "v.skops"))
    assert is_clean(scan_bytes(sio.dumps(value, compression=zipfile.ZIP_DEFLATED), "v.skops"))


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_arrow_and_parquet(compression, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")
    parquet = pytest.importorskip("pyarrow.parquet")
    frame = FRAME.assign(
        day=pd.date_range("2020", periods=120),
        nested=[{"a": [1, 2]}] * 120,
        period=pd.period_range("2020", periods=120, freq="D"),
    )
    feather.write_feather(frame, tmp_path / "t.feather", compression=compression)
    table = arrow.Table.from_pandas(frame)
    parquet.write_table(
        table, tmp_path / "t.parquet", compression="none" if compression == "uncompressed" else compression
    )
    with arrow.OSFile(str(tmp_path / "t.arrows"), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)
    for path in tmp_path.iterdir():
        assert is_clean(scan_path(path)), path


def test_r(tmp_path):
    pyreadr = pytest.importorskip("pyreadr")
    frame = FRAME.assign(flag=True, count=range(120), day=pd.date_range("2020", periods=120))
    pyreadr.write_rds(str(tmp_path / "plain.rds"), frame)
    pyreadr.write_rds(str(tmp_path / "packed.rds"), frame, compress="gzip")
    pyreadr.write_rdata(str(tmp_path / "t.RData"), frame, df_name="x")
    for path in tmp_path.iterdir():
        assert is_clean(scan_path(path)), path


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "word"])
def test_sentencepiece(kind):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(f"the quick brown fox number {n} jumps \u00e9t\u00e9" for n in range(200)),
        model_writer=model,
        vocab_size=50,
        hard_vocab_limit=False,
        model_type=kind,
        minloglevel=2,
        user_defined_symbols=["<s1>"],
    )
    report = scan_bytes(model.getvalue(), "tokenizer.model")
    assert is_clean(report)
    assert report.format == "sentencepiece"
