"""The plots of a model card, as SVG that is the same for the same backtest. It must never show a customer by name, nor
tell two lines apart by colour alone."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from domain.metrics import band_means, value_captured
from services.trainer.evaluation import MODEL, Backtest
from services.trainer.quality import DECILE_BAND, OVERALL_BAND, all_guesses

Floats = NDArray[np.float64]

# Of the palette by Okabe & Ito (2008), which people with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#6b6b6b", "#d9e8f2"
SIZE_INCHES = (4.9, 3.6)
"""Of a plot: its letters are legible on a telephone, and two of them fit beside each other on a screen."""
_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "clv",
    "svg.fonttype": "path",
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_PLAIN = FuncFormatter(lambda value, _: f"{value:,.6g}")


@dataclass(frozen=True)
class Plot:
    """A picture with what it shows in words."""

    name: str
    title: str
    alt: str
    caption: str
    svg: bytes


def plots(
    backtest: Backtest, tests: Sequence[Mapping[str, Any]], importance: Mapping[str, Any], currency: str
) -> list[Plot]:
    """Of the latest backtest and the facts of all (quality.quality()); a plot of what is undefined is left out."""
    best = best_baseline(tests[-1])
    draw = _Draw(backtest, tests[-1], tests, importance, currency, best)
    return [plot for each in (draw.gain, draw.lift, draw.calibration, draw.coverage, draw.residuals, draw.reliability,
                              draw.pit, draw.leaning, draw.periods) if (plot := each()) is not None]  # fmt: skip


def best_baseline(facts: Mapping[str, Any]) -> str | None:
    """The baseline that ranks customers by value best (nGini)."""
    known = {
        name: figures["ngini"]
        for name, figures in facts["metrics"].items()
        if name != MODEL and figures.get("ngini") is not None
    }
    return max(known, key=lambda name: known[name]) if known else None


def _svg(paint: Callable[[Axes], None]) -> bytes:
    style: Any = {**sns.axes_style("whitegrid"), **_STYLE}
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        paint(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class _Draw:
    backtest: Backtest
    facts: Mapping[str, Any]
    tests: Sequence[Mapping[str, Any]]
    importance: Mapping[str, Any]
    currency: str
    best: str | None

    def _series(self) -> list[tuple[str, Floats, str, str]]:
        """(label, predicted value, colour, line style) of the model and of the best baseline."""
        guesses = all_guesses(self.backtest)
        found = [("model", guesses[MODEL].value, BLUE, "-")]
        return found + ([] if self.best is None else [(self.best, guesses[self.best].value, ORANGE, "--")])

    def gain(self) -> Plot | None:
        """The gain (Gini) curve."""
        actual = self.backtest.targets.value
        if actual.sum() <= 0:
            return None
        series = [*self._series(), ("perfect ranking", actual, GREY, ":")]
        curves = [(label, *value_captured(actual, guess), colour, line) for label, guess, colour, line in series]

        def paint(axes: Axes) -> None:
            for label, customers, share, colour, line in curves:
                axes.plot(customers, share, color=colour, linestyle=line, linewidth=2, label=label)
            axes.plot((0, 1), (0, 1), color="black", linewidth=0.8, label="by chance")
            axes.set(xlabel="share of customers, best predicted first", ylabel="share of the value that came",
                     xlim=(0, 1), ylim=(0, max(1.02, *(float(each[2].max()) for each in curves))))  # fmt: skip
            _percent(axes, "xy")
            axes.legend(loc="lower right")

        top = [f"{label} {np.interp(0.2, x, y):.0%}" for label, x, y, *_ in curves]
        return Plot(
            "gain",
            "Who brings the value: gain (Gini) curves",
            f"Share of the value that the best-predicted customers brought. The top fifth brought: {', '.join(top)}.",
            "The higher above the diagonal, the better the ranking; nGini is the area between a curve and the "
            "diagonal, as a share of that of a perfect ranking.",
            _svg(paint),
        )

    def lift(self) -> Plot | None:
        """Mean value by decile over the mean of all."""
        actual = self.backtest.targets.value
        if actual.sum() <= 0:
            return None
        series = [(label, band_means(actual, guess)[::-1] / actual.mean(), colour) for label, guess, colour, _ in
                  self._series()]  # fmt: skip

        def paint(axes: Axes) -> None:
            width = 0.8 / len(series)
            for place, (label, lifts, colour) in enumerate(series):
                axes.bar(np.arange(1, 11) + (place - (len(series) - 1) / 2) * width, lifts, width, color=colour,
                         label=label, hatch="" if not place else "///", edgecolor="white")  # fmt: skip
            axes.axhline(1, color="black", linewidth=0.8)
            axes.set(xlabel="decile of prediction, best first", ylabel="times the mean customer",
                     xticks=range(1, 11))  # fmt: skip
            axes.grid(visible=False, axis="x")
            axes.legend(loc="upper right")

        said = "; ".join(f"{label} {lifts[0]:.1f}" for label, lifts, _ in series)
        return Plot(
            "lift",
            "Lift by decile",
            f"What customers of each decile of prediction brought, as a multiple of the mean. Top decile: {said}.",
            "1 is the mean customer. A good ranking is steep.",
            _svg(paint),
        )

    def calibration(self) -> Plot:
        """Predicted and actual mean by decile."""
        rows = self.facts["deciles"]
        predicted, actual = (np.array([row[key] for row in rows]) for key in ("predicted_mean", "actual_mean"))
        bars = _bars(actual, [row["actual_interval"] for row in rows])

        def paint(axes: Axes) -> None:
            place = np.arange(1, 11)
            axes.errorbar(place, actual, bars, fmt="o", color=ORANGE, capsize=3, label="came (95% interval)")
            axes.plot(place, predicted, "s-", color=BLUE, markersize=5, label="predicted")
            axes.set(xlabel="decile of prediction, lowest first", ylabel=f"mean value, {self.currency}",
                     xticks=place)  # fmt: skip
            if actual.min() > 0 and predicted.min() > 0 and actual.max() > 20 * actual.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(_PLAIN)
            axes.legend(loc="upper left")

        inside = sum(row["actual_interval"][0] <= row["predicted_mean"] <= row["actual_interval"][1] for row in rows)
        return Plot(
            "calibration",
            "Calibration by decile",
            f"Predicted and actual mean value by decile of prediction; {inside} of 10 predictions lie within the "
            "interval of what came.",
            "A calibrated model's squares lie on the dots, within the bars.",
            _svg(paint),
        )

    def coverage(self) -> Plot:
        """Shares outside of the interval by decile."""
        rows = self.facts["deciles"]
        sides = [("above value_p90", "share_above_p90", "above_interval", BLUE, "o", -0.12),
                 ("below value_p10", "share_below_p10", "below_interval", ORANGE, "s", 0.12)]  # fmt: skip

        def paint(axes: Axes) -> None:
            axes.axhspan(*DECILE_BAND, color=PALE, label="5–15%: target of each decile, above")
            axes.axhspan(*OVERALL_BAND, color="#b5d3e7", label="8–12%: target of all, above")
            for label, share, interval, colour, marker, shift in sides:
                shares = np.array([row[share] for row in rows])
                axes.errorbar(np.arange(1, 11) + shift, shares, _bars(shares, [row[interval] for row in rows]),
                              fmt=marker, color=colour, capsize=3, label=label)  # fmt: skip
            axes.set(xlabel="decile of prediction, lowest first", ylabel="share of customers", xticks=range(1, 11))
            axes.set_ylim(0, max(0.26, 1.45 * max(row["above_interval"][1] for row in rows)))
            _percent(axes, "y")
            axes.legend(loc="upper right", ncols=1, fontsize=9)

        out = [row["band"] for row in rows if not DECILE_BAND[0] <= row["share_above_p90"] <= DECILE_BAND[1]]
        overall = self.facts["metrics"][MODEL]["share_above_p90"]
        return Plot(
            "coverage",
            "Who falls outside of the interval, by decile",
            f"{overall:.1%} of customers exceed value_p90. "
            + (
                f"Outside of 5 to 15%: deciles {', '.join(map(str, out))}."
                if out
                else "Each decile is within 5 to 15%."
            ),
            "Above value_p90 should be a tenth of the customers of each decile. Below value_p10 fewer may be: where "
            "most spend nothing, value_p10 is 0 and nobody can fall below it.",
            _svg(paint),
        )

    def residuals(self) -> Plot:
        """What came less what was predicted, by decile."""
        predicted = self.backtest.outputs["expected_value"]
        residual = self.backtest.targets.value - predicted
        count = len(residual)
        decile = np.empty(count, dtype=np.int64)
        decile[np.argsort(predicted, kind="stable")] = 1 + np.arange(count) * 10 // count

        def paint(axes: Axes) -> None:
            axes.boxplot(
                [residual[decile == each] for each in range(1, 11)],
                whis=(5, 95),
                showfliers=False,
                widths=0.7,
                patch_artist=True,
                boxprops={"facecolor": PALE},
                medianprops={"color": ORANGE, "linewidth": 2},
            )
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(max(float(np.median(np.abs(residual))), 0.01))))
            axes.yaxis.set_major_formatter(_PLAIN)
            axes.set(xlabel="decile of prediction, lowest first", ylabel=f"came − predicted, {self.currency}")

        return Plot(
            "residuals",
            "Residuals by decile",
            "Boxes of what came less what was predicted, by decile of prediction: middle half, median, and 5th to 95th "
            "percentile as whiskers.",
            "Most customers come out a little below their mean and a few far above it: that is spending, not an error. "
            "The scale is logarithmic away from 0.",
            _svg(paint),
        )

    def reliability(self) -> Plot:
        """The share that ordered beside p_active."""
        found = self.facts["probability"]
        rows = found["reliability"]
        predicted, actual = (np.array([row[key] for row in rows]) for key in ("predicted", "actual"))

        def paint(axes: Axes) -> None:
            axes.plot((0, 1), (0, 1), color="black", linewidth=0.8)
            axes.errorbar(predicted, actual, _bars(actual, [row["interval"] for row in rows]), fmt="o-", color=BLUE,
                          capsize=3)  # fmt: skip
            axes.set(xlabel="p_active, mean of a tenth of the customers", ylabel="share that ordered", xlim=(0, 1),
                     ylim=(0, 1))  # fmt: skip
            _percent(axes, "xy")

        return Plot(
            "reliability",
            "Reliability of p_active",
            f"Share that ordered against the predicted probability: {found['expected_active']:,.0f} were expected to, "
            f"{found['active']:,.0f} did.",
            f"On the diagonal a probability means what it says. Brier score {found['brier']:.4f}; saying "
            f"{self.facts['active_share']:.1%} of everybody would have {found['brier_of_the_share']:.4f}.",
            _svg(paint),
        )

    def pit(self) -> Plot:
        """Where in their own forecast distribution customers came out."""
        borders, shares = (np.array(self.facts["pit"][key]) for key in ("borders", "shares"))
        widths = np.diff(borders)

        def paint(axes: Axes) -> None:
            axes.bar(borders[:-1], shares / widths, widths, align="edge", color=PALE, edgecolor=BLUE, linewidth=1.5)
            axes.axhline(1, color="black", linewidth=0.8)
            axes.set(xlabel="level in the forecast distribution", ylabel="customers, 1 = as many as it says",
                     xlim=(0, 1), xticks=borders)  # fmt: skip

        said = ", ".join(
            f"{share:.1%} between {low:g} and {high:g}"
            for share, low, high in zip(shares, borders[:-1], borders[1:], strict=True)
        )
        return Plot(
            "pit",
            "Whole distribution: probability integral transform",
            f"Customers by where they came out in their own forecast: {said}.",
            "Flat at 1 is calibrated; high at the ends is too narrow, high in the middle too wide. Who was expected to "
            "spend nothing with probability q and did is spread over 0 to q (Czado, Gneiting & Held 2009).",
            _svg(paint),
        )

    def leaning(self) -> Plot | None:
        """Permutation importance."""
        groups = self.importance.get("groups") or []
        if not groups:
            return None
        loss = np.array([group["ngini_loss"] for group in groups])
        ends = [[group["ngini_loss_min"], group["ngini_loss_max"]] for group in groups]

        def paint(axes: Axes) -> None:
            place = np.arange(len(groups))
            axes.barh(place, loss, color=BLUE, xerr=_bars(loss, ends), error_kw={"capsize": 3, "ecolor": GREY})
            axes.set_yticks(place, [group["group"] for group in groups])
            axes.invert_yaxis()
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set(xlabel="nGini lost when shuffled")
            axes.grid(visible=False, axis="y")

        said = ", ".join(f"{group['group']} {group['ngini_loss']:.3f}" for group in groups[:3])
        return Plot(
            "importance",
            "What the model leans on",
            f"Loss of nGini when a group of features is shuffled among customers; most: {said}.",
            f"Permutation importance on {self.importance['customers']:,} customers, mean and range of "
            f"{self.importance['repeats']} shuffles. Groups share what they know (recency is in the orders of the last "
            "30 days too): a short bar means that the others make up for it.",
            _svg(paint),
        )

    def periods(self) -> Plot | None:
        """nGini of the model and of the best baseline in every held-out period."""
        names = [MODEL] + ([] if self.best is None else [self.best])
        styles = [("model", BLUE, "o", -0.08), (self.best or "", ORANGE, "s", 0.08)]
        if len(self.tests) < 2 or any(not test["intervals"].get(name, {}).get("ngini") for test in self.tests
                                      for name in names):  # fmt: skip
            return None
        series = {
            name: (
                np.array([test["metrics"][name]["ngini"] for test in self.tests]),
                [test["intervals"][name]["ngini"] for test in self.tests],
            )
            for name in names
        }

        named = list(zip(styles[: len(names)], series.values(), strict=True))

        def paint(axes: Axes) -> None:
            place = np.arange(len(self.tests))
            for (label, colour, marker, shift), (ngini, intervals) in named:
                axes.errorbar(place + shift, ngini, _bars(ngini, intervals), fmt=marker, color=colour, capsize=3,
                              label=label)  # fmt: skip
            axes.set_xticks(place, [f"{test['from']}\n{test['days']} days" for test in self.tests])
            axes.set(ylabel="nGini", xlim=(-0.5, len(self.tests) - 0.5))
            axes.margins(y=0.3)
            axes.legend(loc="upper left", ncols=2)

        said = "; ".join(
            f"{test['from']}: " + ", ".join(f"{label} {ngini[number]:.3f}" for (label, *_), (ngini, _) in named)
            for number, test in enumerate(self.tests)
        )
        return Plot(
            "periods",
            "Ranking in every held-out period",
            f"nGini by held-out period, with 95% intervals. {said}.",
            "The intervals are those of each figure; whether a difference is certain, the table of differences says.",
            _svg(paint),
        )


def _bars(values: Floats, intervals: Sequence[Sequence[float]]) -> Floats:
    """Lengths of error bars, shape (2, n)."""
    ends = np.array(intervals)
    return np.asarray(np.maximum(np.array([values - ends[:, 0], ends[:, 1] - values]), 0.0), dtype=np.float64)


def _percent(axes: Axes, which: str) -> None:
    if "x" in which:
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if "y" in which:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
