"""Charts of a report as SVG in its page; a network under the pointer shows its numbers and its layers."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from mindcv_mnasnet.networks.network import Network, parse_blocks
from mindcv_mnasnet.search.results import best, front, measured, standard_error
from mindcv_mnasnet.search.space import Space
from mindcv_mnasnet.search.trials import Trial

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 78, 12, 12, 48
_MOST_POINTS = 600  # the front and the best are kept
_ALL, _FRONT, _REFERENCE = "#9aa5b1", "#1f6f8b", "#c8553d"


class _Axes:
    """From values to places in an SVG, and the frame with its ticks."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]):
        self._x, self._y = _range(xs), _range(ys)

    def x(self, value: float) -> float:
        low, high = self._x
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self._y
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    def frame(self, x_label: str, y_label: str) -> str:
        parts = []
        for step in range(5):
            x = self._x[0] + step / 4 * (self._x[1] - self._x[0])
            y = self._y[0] + step / 4 * (self._y[1] - self._y[0])
            parts.append(_text(self.x(x), HEIGHT - BOTTOM + 16, f"{x:.3g}", "middle"))
            parts.append(_text(LEFT - 6, self.y(y) + 4, f"{y:.4g}", "end"))
            parts.append(_line(LEFT, self.y(y), WIDTH - RIGHT, self.y(y), "#e4e7eb"))
        parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, x_label, "middle"))
        turned = f"<text transform='translate(13,{HEIGHT / 2}) rotate(-90)' text-anchor='middle'>"
        return "".join([*parts, f"{turned}{html.escape(y_label)}</text>"])


def chart(space: Space, trials: Sequence[Trial], references: Sequence[Trial], target_ms: float) -> str:
    """Accuracy against latency: trials with error bars, their front, the references, the target."""
    line = front(trials)
    shown = {one.number: one for one in (*line, *best(trials, 50), *measured(trials)[-_MOST_POINTS:])}
    own = list(shown.values())
    known = [one for one in references if one.ok]
    every = [*own, *known]
    axes = _Axes([*(_ms(one) for one in every), target_ms], [_percent(one) for one in every])
    parts = [axes.frame("latency, ms", "accuracy, %")]
    parts.append(_line(axes.x(target_ms), TOP, axes.x(target_ms), HEIGHT - BOTTOM, "#222", "4 3"))
    parts.append(_text(axes.x(target_ms) - 4, TOP + 10, "target", "end"))
    if len(line) > 1:
        points = " ".join(f"{axes.x(_ms(one))},{axes.y(_percent(one))}" for one in line)
        parts.append(f"<polyline points='{points}' fill='none' stroke='{_FRONT}' stroke-width='1.5'/>")
    described: list[dict[str, object]] = []
    numbers = {one.number for one in line}
    for one in every:
        color = _REFERENCE if one.number < 0 else _FRONT if one.number in numbers else _ALL
        parts.append(_point(axes, one, color, len(described)))
        described.append(_described(space, one))
    data = json.dumps(described, separators=(",", ":")).replace("</", "<\\/")
    svg = _svg(parts, "accuracy against latency")
    panel = "<div class='panel' id='panel'>Point at a network, or tap it.</div>"
    return f"{svg}{panel}<script type='application/json' id='networks'>{data}</script>"


