"""Draw docs/learning_curve.svg from the committed results: value F1 by annotated documents, beside the peers.

python -m benchmarks.learning_curve
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "learning_curve.svg"

OURS = "contract-feedback"
INK, ACCENT = "#747c87", "#1f7ae0"  # both readable on GitHub's white and on its dark background
DASHES = {OURS: "-", "CRF": "-", "spaCy": (0, (5, 2)), "Trainer": (0, (1, 1.5))}
TITLES = {"cuad": "CUAD: English contracts", "lener_br": "LeNER-Br: Portuguese legal documents"}
LABELS = {  # the label's offset in points from the system's last marker, and the side that is aligned
    "cuad": {OURS: (4, 11, "right"), "CRF": (9, -4, "left"), "spaCy": (9, -4, "left"), "Trainer": (9, 3, "left")},
    "lener_br": {OURS: (4, -22, "right"), "CRF": (4, 9, "right")},
}


def main() -> None:
    draw(PICTURE)
    print(PICTURE)


def draw(path: Path) -> None:
    """Draw both corpora side by side. The same results give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": OURS, "font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(9.2, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, corpus in ((left, "cuad"), (right, "lener_br")):
            rows = _read_rows(corpus)
            for system in LABELS[corpus]:
                _plot(axes, corpus, system, [row for row in rows if row["system"] == system])
            _set_axes(axes, TITLES[corpus])
        left.set_ylabel("value F1 on unseen documents")
        right.text(5, 0.06, "○  measured in another run on the same documents", fontsize=9)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def _read_rows(corpus: str) -> list[dict[str, Any]]:
    measured = json.loads((RESULTS / f"stream_{corpus}.json").read_text())["results"]["rows"]
    other_runs = json.loads((RESULTS / "stream_other_runs.json").read_text())[corpus]
    return [row | {"other_run": False} for row in measured] + [row | {"other_run": True} for row in other_runs]


def _plot(axes: Axes, corpus: str, system: str, rows: list[dict[str, Any]]) -> None:
    colour, width, weight = (ACCENT, 2.6, "bold") if system == OURS else (INK, 1.3, "normal")
    contracts, scores = [row["contracts"] for row in rows], [row["value_f1"] for row in rows]
    axes.plot(contracts, scores, color=colour, linewidth=width, linestyle=DASHES[system])
    for row in rows:
        filling = "none" if row["other_run"] else colour
        axes.plot(row["contracts"], row["value_f1"], "o", color=colour, markerfacecolor=filling, clip_on=False)
    right, above, side = LABELS[corpus][system]
    axes.annotate(
        f"{system}  {scores[-1]:.2f}",
        (contracts[-1], scores[-1]),
        (right, above),
        textcoords="offset points",
        horizontalalignment=side,
        color=colour,
        fontweight=weight,
    )


def _set_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", pad=12, fontweight="bold")
    axes.set(xscale="log", xlim=(4.6, 106), ylim=(-0.04, 0.86), xlabel="annotated documents (log scale)")
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8])
    axes.minorticks_off()
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.7)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
