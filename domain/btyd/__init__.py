"""Buy-till-you-die models: BG/NBD, MBG/NBD, Pareto/NBD for purchases, Gamma-Gamma for spend; fit, predict, and the
fixed-node forms that the ONNX graph is built from. It must never read a file, a clock or a random number."""

from domain.btyd.fitting import (
    REPEAT_BUYERS_MIN,
    TwoClassFit,
    fit_bg_nbd,
    fit_gamma_gamma,
    fit_mbg_nbd,
    fit_pareto_nbd,
    fit_two_classes,
    fit_two_clocks,
)
from domain.btyd.histories import PurchaseHistories, evenly, purchase_histories
from domain.btyd.parameters import (
    BgNbd,
    GammaGamma,
    MbgNbd,
    NotEnoughRepeatBuyers,
    OrderModel,
    OrderModelFit,
    Outlook,
    ParetoNbd,
    SpendModelFit,
    order_model_from_json,
    spend_model_from_json,
    to_json,
)
from domain.btyd.prediction import expected_spend, predict
from domain.btyd.quadrature import (
    BetaQuadrature,
    LifetimeQuadrature,
    Quadrature,
    evaluate,
    expected_orders_quadrature,
    quadrature,
)
from domain.btyd.two_classes import Prospects, SecondClass, SpendHistories, TwoClasses, predict_two_classes
from domain.btyd.two_clocks import TwoClockHistories, predict_two_clocks

__all__ = [
    "REPEAT_BUYERS_MIN",
    "BetaQuadrature",
    "BgNbd",
    "GammaGamma",
    "LifetimeQuadrature",
    "MbgNbd",
    "NotEnoughRepeatBuyers",
    "OrderModel",
    "OrderModelFit",
    "Outlook",
    "ParetoNbd",
    "Prospects",
    "PurchaseHistories",
    "Quadrature",
    "SecondClass",
    "SpendHistories",
    "SpendModelFit",
    "TwoClassFit",
    "TwoClasses",
    "TwoClockHistories",
    "evaluate",
    "evenly",
    "expected_orders_quadrature",
    "expected_spend",
    "fit_bg_nbd",
    "fit_gamma_gamma",
    "fit_mbg_nbd",
    "fit_pareto_nbd",
    "fit_two_classes",
    "fit_two_clocks",
    "order_model_from_json",
    "predict",
    "predict_two_classes",
    "predict_two_clocks",
    "purchase_histories",
    "quadrature",
    "spend_model_from_json",
    "to_json",
]