def scatter(pairs: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """Pairs of numbers, and the diagonal."""
    xs, ys = [a for a, _ in pairs], [b for _, b in pairs]
    axes = _Axes(xs, ys)
    low, high = max(min(xs), min(ys)), min(max(xs), max(ys))
    parts = [axes.frame(x_label, y_label)]
    if low < high:
        parts.append(_line(axes.x(low), axes.y(low), axes.x(high), axes.y(high), "#222", "4 3"))
    parts += [f"<circle cx='{axes.x(a)}' cy='{axes.y(b)}' r='3.5' fill='{_FRONT}'/>" for a, b in pairs]
    return _svg(parts, f"{y_label} against {x_label}")


def _point(axes: _Axes, one: Trial, color: str, place: int) -> str:
    """Error bars of one standard error, the mark, and its words for those who cannot point."""
    x, y = axes.x(_ms(one)), axes.y(_percent(one))
    parts = []
    if error := 100 * standard_error(one):
        parts.append(_line(x, axes.y(_percent(one) - error), x, axes.y(_percent(one) + error), color))
    if spread := _latency_error(one):
        parts.append(_line(axes.x(_ms(one) - spread), y, axes.x(_ms(one) + spread), y, color))
    shape = (
        f"<rect x='{x - 5}' y='{y - 5}' width='10' height='10' fill='{color}'>"
        if one.number < 0
        else f"<circle cx='{x}' cy='{y}' r='4.5' fill='{color}'>"
    )
    end = "</rect>" if one.number < 0 else "</circle>"
    title = f"<title>{html.escape(_title(one))}</title>"
    right = x > WIDTH / 2
    label = _text(x - 8 if right else x + 8, y - 8, one.label, "end" if right else "start") if one.name else ""
    return f"<g class='network' data-place='{place}' tabindex='0'>{''.join(parts)}{shape}{title}{end}{label}</g>"


def _latency_error(one: Trial) -> float:
    """Milliseconds of a latency's standard error: of its ratio, or of the mean of its calls."""
    if one.latency.get("ratio_error") is not None:
        return float(one.latency["ratio_error"]) * _ms(one)
    calls = one.latency.get("repetitions") or 0
    return float(one.latency.get("std_ms", 0.0)) / calls**0.5 if calls else 0.0


def _title(one: Trial) -> str:
    return f"{one.label}: {_percent(one):.2f} %, {_ms(one):.3g} ms"


def _described(space: Space, one: Trial) -> dict[str, object]:
    """What the panel shows: words and bars, a layer each: width, kernel, expansion, and marks."""
    network = space.network(one.tokens) if one.tokens else None
    words = [f"{one.params / 1e6:.3f} M parameters", f"{one.madds / 1e6:.1f} M multiply-adds"]
    if (error := 100 * standard_error(one)) > 0:
        words.append(f"standard error {error:.2f} points")
    if one.latency.get("ratio") is not None:
        words.append(f"{one.latency['ratio']:.3f} of the anchor's latency +- {100 * one.latency['ratio_error']:.1f} %")
    return {"title": _title(one), "words": words, "blocks": " ".join(one.blocks), "layers": _bars(network, one.blocks)}


def _bars(network: Network | None, blocks: Sequence[str]) -> list[list[object]]:
    if network is not None:
        return [[layer.out_width, _kind(layer.conv, layer.expand, layer.kernel)] for layer in network.layers()]
    specs = parse_blocks(blocks)[0]
    return [[one.out, _kind(one.conv, one.expand, one.kernel)] for one in specs for _ in range(one.repeats)]


def _kind(conv: bool, expand: int, kernel: int) -> str:
    return f"{'conv' if conv else f'e{expand}'} k{kernel}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _svg(parts: Sequence[str], label: str) -> str:
    head = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{html.escape(label)}' class='chart'>"
    return f"{head}{''.join(parts)}</svg>"


def _line(x1: float, y1: float, x2: float, y2: float, color: str, dash: str = "") -> str:
    dashed = f" stroke-dasharray='{dash}'" if dash else ""
    return f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{color}'{dashed}/>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f"<text x='{x}' y='{y}' text-anchor='{anchor}'>{html.escape(text)}</text>"


def _ms(one: Trial) -> float:
    return one.latency_ms or 0.0


def _percent(one: Trial) -> float:
    return 100 * (one.accuracy or 0.0)


SCRIPT = """
(function () {
  var source = document.getElementById("networks"), panel = document.getElementById("panel");
  if (!source || !panel) { return; }
  var networks = JSON.parse(source.textContent);
  function node(tag, text) { var one = document.createElement(tag); one.textContent = text; return one; }
  function bars(layers) {
    var most = Math.max.apply(null, layers.map(function (one) { return one[0]; }));
    var box = document.createElement("div");
    box.className = "bars";
    layers.forEach(function (one) {
      var bar = node("span", one[1]);
      bar.style.height = (14 + 70 * one[0] / most) + "px";
      bar.title = one[0] + " channels, " + one[1];
      bar.className = one[1].split(" ")[0] === "conv" ? "plain" : "inverted";
      box.appendChild(bar);
    });
    return box;
  }
  function show(event) {
    var group = event.target.closest ? event.target.closest(".network") : null;
    if (!group) { return; }
    var one = networks[Number(group.dataset.place)];
    panel.textContent = "";
    panel.appendChild(node("b", one.title));
    panel.appendChild(node("p", one.words.join(", ")));
    panel.appendChild(bars(one.layers));
    panel.appendChild(node("code", one.blocks));
  }
  ["mouseover", "click", "focusin"].forEach(function (name) { document.addEventListener(name, show); });
  document.body.dataset.ready = String(networks.length);
})();
"""
