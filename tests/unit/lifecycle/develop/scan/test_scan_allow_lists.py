"""The allow-lists: well formed, reviewed where it matters, and never generous."""

from __future__ import annotations

import importlib
import json
import warnings
from importlib import resources

import pytest

from bartizan.lifecycle.develop.scan import pickle as scan_pickle
from bartizan.lifecycle.develop.scan.pickle.arguments import ARGUMENT_RULES
from bartizan.lifecycle.develop.scan.pickle.policy import SCHEMA, AllowList, load_policy, parse_uses, translate
from bartizan.lifecycle.develop.scan.pickle.states import STATE_RULES
from bartizan.lifecycle.develop.scan.pickle.values import Use
from fixtures.hostile_models import DANGEROUS

POLICY = load_policy()
REVIEWED_STATES = {
    # These run code of their own when they are given a state. Each was read: they fill in attributes.
    "numpy.polynomial._polybase.ABCPolyBase",
    "numpy.random.bit_generator.SeedSequence",
    "scipy.interpolate._rbfinterp.RBFInterpolator",
    "scipy.sparse._coo.coo_matrix",
    "scipy.spatial._ckdtree.cKDTree",
    "scipy.spatial.transform._rotation.Rotation",
    "sklearn.base.BaseEstimator",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.isotonic.IsotonicRegression",
    "sklearn.metrics._dist_metrics.DistanceMetric64",
    "sklearn.metrics._dist_metrics.MahalanobisDistance64",
    "sklearn.neighbors._ball_tree.BinaryTree64",
    "sklearn.neighbors._kd_tree.BinaryTree64",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "_io.BytesIO",
    "catboost.core._CatBoostBase",
    "google.protobuf.message.Message",
    "lightgbm.basic.Booster",
    "pandas.Categorical",
    "pandas.CategoricalDtype",
    "pandas.DatetimeTZDtype",
    "pandas.IntervalDtype",
    "pandas.StringDtype",
    "pandas._libs.arrays.NDArrayBacked",
    "pandas._libs.interval.IntervalMixin",
    "pandas._libs.tslibs.offsets.BaseOffset",
    "pandas._libs.tslibs.offsets.RelativeDeltaOffset",
    "pandas.arrays.ArrowExtensionArray",
    "pandas.arrays.SparseArray",
    "pandas.core.generic.NDFrame",
    "pandas.core.internals.managers.SingleBlockManager",
    "random.Random",
    "statsmodels.base.wrapper.ResultsWrapper",
    "statsmodels.discrete.discrete_model.NegativeBinomial",
    "statsmodels.tsa.statespace._initialization.dInitialization",
    "statsmodels.tsa.statespace._initialization.zInitialization",
    "statsmodels.tsa.statespace._kalman_filter.dKalmanFilter",
    "statsmodels.tsa.statespace._kalman_filter.zKalmanFilter",
    "statsmodels.tsa.statespace._kalman_smoother.dKalmanSmoother",
    "statsmodels.tsa.statespace._representation.dStatespace",
    "statsmodels.tsa.statespace._representation.zStatespace",
    "tokenizers.AddedToken",
    "tokenizers.Encoding",
    "tokenizers.Tokenizer",
    "tokenizers.decoders.Decoder",
    "tokenizers.models.Model",
    "tokenizers.normalizers.Normalizer",
    "tokenizers.pre_tokenizers.PreTokenizer",
    "tokenizers.processors.PostProcessor",
    "torch.ScriptObject",
    "torch._C.Generator",
    "torch._dynamo.decorators._DimRange",
    "torch.ao.nn.quantized.modules.conv._ConvNd",
    "torch.nn.modules.activation.LogSoftmax",
    "torch.nn.modules.activation.MultiheadAttention",
    "torch.nn.modules.activation.Softmax",
    "torch.nn.modules.activation.Softmin",
    "torch.nn.modules.conv._ConvNd",
    "torch.nn.modules.module.Module",
    "torch.nn.modules.module._WrappedHook",
    "torch.nn.modules.pooling.AvgPool3d",
    "torch.nn.modules.transformer.TransformerDecoderLayer",
    "torch.nn.modules.transformer.TransformerEncoderLayer",
    "torch.nn.modules.upsampling.Upsample",
    "torch.optim.Adafactor",
    "torch.optim.adadelta.Adadelta",
    "torch.optim.adagrad.Adagrad",
    "torch.optim.adam.Adam",
    "torch.optim.adamax.Adamax",
    "torch.optim.adamw.AdamW",
    "torch.optim.asgd.ASGD",
    "torch.optim.nadam.NAdam",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.radam.RAdam",
    "torch.optim.rmsprop.RMSprop",
    "torch.optim.rprop.Rprop",
    "torch.optim.sgd.SGD",
    "torch.utils.hooks.RemovableHandle",
    "xgboost.core.Booster",
    "uuid.UUID",
}
RULED_STATES = {
    "functools.partial": "partial",
    "numpy.dtype": "dtype",
    "numpy.ma.MaskedArray": "ndarray",
    "numpy.ndarray": "ndarray",
    "scipy.stats._distn_infrastructure.rv_generic": "scipy-distribution",
    "statsmodels.base.data.ModelData": "formula",
    "torch.nn.modules.rnn.RNNBase": "recurrent",
}
SCRIPT_LISTS = {
    # These hand back what they are given.
    *(f"torch.jit._pickle.build_{kind}" for kind in ("boollist", "doublelist", "intlist", "tensorlist")),
    "torch.jit._pickle.build_tensor_from_id",
    "torch.jit._pickle.restore_type_tag",
}
REVIEWED_FUNCTIONS = {
    # Each was read: they make one object of their own kind from their arguments, and call nothing they are given.
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "pandas._libs.internals._unpickle_block",
    *(f"pandas._libs.tslibs.{name}" for name in ("nattype._nat_unpickle", "timedeltas._timedelta_unpickle")),
    "pandas._libs.tslibs.timestamps._unpickle_timestamp",
    *(f"pyarrow.lib.{name}" for name in ("_reconstruct_table", "chunked_array", "dictionary", "field", "list_")),
    *(f"pyarrow.lib.{name}" for name in ("scalar", "schema", "struct", "timestamp", "type_for_alias")),
    *(f"torch._utils._rebuild_{name}" for name in ("meta_tensor_no_storage", "nested_tensor", "parameter")),
    *(f"torch._utils._rebuild_{name}" for name in ("parameter_with_state", "sparse_tensor")),
    "torch.nested._internal.nested_tensor._rebuild_njt",
    *SCRIPT_LISTS,
}


