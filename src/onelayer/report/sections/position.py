"""The positional encoding's picture: what the method does to a token that stands at each position."""

import numpy as np

from onelayer.arrays import generator, natural
from onelayer.positions import Method, Places
from onelayer.report.figures import plots
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section

SHOWN = 50  # positions, where the method has as many: the classic picture


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    method = run.model.position_method
    params = _learnt(run, method)
    panels = tuple(panel for draw in (_added, _turned, _biased) for panel in draw(run, method, params))
    title = "The positional encoding"
    if not panels:
        return Section(title, f"The method is “{method.name}”: the model is not told where a token stands.")
    return Section(title, f"The method is “{method.name}”; it acts on the {_listed(method)}.", panels)


def _learnt(run: Run, method: Method):
    """The method's parameters after training (of the first layer, where each has its own); None where it has none."""
    if method.init(generator(0, "shape only"), run.model.size()) is None:
        return None
    return run.params.blocks[0].attn.pos if method.in_attention else run.params.pos_embed


def _listed(method: Method) -> str:
    names = {"embedding": "embedding", "query_key": "queries and keys", "score": "scores", "value": "values"}
    return " and the ".join(names[stage] for stage in method.stages)


def _added(run: Run, method: Method, params) -> list[Panel]:
    """What it adds to an embedding of zeros, position by dimension."""
    if not method.has("embedding"):
        return []
    rows = params.W_pos.shape[0] if hasattr(params, "W_pos") else SHOWN
    table, _ = method.encode_x(params, np.zeros((1, rows, run.model.d_model)), natural(rows))
    figure = plots.heat_map(
        table[0], x_title="dimension", y_title="position", value="added", downward=True, height=_height(rows)
    )
    figure.update_yaxes(dtick=1 if rows <= 12 else 10)
    return [Panel(figure, "What is added to the embedding of the token at each position.")]


def _turned(run: Run, method: Method, params) -> list[Panel]:
    """What it makes of a query of ones at each position."""
    if not method.has("query_key"):
        return []
    ones = np.ones((1, SHOWN, 1, run.model.head_width))
    turned, _, _ = method.encode_qk(params, ones, ones, Places(natural(SHOWN), natural(SHOWN), None))
    figure = plots.heat_map(
        turned[0, :, 0], x_title="dimension of a head", y_title="position", value="query", downward=True
    )
    return [Panel(figure, "What a query of ones is turned into at each position.")]


def _biased(run: Run, method: Method, params) -> list[Panel]:
    """What it adds to the scores of a query and keys of zeros, per head."""
    if not method.has("score"):
        return []
    n, heads = 32, run.model.n_heads
    zeros, x = np.zeros((1, n, heads, run.model.head_width)), np.zeros((1, n, run.model.d_model))
    mask = np.tril(np.ones((n, n), dtype=bool))
    bias, _ = method.bias(params, zeros, zeros, x, x, Places(natural(n), natural(n), mask))
    bias = np.broadcast_to(bias, (1, heads, n, n))[0]
    return [
        Panel(
            plots.heat_map(
                np.where(mask, bias[head], np.nan), x_title="key position", y_title="query position", value="bias",
                downward=True,
            ),
            f"Head {head}: what is added to the score of each query and key.",
            wide=False,
        )
        for head in range(heads)
    ]  # fmt: skip


def _height(rows: int) -> int:
    return 340 if rows > 12 else 140 + 26 * rows
