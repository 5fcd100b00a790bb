"""Draw the figures as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes

from bench.growth import Curve, Point
from bench.machine import RESULTS
from bench.report import COLUMNS, Figure

COLOURS = ("#1b6ca8", "#c44e2b", "#8a6db1", "#8c8c8c", "#4c9a52")
mpl.rcParams.update({"svg.hashsalt": "holdfast", "svg.fonttype": "none", "font.size": 9})
_PLAIN = {"Date": None, "Creator": None}  # without metadata, equal figures give equal files


def bars(figures: Sequence[Figure]) -> None:
    """Write `bench.svg`: the median of each side for each quantity, on a logarithmic scale (base 10)."""
    shown = [figure for figure in figures if len(figure.sides) > 1 and min(figure.medians.values()) > 0]
    canvas, axes = pyplot.subplots(len(shown), 1, figsize=(8, 1.15 * len(shown)), squeeze=False)
    for axis, figure in zip(axes[:, 0], shown, strict=True):
        _bars(axis, figure)
    canvas.tight_layout()
    RESULTS.mkdir(exist_ok=True)
    canvas.savefig(RESULTS / "bench.svg", metadata=_PLAIN)
    pyplot.close(canvas)


def _bars(axis: Axes, figure: Figure) -> None:
    names = list(figure.sides)
    medians = [figure.medians[name] for name in names]
    colours = [COLOURS[COLUMNS.index(name)] for name in names]
    axis.barh(names, medians, color=colours)
    for number, value in enumerate(medians):
        axis.text(value, number, f" {value:,.4g}", va="center")
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 3, max(medians) * 6)
    axis.invert_yaxis()
    axis.set_title(f"{figure.name} {figure.unit}".strip(), loc="left", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def curves(grown: Sequence[Curve]) -> None:
    """Write `growth-NAME.svg`: events a second, latency and cores, over the quantity that grows."""
    RESULTS.mkdir(exist_ok=True)
    for curve in grown:
        canvas, axes = pyplot.subplots(1, 3, figsize=(11, 3.2))
        at = [point.at for point in curve.points]
        _line(axes[0], at, curve, "events a second", {"": lambda point: point.per_second})
        latencies: dict[str, Callable[[Point], float]] = {
            "p50": lambda point: point.p50,
            "p99": lambda point: point.p99,
        }
        _line(axes[1], at, curve, "ms", latencies)
        cores: dict[str, Callable[[Point], float]] = {
            "server": lambda point: point.server,
            "Redis": lambda point: point.redis,
        }
        _line(axes[2], at, curve, "cores", cores)
        canvas.suptitle(curve.title, fontsize=10)
        canvas.tight_layout()
        canvas.savefig(RESULTS / f"growth-{curve.name}.svg", metadata=_PLAIN)
        pyplot.close(canvas)


def _line(
    axis: Axes, at: list[float], curve: Curve, unit: str, lines: dict[str, Callable[[Point], float]]
) -> None:
    for colour, (name, value) in zip(COLOURS, lines.items(), strict=False):
        axis.plot(at, [value(point) for point in curve.points], marker="o", color=colour, label=name)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(curve.grown)
    axis.set_title(unit, loc="left", fontsize=9)
    axis.grid(visible=True, alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axis.legend(frameon=False)
