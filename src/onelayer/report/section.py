"""What a section of the page is made of."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go


class Panel(NamedTuple):
    """A figure and its caption; two that are not wide stand side by side where the window allows."""

    figure: go.Figure
    caption: str
    wide: bool = True


class Counter(NamedTuple):
    """A slider that counts through positions and lights what each row of lamps is at that position."""

    rows: Mapping[str, np.ndarray]  # name -> [position, lamp], 0 (dark) to 1 (bright)
    caption: str


class Section(NamedTuple):
    """Plain text throughout: the page does the escaping. A blank line in `text` starts a new paragraph."""

    title: str
    text: str
    panels: tuple[Panel, ...] = ()
    facts: Mapping[str, str] = {}
    listings: Mapping[str, str] = {}  # a name and a preformatted text that it unfolds to
    counter: Counter | None = None
    links: Mapping[str, str] = {}  # words -> a page beside this one
