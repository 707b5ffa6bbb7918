"""What the pages of this program share: their style, figures within them, tables."""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG = 40  # letters of a cell that is given room
PER_INCH = 90  # pixels of a figure's inch at least, so that letters of 8 points are read
WIDEST = 920  # pixels that a page has for it where the window is wide

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
    """A whole HTML page.

    Args:
        title: a text, also the heading.
        body: HTML.
        style: further rules.
    """
    name = html.escape(title)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}{style}</style><h1>{name}</h1>{body}</html>\n"
    )


def drawn(figure: Figure, kind: str = "png") -> bytes:
    """A figure as a file: ``png``, ``pdf`` or ``svg``; fonts of a PDF are embedded as TrueType, as journals ask."""
    import matplotlib as mpl  # late: half a second that a refused command does without

    file = io.BytesIO()
    with mpl.rc_context({"font.size": 9, "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")  # a letter of a name, which shows as a box
        figure.savefig(file, dpi=130, format=kind)
    return file.getvalue()


def picture(figure: Figure, name: str = "", png: bytes | None = None) -> str:
    """A figure within a page, at a size at which its text can be read: a narrow page scrolls.

    Args:
        name: what it shows, in a few words.
        png: the figure, where it is drawn already.
    """
    source = base64.b64encode(drawn(figure) if png is None else png).decode()
    least = f"min-width:{min(figure.get_figwidth() * PER_INCH, WIDEST):.0f}px"
    alt = html.escape(name, quote=True)
    return f'<div class="wide"><img alt="{alt}" style="{least}" src="data:image/png;base64,{source}"></div>'


def table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Collection[str] = (),
    bold: Collection[tuple[int, int]] = (),
) -> str:
    """Texts in rows and columns: numbers to the right.

    Args:
        names: of the columns.
        words: those that hold words, to the left.
        bold: row and column of cells that stand out.
    """
    sides = [" words" if name in words else "" for name in names]

    def cell(tag: str, text: str, side: str, strong: bool = False) -> str:
        kind = f"{side}{' long' if len(text) > LONG else ''}".strip()
        told, text = (f' class="{kind}"' if kind else ""), html.escape(text)
        return f"<{tag}{told}>{f'<b>{text}</b>' if strong else text}</{tag}>"

    lines = ["".join(cell("th", name, side) for name, side in zip(names, sides, strict=True))]
    for n, row in enumerate(rows):
        cells = enumerate(zip(row, sides, strict=True))
        lines.append("".join(cell("td", text, side, (n, k) in bold) for k, (text, side) in cells))
    return f"<table><tr>{'</tr><tr>'.join(lines)}</tr></table>"
