"""What a section of the page is made of."""

from collections.abc import Mapping, Sequence
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


class Matrix(NamedTuple):
    """A matrix, cell by cell, with tokens at its sides where rows or columns stand for tokens.

    Pointing at a cell says its number, and marks the row and the column that it shares with the other matrices of the
    equation: those whose axis has the same letter.
    """

    name: str
    values: np.ndarray  # [rows, columns]
    axes: str  # two letters: what rows and columns are
    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    amounts: bool = False  # shares, 0 to 1; otherwise values of either sign, and zero looks like the page
    mark: tuple[int | None, int | None] = (None, None)  # the row and the column that the text speaks of


class Step(NamedTuple):
    """A step of a calculation: what is done, as a formula, in words, and with the numbers."""

    title: str
    text: str
    formula: str = ""
    equations: Sequence[Sequence[Matrix | str]] = ()  # matrices, and the signs between them
    listings: Mapping[str, str] = {}


class Gallery(NamedTuple):
    """Matrices over the same two lists of tokens: small ones to choose from, and the chosen one with its tokens."""

    caption: str
    matrices: Mapping[str, Matrix]  # by a short name: "layer 0, head 2"


class Table(NamedTuple):
    """Rows of text under a header; a row that is marked stands apart."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()  # of the rows


class Section(NamedTuple):
    """Plain text throughout: the page does the escaping. A blank line in `text` starts a new paragraph."""

    title: str
    text: str
    panels: tuple[Panel, ...] = ()
    facts: Mapping[str, str] = {}
    listings: Mapping[str, str] = {}  # a name and a preformatted text that it unfolds to
    counter: Counter | None = None
    links: Mapping[str, str] = {}  # words -> a page beside this one
    steps: tuple[Step, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    table: Table | None = None
