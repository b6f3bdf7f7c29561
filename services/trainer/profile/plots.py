"""The plots of a profile model's card. They must never use matplotlib's global state: a figure is made, drawn and
gone."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLUE, GREY = "#0072b2", "#b8c2cc"
ERROR_MIN = 1e-16
PIXELS_PER_INCH = 130


class Plot(NamedTuple):
    """A picture inside a page."""

    uri: str
    alt: str


def plots(metadata: Mapping[str, Any], errors: Mapping[str, Floats]) -> dict[str, Plot]:
    """By name. errors: the relative errors of each candidate on the held-out customers."""
    return {"errors": _errors(metadata["chosen"], errors), "importance": _importance(metadata["importance"]["inputs"])}


def _errors(chosen: str, errors: Mapping[str, Floats]) -> Plot:
    figure, axes = _figure(8.0, 0.5 * len(errors) + 1.2)
    names = list(errors)[::-1]
    sizes = [np.log10(np.maximum(np.abs(errors[name][np.isfinite(errors[name])]), ERROR_MIN)) for name in names]
    drawn = axes.boxplot(
        sizes, orientation="horizontal", whis=(1, 99), showfliers=False, patch_artist=True, widths=0.55
    )
    for name, box, median in zip(names, drawn["boxes"], drawn["medians"], strict=True):
        box.set(facecolor=BLUE if name == chosen else GREY, edgecolor="none")
        median.set(color="white", linewidth=1.5)
    axes.set_yticks(range(1, len(names) + 1), names)
    low, high = (int(each) for each in axes.get_xlim())
    ticks = range(low, high + 1, 2 if high - low > 8 else 1)
    axes.set_xticks(list(ticks), [f"$10^{{{each}}}$" for each in ticks])
    figure.supxlabel(
        "relative error of a held-out customer (box: middle half, whiskers: 1 % to 99 %)", fontsize="medium"
    )
    return Plot(_uri(figure), "Relative errors of each candidate on the held-out customers, as box plots")


def _importance(inputs: Mapping[str, float]) -> Plot:
    figure, axes = _figure(8.0, 2.8)
    ranked = sorted(inputs.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ranked], [lost for _, lost in ranked], color=BLUE, height=0.6)
    axes.set_xlabel("R² lost when the input is shuffled among the held-out customers")
    return Plot(_uri(figure), "R² lost by shuffling each of the seven inputs")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#e6eaee")
    axes.set_axisbelow(True)
    return figure, axes


def _uri(figure: Figure) -> str:
    picture = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(picture, format="png", dpi=PIXELS_PER_INCH)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
