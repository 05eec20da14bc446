"""SVG of Matplotlib's figures, to be placed in a page: with the page's colours and fonts, a title, and unique ids."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from html import escape
from io import StringIO
from typing import Any, NamedTuple

from dcformat_cli.terminal import printable

#: Colours of the page's style sheet by name, each with a colour that stands for it while Matplotlib draws.
_STAND_INS = {
    name: f"#0000{number:02x}"
    for number, name in enumerate(
        ("ink", "muted", "line", "card", "positions", "values", "codebooks", "tables", "payload", "contents", "checks"),
        start=1,
    )
}

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dcformat",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": False,
    "axes.linewidth": 1,
    "legend.frameon": False,
}


class Picture(NamedTuple):
    """A picture as SVG for a page, and its width in CSS pixels."""

    svg: str
    width: int


def colour(name: str) -> str:
    """Return the colour that stands for one of the page's while Matplotlib draws."""
    return _STAND_INS[name]


def picture(key: str, title: str, text: str, size: tuple[int, int], draw: Callable[[Any], None]) -> Picture:
    """Draw a figure and return it as SVG.

    Parameters
    ----------
    key : str
        A word that no other picture of the page has; its ids begin with it.
    title, text : str
        The title, and what the picture shows, for those who cannot see it.
    size : tuple of int
        Width and height in CSS pixels.
    draw : callable
        Draws on the given figure, in the colours of `colour`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(), warnings.catch_warnings():
        # Names may have characters that Matplotlib's font lacks; the browser has fonts of its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        mpl.rcdefaults()
        colours = dict.fromkeys(("text.color", "axes.labelcolor"), colour("ink"))
        colours |= dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), colour("muted"))
        mpl.rcParams.update(_SETTINGS | colours | {"grid.color": colour("line"), "axes.facecolor": "none"})
        figure = Figure((size[0] / 72, size[1] / 72), dpi=72, layout="constrained", facecolor="none")
        draw(figure)
        out = StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return Picture(_inlined(out.getvalue(), key, title, text), size[0])


def _inlined(svg: str, key: str, title: str, text: str) -> str:
    """Return SVG as part of a page: its own ids, the page's colours and fonts, a title and a description."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"font: (\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", svg)
    for name, stand_in in _STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    svg = re.sub(r"<[^>]+>", lambda tag: _short(tag[0]), svg)
    svg = re.sub(r"\n\s*", "\n", re.sub(r"<defs>\s*</defs>", "", svg))
    view = re.search(r'viewBox="([^"]*)"', svg)
    body = svg[svg.index(">") + 1 :]
    assert view is not None
    return (
        f'<svg viewBox="{view[1]}" role="img" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(printable(title))}</title>'
        f'<desc id="{key}-desc">{escape(printable(text))}</desc>{body}'
    )


def _short(tag: str) -> str:
    """Return a tag without rotations by nothing, and with one decimal place."""
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r"\d+\.\d\d+", lambda number: f"{float(number[0]):.1f}", tag)
