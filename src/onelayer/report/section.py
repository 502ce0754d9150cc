"""What a section of the page is made of."""

from collections.abc import Mapping
from typing import NamedTuple

import plotly.graph_objects as go


class Panel(NamedTuple):
    """A figure and its caption; two that are not wide stand side by side where the window allows."""

    figure: go.Figure
    caption: str
    wide: bool = True


class Section(NamedTuple):
    """Plain text throughout: the page does the escaping. A blank line in `text` starts a new paragraph."""

    title: str
    text: str
    panels: tuple[Panel, ...] = ()
    facts: Mapping[str, str] = {}
    listings: Mapping[str, str] = {}  # a name and a preformatted text that it unfolds to
