"""Reports as Markdown and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A part of a report: sentences, a table (the first row is its head), images by their paths.

    ``chart`` is HTML that the page shows, and ``still`` an image that the Markdown has in its place.
    """

    title: str
    sentences: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    images: tuple[Path, ...] = ()
    chart: str = ""
    still: Path | None = None


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The text, with images beside it."""
    lines = [f"# {title}", ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for sentence in section.sentences:
            lines += [sentence, ""]
        for number, row in enumerate(section.table):
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
            if number == 0:
                lines.append("|" + " --- |" * len(row))
        lines += [""] * bool(section.table)
        for image in (*([section.still] if section.still else []), *section.images):
            lines += [f"![{section.title}]({image.name})", ""]
    return "\n".join(lines)


_STYLE = (
    "body{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.5;color:#222}"
    "table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}"
    "th,td{padding:.2rem .6rem;border-bottom:1px solid #ddd;text-align:left}img{max-width:100%}h2{margin-top:2.2rem}"
    ".chart{width:100%;height:auto;max-width:44rem}.chart text{font-size:11px;fill:#444}.network{cursor:pointer}"
    ".network:hover circle,.network:focus circle{stroke:#222;stroke-width:2}"
    ".panel{border:1px solid #ddd;border-radius:6px;padding:.6rem .8rem;min-height:6rem;overflow-wrap:anywhere}"
    ".bars{display:flex;gap:2px;align-items:flex-end;overflow-x:auto;margin:.4rem 0}"
    ".bars span{font-size:.6rem;min-width:1.9rem;padding:1px;color:#fff;border-radius:2px 2px 0 0;text-align:center}"
    ".plain{background:#8a5a83}.inverted{background:#1f6f8b}"
    "@media(max-width:40rem){body{margin:1rem auto;font-size:.95rem}.chart text{font-size:15px}}"
)


def page(title: str, sections: Sequence[Section], script: str = "") -> str:
    """One file with its images in it; ``script`` runs at its end."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in section.sentences]
        parts.append(section.chart)
        if section.table:
            rows = []
            for number, row in enumerate(section.table):
                tag = "th" if number == 0 else "td"
                rows.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
            parts.append(f"<table>{''.join(rows)}</table>")
        for image in section.images:
            data = base64.b64encode(image.read_bytes()).decode()
            parts.append(f"<p><img alt='{html.escape(section.title)}' src='data:image/png;base64,{data}'></p>")
    parts += [f"<script>{script}</script>"] if script else []
    return "".join([*parts, "</body></html>\n"])
