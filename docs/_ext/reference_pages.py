"""Reference pages written from the code: every recipe key, every command's help."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from mindcv_mnasnet import cli
from mindcv_mnasnet.networks.families import NAMES
from mindcv_mnasnet.recipe.values import key_table


def recipe_keys() -> str:
    """One table per section of the recipe."""
    lines: list[str] = []
    section = None
    for key in key_table().values():
        if key.section != section:
            section = key.section
            lines += [
                "",
                f"## {section[0].upper()}{section[1:]}",
                "",
                "| key | default | takes | meaning |",
                "|---|---|---|---|",
            ]
        cells = (f"`{key.name}`", f"`{key.default}`", key.allowed(), key.rule.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def command_help(name: str) -> str:
    """What ``mnasnet NAME --help`` prints; recipe keys, which have a page of their own, are left out of train's."""
    shown, before = io.StringIO(), sys.argv
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            cli.dispatch([name, "--help"])
    finally:
        sys.argv = before
    return shown.getvalue().rstrip()


def commands() -> str:
    """Every command with its help text."""
    parts = [f"```text\n{cli.usage()}\n```"]
    parts += [f"## mnasnet {name}\n\n```text\n{command_help(name)}\n```" for name in cli.COMMANDS]
    return "\n\n".join(parts) + "\n"


def models() -> str:
    """Every model name with its family, source and width."""
    lines = ["| name | family | conventions of | width | image size |", "|---|---|---|---|---|"]
    for name, one in sorted(NAMES.items()):
        family, source, width, size = one
        lines.append(f"| `{name}` | {family} | {source} | {width} | {size} |")
    return "\n".join(lines) + "\n"


def write(app: Any) -> None:
    """Write the generated parts beside the pages that include them."""
    folder = Path(app.srcdir) / "reference"
    for name, content in (("keys", recipe_keys()), ("commands", commands()), ("models", models())):
        path = folder / f"_{name}.md"
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
