"""A trace as a picture: an SVG with a lane for each terminal. Pure.

1. In a lane, the upper band has the turns and the waits for them, each as a bar. The lower one has
   the commits. A commit takes microseconds: the band is cut into slices of a few pixels, and the
   height of each says for how much of it a commit's lock was held, and waited for. What there is
   at all is high enough to be seen.
2. Bars that would be narrower than a pixel are widened, and those that then lie on each other are
   drawn as one. `data-holds` says how many holds a shape stands for.
3. The file needs nothing else: no scripts, no fonts, no links. It follows the dark or light mode of
   whoever looks at it. Resting on a shape tells what it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor

from .contention import covered, figures
from .shapes import (
    SLICE,
    STYLE,
    colour_of,
    column,
    cross,
    pattern,
    shortened,
    stop_mark,
    xml_text,
)
from .spans import Index, Span, Terminal, Trace
from .words import duration, of_day, ticks

_WIDTH = 1200
_LEFT, _RIGHT = 216, 28
"""Pixels beside the lanes: for their names, and for half of the last label of the axis."""
_TURNS, _COMMITS, _COMMITS_ALONE = 20, 12, 30
"""Heights of the bands in a lane."""
_GAP = 16
_THIN = 2.0
_LOW = 4.0
"""Pixels: the least width of a bar, and the least height of a slice."""


def render(trace: Trace) -> str:
    """The whole picture, as text."""
    return _Picture(trace).text()


@dataclass
class _Bar:
    """Spans that are drawn as one rectangle."""

    left: float
    right: float
    spans: list[Span]


class _Picture:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._index = Index(trace.spans)
        self._colours = {t: colour_of(number) for number, t in enumerate(trace.terminals)}
        self._start = trace.start
        self._scale = (_WIDTH - _LEFT - _RIGHT) / max(1, trace.stop - trace.start)
        self._turns = any(span.lock == "turn" for span in trace.spans)
        self._commits = any(span.lock == "commit" for span in trace.spans)
        self._commit_height = _COMMITS if self._turns else _COMMITS_ALONE
        self._out: list[str] = []
        self._y = 0.0

    def text(self) -> str:
        self._heading()
        top = self._y
        below, above = self._lanes()
        labels, grid = self._axis(top, self._y)
        size = f'width="{_WIDTH}" height="{self._y + 20:.0f}"'
        box = f'viewBox="0 0 {_WIDTH} {self._y + 20:.0f}"'
        patterns = [pattern(f"hatch-{n}", c) for n, c in enumerate(self._colours.values())]
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img">',
            f"<title>{xml_text(self._title())}</title>",
            f"<style>\n{STYLE}</style>",
            "<defs>",
            *patterns,
            pattern("hatch-any", "#808890"),
            "</defs>",
            f'<rect class="paper" {size}/>',
        ]
        return "\n".join([*parts, *self._out, *below, *grid, *above, *labels, "</svg>\n"])

    # ---- above the lanes ------------------------------------------------------------------------

    def _title(self) -> str:
        sessions = self._trace.sessions
        return sessions[0] if len(sessions) == 1 else f"{len(sessions)} sessions"

    def _heading(self) -> None:
        title = shortened(self._title(), 110)
        self._out.append(f'<text class="ink title" x="16" y="30">{xml_text(title)}</text>')
        self._out.append(f'<text class="faint" x="16" y="50">{xml_text(self._summary())}</text>')
        self._y = 66
        self._legend()

    def _summary(self) -> str:
        trace = self._trace
        began = of_day(trace.start)
        parts = [
            _counted(len(trace.terminals), "terminal"),
            f"{duration(trace.stop - trace.start)} from {began:%Y-%m-%d %H:%M:%S}",
        ]
        lock = figures(trace, "turn" if self._turns else "commit")
        share = lock.held / max(1, trace.stop - trace.start)
        what = "turns" if self._turns else "the lock"
        parts.append(f"{what} held {share:.0%} of the time")
        if lock.longest_wait is not None:
            who = next(iter(lock.holders), None)
            wait = f"longest wait {duration(lock.longest_wait.length)}"
            wait += f": {lock.longest_wait.terminal.name}"
            parts.append(wait + (f", for {who.name}" if who else ""))
        return " · ".join(parts)

    def _legend(self) -> None:
        x = 16.0
        entries = []
        if self._turns:
            entries += [("turn", "has the turn"), ("wait", "waits for it")]
        if self._commits:
            entries += [("commit", "commits (height: share of the time)")]
            if any(span.lock == "commit" and span.kind == "wait" for span in self._trace.spans):
                entries += [("commit-wait", "waits to commit")]
        if any(span.ending in ("cut short", "open") for span in self._trace.spans):
            entries += [("cut", "no end recorded: killed, or still on")]
        if any(span.ending == "gave up" for span in self._trace.spans):
            entries += [("gave up", "gave up waiting")]
        for kind, words in entries:
            self._out.append(self._sample(kind, x, self._y))
            self._out.append(
                f'<text class="faint small" x="{x + 30:.1f}" y="{self._y + 10:.1f}">{words}</text>'
            )
            x += 30 + 5.7 * len(words) + 26
        self._y += 30

    def _sample(self, kind: str, x: float, y: float) -> str:
        grey = "#808890"
        match kind:
            case "turn":
                return f'<rect x="{x}" y="{y}" width="24" height="12" rx="2" fill="{grey}"/>'
            case "wait":
                return f'<rect x="{x}" y="{y}" width="24" height="12" fill="url(#hatch-any)"/>'
            case "commit":
                heights = (5, 9, 3, 7, 11, 4, 6, 3)
                return "".join(
                    f'<rect x="{x + 3 * number:.1f}" y="{y + 12 - height}" width="2.6" '
                    f'height="{height}" fill="{grey}"/>'
                    for number, height in enumerate(heights)
                )
            case "commit-wait":
                return (
                    f'<rect x="{x}" y="{y}" width="24" height="12" fill="{grey}" '
                    'fill-opacity="0.35"/>'
                )
            case "cut":
                return f'<rect x="{x}" y="{y}" width="20" height="12" fill="{grey}"/>' + cross(
                    x + 20, y + 6, 5
                )
        return f'<rect x="{x}" y="{y}" width="20" height="12" fill="url(#hatch-any)"/>' + stop_mark(
            x + 20, y, 12
        )

    # ---- the lanes ------------------------------------------------------------------------------

    def _lanes(self) -> tuple[list[str], list[str]]:
        """What lies below the grid, and what lies on it."""
        below: list[str] = []
        above: list[str] = []
        if self._turns:
            for session in self._trace.sessions:
                above += self._whose_turn(session)
        for terminal in self._trace.terminals:
            height = _TURNS * self._turns + (2 + self._commit_height) * self._commits
            below.append(
                f'<rect class="lane" x="{_LEFT}" y="{self._y:.1f}" '
                f'width="{_WIDTH - _LEFT - _RIGHT}" height="{height}"/>'
            )
            above += self._name(terminal, height)
            spans = [span for span in self._trace.spans if span.terminal == terminal]
            if self._turns:
                above += self._turn_band([span for span in spans if span.lock == "turn"], terminal)
            if self._commits:
                base = self._y + height
                commits = [span for span in spans if span.lock == "commit"]
                above += self._commit_band(commits, terminal, base)
            self._y += height + _GAP
        return below, above

    def _whose_turn(self, session: str) -> Iterator[str]:
        """One row with everybody's turns on a session."""
        holds = [s for s in self._trace.spans if (s.lock, s.kind) == ("turn", "hold")]
        holds = [hold for hold in holds if hold.session == session]
        if not holds:
            return
        name = "whose turn"
        if len(self._trace.sessions) > 1:
            file = session.replace("\\", "/").rpartition("/")[2]
            name += f": {shortened(file, 14)}"
        yield (
            f'<text class="faint" x="{_LEFT - 12}" y="{self._y + 11:.1f}" text-anchor="end">'
            f"{xml_text(name)}</text>"
        )
        drawn = 0.0
        for hold in holds:
            left, right = self._x(hold.start), self._x(hold.stop)
            if right - drawn < 0.5:  # nothing of it would be seen
                continue
            drawn = max(right, left + 0.5)
            yield (
                f'<rect x="{left:.2f}" y="{self._y:.1f}" width="{drawn - left:.2f}" height="14" '
                f'fill="{self._colours[hold.terminal]}">'
                f"<title>{xml_text(self._about(hold))}</title></rect>"
            )
        self._y += 14 + _GAP

    def _name(self, terminal: Terminal, height: float) -> Iterator[str]:
        colour = self._colours[terminal]
        y = self._y + height / 2
        yield (
            f"<g><title>{xml_text(self._introduction(terminal))}</title>"
            f'<rect x="16" y="{y - 13:.1f}" width="6" height="26" rx="2" fill="{colour}"/>'
            f'<text class="ink name" x="30" y="{y - 2:.1f}">'
            f"{xml_text(shortened(terminal.name, 22))}</text>"
            f'<text class="faint small" x="30" y="{y + 12:.1f}">'
            f"{xml_text(self._figures_of(terminal))}</text></g>"
        )

    def _introduction(self, terminal: Terminal) -> str:
        where = f"{terminal.user or '?'}@{terminal.host}" if terminal.host else ""
        return "\n".join(filter(None, (terminal.name, where, terminal.tty)))

    def _figures_of(self, terminal: Terminal) -> str:
        lock = "turn" if self._turns else "commit"
        own = [s for s in self._trace.spans if (s.terminal, s.lock) == (terminal, lock)]
        holds = sum(s.kind == "hold" and (lock == "turn" or bool(s.operations)) for s in own)
        waited = sum(span.length for span in own if span.kind == "wait")
        return f"{_counted(holds, lock)} · " + (
            f"waited {duration(waited)}" if waited else "never waited"
        )

    def _turn_band(self, spans: Sequence[Span], terminal: Terminal) -> Iterator[str]:
        number = list(self._colours).index(terminal)
        colour = self._colours[terminal]
        for bar in self._bars([span for span in spans if span.kind == "wait"]):
            yield self._rectangle(bar, f"url(#hatch-{number})", "wait", 0)
            if bar.spans[-1].ending == "gave up":
                yield stop_mark(bar.right, self._y, _TURNS)
            elif bar.spans[-1].ending != "ended":
                yield cross(bar.right, self._y + _TURNS / 2, 5)
        for bar in self._bars([span for span in spans if span.kind == "hold"]):
            yield self._rectangle(bar, colour, "turn", min(2.0, (bar.right - bar.left) / 4))
            if any(span.ending != "ended" for span in bar.spans):
                yield cross(bar.right, self._y + _TURNS / 2, 5)

    def _bars(self, spans: Sequence[Span]) -> list[_Bar]:
        """Bars that can be seen, those that would lie on each other made one."""
        bars: list[_Bar] = []
        for span in spans:
            left = self._x(span.start)
            right = max(self._x(span.stop), left + _THIN)
            if bars and left < bars[-1].right and right - left <= 2 * _THIN:
                bars[-1].right = max(bars[-1].right, right)
                bars[-1].spans.append(span)
            else:
                bars.append(_Bar(left, right, [span]))
        return bars

    def _rectangle(self, bar: _Bar, fill: str, kind: str, radius: float) -> str:
        count = f' data-holds="{len(bar.spans)}"' if kind == "turn" else ""
        return (
            f'<rect class="{kind}"{count} x="{bar.left:.2f}" y="{self._y:.1f}" '
            f'width="{bar.right - bar.left:.2f}" height="{_TURNS}" rx="{radius:.1f}" '
            f'fill="{fill}"><title>{xml_text(self._about(*bar.spans))}</title></rect>'
        )

    def _commit_band(self, spans: Sequence[Span], terminal: Terminal, base: float) -> Iterator[str]:
        colour, height = self._colours[terminal], self._commit_height
        width = SLICE / self._scale
        held = self._sliced(spans, "hold")
        waited = self._sliced(spans, "wait")
        for place in sorted(held.keys() | waited.keys()):
            begin = self._start + place * width
            holds = [s for s, _ in held[place] if floor((s.start - self._start) / width) == place]
            solid = min(1.0, _sum(held[place]) / width) * height
            solid = max(solid, _LOW) if held[place] else 0.0
            light = min(1.0, _sum(waited[place]) / width) * height
            light = min(light, height - solid)
            x = _LEFT + place * SLICE
            yield (
                f'<g class="commit" data-holds="{len(holds)}" fill="{colour}">'
                f"<title>{xml_text(self._about_slice(begin, width, held[place], waited[place]))}"
                "</title>"
            )
            if light > 0:
                yield column(x, base - solid - light, light, ' fill-opacity="0.35"')
            if solid > 0:
                yield column(x, base - solid, solid)
            yield "</g>"
            if any(hold.ending != "ended" for hold in holds):
                yield cross(x + SLICE / 2, base - height / 2, 4)

    def _sliced(self, spans: Sequence[Span], kind: str) -> defaultdict[int, list[tuple[Span, int]]]:
        """What lies in each slice of time, and for how many microseconds."""
        slices: defaultdict[int, list[tuple[Span, int]]] = defaultdict(list)
        width = SLICE / self._scale
        for span in spans:
            if span.kind != kind:
                continue
            first = floor((span.start - self._start) / width)
            last = max(first, floor((span.stop - self._start) / width))
            for place in range(first, last + 1):
                begin = self._start + place * width
                part = min(span.stop, begin + width) - max(span.start, begin)
                slices[place].append((span, round(max(0, part))))
        return slices

    # ---- words ----------------------------------------------------------------------------------

    def _about(self, *spans: Span) -> str:
        """What to say of a bar."""
        first = spans[0]
        if len(spans) > 1:
            total = covered((span.start, span.stop) for span in spans)
            what = "turns" if first.kind == "hold" else "waits for a turn"
            times = f"{self._clock(first.start)}, {duration(total)} in all"
            return f"{first.terminal.name}\n{len(spans)} {what}\n{times}"
        lines = [first.terminal.name]
        times = f"{self._clock(first.start)}, {duration(first.length)}"
        if first.kind == "hold":
            lines.append(f"turn: {first.label}" if first.label else "turn")
        else:
            lines.append("waited for a turn")
        lines.append(times + {"gave up": ", gave up", "ended": ""}.get(first.ending, ", no end"))
        if first.kind == "wait":
            for holder, share in list(self._index.holders(first).items())[:6]:
                lines.append(f"{duration(share)} for {holder.name}")
        return "\n".join(lines)

    def _about_slice(
        self,
        begin: float,
        width: float,
        held: Sequence[tuple[Span, int]],
        waited: Sequence[tuple[Span, int]],
    ) -> str:
        names = Counter(name for span, _ in held for name in span.operations)
        passes = sum(bool(span.operations) for span, _ in held)
        lines = [f"{self._clock(round(begin))}, {duration(round(width))}"]
        if passes:
            done = ", ".join(f"{count} × {name}" for name, count in names.most_common(5))
            lines.append(f"{_counted(passes, 'commit')}: {done}")
        if passes < len(held):
            lines.append(f"{_counted(len(held) - passes, 'look')} for what is left over")
        if held:
            lines.append(f"held {duration(_sum(held))}")
        if waited:
            lines.append(f"waited {duration(_sum(waited))}")
        return "\n".join(lines)

    def _clock(self, time: int) -> str:
        moment = of_day(time)
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"

    # ---- the axis -------------------------------------------------------------------------------

    def _axis(self, top: float, bottom: float) -> tuple[list[str], list[str]]:
        """The labels below the lanes, and the lines behind them."""
        bottom -= _GAP / 2
        labels, lines = [], []
        for time, label in ticks(self._trace.stop - self._trace.start):
            x = _LEFT + time * self._scale
            lines.append(
                f'<line class="grid" x1="{x:.1f}" y1="{top - 4:.1f}" x2="{x:.1f}" '
                f'y2="{bottom:.1f}"/>'
            )
            labels.append(
                f'<text class="faint small" x="{x:.1f}" y="{bottom + 16:.1f}" '
                f'text-anchor="middle">{label}</text>'
            )
        return labels, lines

    def _x(self, time: int) -> float:
        return _LEFT + (time - self._start) * self._scale


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _sum(parts: Sequence[tuple[Span, int]]) -> int:
    return sum(part for _, part in parts)
