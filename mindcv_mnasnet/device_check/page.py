"""A device check as a page for people and as JSON to attach to an issue, without names of hosts, users or folders."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Mapping
from typing import Any

from mindcv_mnasnet.device_check.parts import FAILED, NOT_HERE, OK, PARTS, Outcome

_PATH = re.compile(r"(?<![\w./])~?(?:/[\w.@+-]+){2,}/?")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_MARKS = {OK: "ok", FAILED: "FAILED", NOT_HERE: "-"}


def report(device: str, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Everything that was found, as JSON-able values without names of this machine."""
    whole = {"device": device, "parts": {name: outcome.to_dict() for name, outcome in outcomes.items()}}
    cleaned: dict[str, Any] = anonymous(whole)
    return cleaned


def page(device: str, outcomes: Mapping[str, Outcome]) -> str:
    """One line per part, and how many failed."""
    width = max(map(len, PARTS))
    lines = [f"device check on {device}", ""]
    lines += [
        f"{name:{width}}  {_MARKS[outcome.state]:6}  {outcome.words} ({outcome.seconds:.0f} s)"
        for name, outcome in outcomes.items()
    ]
    failed = [name for name, outcome in outcomes.items() if outcome.state == FAILED]
    missing = [name for name, outcome in outcomes.items() if outcome.state == NOT_HERE]
    lines += ["", f"failed: {', '.join(failed) or 'none'}; not run here: {', '.join(missing) or 'none'}"]
    text: str = anonymous("\n".join(lines))
    return text


def anonymous(value: Any) -> Any:
    """``value`` with host, user, addresses and absolute paths replaced in every text."""
    if isinstance(value, dict):
        return {key: anonymous(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(one) for one in value]
    if not isinstance(value, str):
        return value
    for private, shown in ((platform.node(), "HOST"), (_user(), "USER")):
        if len(private) > 2 and private != "root":
            value = re.sub(rf"\b{re.escape(private)}\b", shown, value)
    return _ADDRESS.sub("ADDRESS", _PATH.sub("PATH", value))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
