"""Building blocks of the HTML pages: style, embedded figures, tables."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 40  # characters above which a cell wraps
PER_INCH = 90  # minimum pixels per inch of a figure, so that 8-point text is legible
MAX_WIDTH = 920  # width of the page's content in a wide window, in pixels

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#999, #666); --code: light-dark(#f3f3f3, #2a2a2a) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: light-dark(#222, #ddd); background: light-dark(#fff, #161616); overflow-wrap: anywhere }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal }
td, th { padding: .2rem .9rem .2rem 0; text-align: right; vertical-align: top; white-space: nowrap }
.words { text-align: left } .long { white-space: normal; min-width: 14rem }
th { border-bottom: 1px solid var(--line); font-weight: 600 }
img { max-width: 100%; background: #fff } p { max-width: 46rem } code { background: var(--code); padding: 0 .25em }
pre, .wide { overflow-x: auto } .cards { display: flex; flex-wrap: wrap; gap: 1rem }
dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem } summary { cursor: pointer }
figure { margin: 0; width: 9.5rem; font-size: .85rem } figure img { width: 100%; border-radius: 4px }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A complete HTML page.

    Args:
        title: plain text, also used as the heading.
        body: HTML.
        style: additional CSS rules.
    """
    name = html.escape(title)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}{style}</style><h1>{name}</h1>{body}</html>\n"
    )


def render(figure: Figure, kind: str = "png") -> bytes:
    """Render a figure as ``png``, ``pdf`` or ``svg``; PDFs embed TrueType fonts, as journals require."""
    import matplotlib as mpl  # late: takes half a second, which a refused command need not wait for

    file = io.BytesIO()
    with mpl.rc_context({"font.size": 9, "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # shown as a box
        figure.savefig(file, dpi=130, format=kind)
    return file.getvalue()


def picture(figure: Figure, name: str = "", png: bytes | None = None) -> str:
    """An embedded figure, large enough for its text to be legible: a narrow page scrolls.

    Args:
        name: short description, for the alt text.
        png: the figure, if it has been rendered already.
    """
    source = base64.b64encode(render(figure) if png is None else png).decode()
    width = f"min-width:{min(figure.get_figwidth() * PER_INCH, MAX_WIDTH):.0f}px"
    alt = html.escape(name, quote=True)
    return f'<div class="wide"><img alt="{alt}" style="{width}" src="data:image/png;base64,{source}"></div>'


def table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Collection[str] = (),
    bold: Collection[tuple[int, int]] = (),
) -> str:
    """An HTML table.

    Args:
        names: the column headers.
        words: names of text columns, which are left-aligned; others are right-aligned.
        bold: (row, column) of cells in bold.
    """
    classes = [" words" if name in words else "" for name in names]

    def cell(tag: str, text: str, css_class: str, strong: bool = False) -> str:
        kind = f"{css_class}{' long' if len(text) > LONG else ''}".strip()
        attribute, text = (f' class="{kind}"' if kind else ""), html.escape(text)
        return f"<{tag}{attribute}>{f'<b>{text}</b>' if strong else text}</{tag}>"

    lines = ["".join(cell("th", name, css_class) for name, css_class in zip(names, classes, strict=True))]
    for n, row in enumerate(rows):
        cells = enumerate(zip(row, classes, strict=True))
        lines.append("".join(cell("td", text, css_class, (n, k) in bold) for k, (text, css_class) in cells))
    return f"<table><tr>{'</tr><tr>'.join(lines)}</tr></table>"
