"""XGBoost and LightGBM models as targets in this process, and what they are made of.

The structure is read from the model's own saved form, a document, by code of ours: ``read_xgboost`` takes
XGBoost's JSON and ``read_lightgbm`` LightGBM's text, and neither imports a framework.
"""

from bartizan.adapters.boosting.lightgbm_structure import read_lightgbm
from bartizan.adapters.boosting.target import BoostingTarget
from bartizan.adapters.boosting.xgboost_structure import read_xgboost

__all__ = ["BoostingTarget", "read_lightgbm", "read_xgboost"]
