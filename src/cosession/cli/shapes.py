"""What the picture of a trace is drawn with: colours, shapes, and text that XML takes. Pure."""

from __future__ import annotations

import colorsys
from xml.sax.saxutils import escape

from .output import printable

SLICE = 3
"""Pixels: the width of a column."""

_COLOURS = (
    "#3b7dd8", "#e07b39", "#2f9e6e", "#c2509d", "#8467d7", "#bd961a", "#1f9fb3", "#d1495b",
)  # fmt: skip

STYLE = """\
  .paper { fill: #ffffff }
  .ink { fill: #1f2328 }
  .faint { fill: #626a73 }
  .grid { stroke: #e3e7eb }
  .lane { fill: #f6f8fa }
  .cut { stroke: #cf222e }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
  .title { font-size: 17px; font-weight: 600 }
  .name { font-weight: 600 }
  .small { font-size: 11px }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 }
    .ink { fill: #e6edf3 }
    .faint { fill: #9198a1 }
    .grid { stroke: #2a313a }
    .lane { fill: #161b22 }
    .cut { stroke: #ff7b72 }
  }
"""


def colour_of(number: int) -> str:
    """A colour for each terminal, also for many of them."""
    if number < len(_COLOURS):
        return _COLOURS[number]
    red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1, 0.5, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def pattern(name: str, colour: str) -> str:
    return (
        f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)">'
        f'<rect width="6" height="6" fill="{colour}" fill-opacity="0.14"/>'
        f'<rect width="2" height="6" fill="{colour}" fill-opacity="0.5"/></pattern>'
    )


def column(x: float, y: float, height: float, more: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.2f}" width="{SLICE}" height="{height:.2f}"{more}/>'


def cross(x: float, y: float, size: float) -> str:
    return (
        f'<path class="cut" d="M{x - size:.1f} {y - size:.1f}l{2 * size} {2 * size}'
        f'm0 {-2 * size}l{-2 * size} {2 * size}" stroke-width="2" stroke-linecap="round"/>'
    )


def stop_mark(x: float, y: float, height: float) -> str:
    return f'<path class="cut" d="M{x:.1f} {y:.1f}v{height}" stroke-width="2"/>'


def shortened(text: str, length: int) -> str:
    """A text that fits, its end kept: that is where names differ."""
    return text if len(text) <= length else "…" + text[1 - length :]


def xml_text(text: str) -> str:
    """Text for XML, which has no control characters even as escapes."""
    return escape(printable(text).replace("\ufffe", "?").replace("\uffff", "?"))
