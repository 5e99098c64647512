"""Draw docs/learning_curve.svg and docs/reliability.svg from the committed results of `benchmarks.stream`.

python -m benchmarks.learning_curve
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS, DOCS = Path(__file__).parent / "results", Path(__file__).parents[1] / "docs"
LEARNING_CURVE, RELIABILITY = "learning_curve.svg", "reliability.svg"

OURS, CRF = "contract-feedback", "CRF"
INK, ACCENT = "#747c87", "#1f7ae0"  # both readable on GitHub's white and on its dark background
TITLES = {"cuad": "CUAD: English contracts", "lener_br": "LeNER-Br: Portuguese legal documents"}
LABELS = {OURS: (4, 11, "right"), CRF: (4, -18, "right")}  # offset in points from the last marker, and the aligned side


def main() -> None:
    draw(DOCS)


def draw(folder: Path) -> None:
    """Draw value F1 by contracts, and reliability, of both corpora. The same results give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": OURS, "font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        for name, plot, label in (
            (LEARNING_CURVE, _plot_curves, "value F1 on unseen documents"),
            (RELIABILITY, _plot_reliability, "share of values that is right"),
        ):
            figure = Figure(figsize=(9.2, 3.9), layout="constrained")
            left, right = figure.subplots(1, 2, sharey=True)
            left.set_ylabel(label)
            for axes, corpus in zip((left, right), TITLES, strict=True):
                axes.set_title(TITLES[corpus], loc="left", pad=12, fontweight="bold")
                plot(axes, json.loads((RESULTS / f"stream_{corpus}.json").read_text())["results"]["rows"])
                axes.minorticks_off()
                axes.tick_params(colors=INK, length=0)
                axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.7)
                axes.spines[:].set_visible(False)
            figure.savefig(folder / name, transparent=True, metadata={"Date": None, "Creator": None})


def _plot_curves(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for system in LABELS:
        _plot_curve(axes, system, [row for row in rows if row["system"] == system])
    axes.set(xscale="log", xlim=(4.6, 215), ylim=(-0.04, 0.92), xlabel="annotated documents (log scale)")
    axes.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8])


def _plot_curve(axes: Axes, system: str, rows: list[dict[str, Any]]) -> None:
    colour, width, weight = (ACCENT, 2.6, "bold") if system == OURS else (INK, 1.3, "normal")
    contracts, scores = [row["contracts"] for row in rows], [row["value_f1"] for row in rows]
    axes.plot(contracts, scores, "o-", color=colour, linewidth=width, markersize=4, clip_on=False)
    right, above, side = LABELS[system]
    axes.annotate(
        f"{system}  {scores[-1]:.2f}",
        (contracts[-1], scores[-1]),
        (right, above),
        textcoords="offset points",
        horizontalalignment=side,
        color=colour,
        fontweight=weight,
    )


def _plot_reliability(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Plot the share of extracted values that is right by their confidence; the area of a dot is their number."""
    last = [row for row in rows if row["system"] == OURS][-1]
    confidences, right, sizes = ([each[name] for each in last["bins"]] for name in ("confidence", "right", "size"))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1)
    axes.plot(confidences, right, color=ACCENT)
    axes.scatter(confidences, right, [10 + 600 * size / sum(sizes) for size in sizes], color=ACCENT, clip_on=False)
    described = (
        f"{sum(sizes)} values after {last['contracts']} documents\ncalibration error {last['calibration_error']:.3f}"
    )
    axes.text(0.98, 0.04, described, horizontalalignment="right")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")


if __name__ == "__main__":
    main()
