"""A run as one picture: a bar for each row, how much of its goal it uses up. SVG, written as text."""

from __future__ import annotations

from xml.sax.saxutils import escape

from hearth.bench.as_table import reached
from hearth.bench.result import Judged, Result
from hearth.bench.run import Run

WIDTH, MARGIN, NAMES, VALUES = 940, 24, 150, 260
HEAD, LINE, BAR, FOOT = 64, 30, 18, 34
MAX_SHARE = 2.0
"""A bar ends here; what is beyond is told in words."""
MET, MISSED, AXIS, INK, FAINT = "#3a8f5c", "#c8473c", "#444444", "#1d1d1f", "#6e6e73"
FONT = "font-family='system-ui, sans-serif'"


def render(run: Run) -> str:
    """Give the picture's text; rows without figures are counted below the bars."""
    bars = [(result, result.worst) for result in run.results]
    drawn = [(result, worst) for result, worst in bars if worst is not None]
    height = HEAD + LINE * len(drawn) + FOOT
    goal_x = _x(1.0)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='white'/>",
        _text(MARGIN, 26, f"hearth {run.version}: share of each goal used up", size=16, weight=600),
        _text(MARGIN, 46, f"{run.host.cpus} × {run.host.cpu}, Linux {run.host.kernel}", size=11, fill=FAINT),
        *(_bar(index, result, worst) for index, (result, worst) in enumerate(drawn)),
        f"<line x1='{goal_x}' y1='{HEAD - 6}' x2='{goal_x}' y2='{height - FOOT + 4}' stroke='{AXIS}' "
        "stroke-dasharray='4 3'/>",
        _text(goal_x, height - 12, "goal", size=11, anchor="middle", fill=AXIS),
        _text(MARGIN, height - 12, f"{len(bars) - len(drawn)} rows without figures", size=11, fill=FAINT),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar(index: int, result: Result, worst: Judged) -> str:
    y = HEAD + LINE * index
    length = max(_x(min(worst.share, MAX_SHARE)) - _x(0), 1)
    words = f"{reached(worst)}, goal {worst.goal}" + ("" if worst.share <= MAX_SHARE else f" ({worst.share:.1f} times)")
    middle = y + BAR - 5
    return "\n".join(
        [
            _text(MARGIN, middle, result.row.name, size=13),
            f"<rect x='{_x(0)}' y='{y}' width='{length:.1f}' height='{BAR}' rx='2' "
            f"fill='{MET if worst.met else MISSED}'><title>{escape(result.row.what)}</title></rect>",
            _text(_x(MAX_SHARE) + 10, middle, words, size=12, fill=FAINT),
        ]
    )


def _x(share: float) -> float:
    """Give where a share of a goal lies."""
    start, end = MARGIN + NAMES, WIDTH - MARGIN - VALUES
    return start + (end - start) * share / MAX_SHARE


def _text(
    x: float, y: float, words: str, *, size: int, weight: int = 400, fill: str = INK, anchor: str = "start"
) -> str:
    return (
        f"<text x='{x}' y='{y}' {FONT} font-size='{size}' font-weight='{weight}' fill='{fill}' "
        f"text-anchor='{anchor}'>{escape(words)}</text>"
    )
