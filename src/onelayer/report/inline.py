"""What a page that is one file carries inside: JSON in a script element, and modules as data URLs."""

import base64
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

__all__ = ["data_url", "json_text"]


def json_text(value: Any) -> Markup:
    """JSON that may stand inside a <script>: `<` is written \\u003c, so nothing in it can end the element."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def data_url(path: Path) -> str:
    """A module, as an import map can name it."""
    return "data:text/javascript;base64," + base64.b64encode(path.read_bytes()).decode()