def installed():
    """Listed names of packages that are installed here, with the objects they stand for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for (module, name), entry in POLICY.entries.items():
            try:
                thing = importlib.import_module(module)
                for part in name.split("."):
                    thing = getattr(thing, part)
            except (ImportError, AttributeError):
                continue
            yield module, name, entry, thing


INSTALLED = list(installed())


def lists():
    """The files as they ship."""
    folder = resources.files(scan_pickle) / "allow"
    return {item.name: json.loads(item.read_text()) for item in folder.iterdir() if item.name.endswith(".json")}


@pytest.mark.parametrize("document", lists().values(), ids=lists())
def test_a_list_says_which_versions_it_was_made_from(document):
    assert document["schema"] == SCHEMA
    assert all(document["versions"].values())
    assert set(document) == set(AllowList.__struct_fields__)


def test_every_rule_in_the_lists_exists_and_every_rule_is_used():
    arguments = {entry.args_rule for entry in POLICY.entries.values()} - {""}
    states = {entry.state_rule for entry in POLICY.entries.values()} - {""}
    assert arguments == set(ARGUMENT_RULES)
    assert states == set(STATE_RULES)


def test_most_of_the_lists_can_be_checked_here():
    assert len(INSTALLED) > 1800


def test_what_takes_a_state_in_a_way_of_its_own_was_reviewed():
    unreviewed = set()
    for module, name, entry, thing in INSTALLED:
        if not entry.uses & Use.BUILD or not isinstance(thing, type):
            continue
        owner = next((cls for cls in thing.__mro__ if "__setstate__" in vars(cls)), None)
        if owner is None:
            continue
        where = f"{owner.__module__}.{owner.__qualname__}"
        if where in RULED_STATES:
            assert entry.state_rule == RULED_STATES[where], (module, name)
        elif where not in REVIEWED_STATES:
            unreviewed.add((where, module, name))
    assert not unreviewed


def test_functions_that_may_be_called_were_reviewed():
    unreviewed = {
        f"{module}.{name}"
        for module, name, entry, thing in INSTALLED
        if entry.uses & Use.CALL and not isinstance(thing, type) and not entry.args_rule
    }
    assert unreviewed <= REVIEWED_FUNCTIONS


def test_no_list_allows_what_is_known_to_be_dangerous():
    allowed = {
        f"{module}.{name}"
        for module, name in POLICY.entries
        if POLICY.danger(module, name) and POLICY.entries[module, name].uses
    }
    # attrgetter has the rule attribute-names; the others hold bytes in memory and two numbers.
    assert allowed == {"operator.attrgetter", "_io.BytesIO", "torch._dynamo.decorators._DimRange", *SCRIPT_LISTS}


def test_names_that_hostile_files_import_are_not_listed():
    assert POLICY.entry("os", "system") is None
    assert POLICY.entry("builtins", "eval") is None
    assert POLICY.entry("builtins", "type").args_rule == "type-of"
    assert DANGEROUS


def test_danger_is_told_for_the_longest_name_that_is_known():
    assert POLICY.danger("os.path", "join") == POLICY.danger("os", "system") != ""
    assert POLICY.danger("numpy", "load") == "loads another pickle"
    assert POLICY.danger("numpy", "array") == ""


def test_names_of_python_2_are_translated_below_protocol_3():
    assert translate("__builtin__", "eval", 2) == ("builtins", "eval")
    assert translate("__builtin__", "reduce", 2) == ("functools", "reduce")
    assert translate("__builtin__", "eval", 3) == ("__builtin__", "eval")


def test_uses_are_read():
    entry = parse_uses("call build args=dtype state=dtype")
    assert (entry.uses, entry.args_rule, entry.state_rule) == (Use.CALL | Use.BUILD, "dtype", "dtype")
    assert parse_uses("").uses is Use.VALUE
    with pytest.raises(ValueError, match="unknown use"):
        parse_uses("what=ever")
    with pytest.raises(KeyError):
        parse_uses("fly")
