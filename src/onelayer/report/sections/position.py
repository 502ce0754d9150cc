"""The positional encoding's picture: what the method does to a token that stands at each position."""

from typing import Any

import numpy as np

from onelayer.arrays import generator, natural, unflatten
from onelayer.errors import BadInput
from onelayer.positions import Method, Places
from onelayer.report.figures import positions
from onelayer.report.run import Run
from onelayer.report.section import Panel, Section

SHOWN = 50  # positions, where the method has as many: the classic picture


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    method = run.model.position_method
    params = _learnt(run, method)
    panels = (*_added(run, method, params), *_turned(run, method, params), *_biased(run, method, params))
    title = "The positional encoding"
    if not panels:
        return Section(title, f"The method is “{method.name}”: the model is not told where a token stands.")
    return Section(title, f"The method is “{method.name}”; it acts on the {_listed(method)}.", panels)


def _learnt(run: Run, method: Method) -> Any:
    """The method's parameters after training (of the first block, where each has its own); None where it has none."""
    like = method.init(generator(0, "shape"), run.model.size())
    if like is None:
        return None
    weights, name = run.weights(), "blocks.0.attn.pos" if method.in_attention else "pos_embed"
    for side in ("", "decoder."):
        if any(full.startswith(side + name) for full in weights):
            return unflatten(weights, like, side + name)
    raise BadInput(f"the checkpoint has no {name}; it has {', '.join(weights)}")


def _listed(method: Method) -> str:
    names = {"embedding": "embedding", "query_key": "queries and keys", "score": "scores", "value": "values"}
    return " and the ".join(names[stage] for stage in method.stages)


def _added(run: Run, method: Method, params: Any) -> list[Panel]:
    """What it adds to an embedding of zeros."""
    if not method.has("embedding"):
        return []
    rows = params.W_pos.shape[0] if hasattr(params, "W_pos") else SHOWN
    table, _ = method.encode_x(params, np.zeros((1, rows, run.model.d_model)), natural(rows))
    return [Panel(positions.added(table[0]), "What is added to the embedding of the token at each position.")]


def _turned(run: Run, method: Method, params: Any) -> list[Panel]:
    """What it makes of a query of ones."""
    if not method.has("query_key"):
        return []
    ones, places = np.ones((1, SHOWN, 1, run.model.head_width)), Places(natural(SHOWN), natural(SHOWN), None)
    turned, *_ = method.encode_qk(params, ones, ones, places)
    return [Panel(positions.turned(turned[0, :, 0]), "What a query of ones is turned into at each position.")]


def _biased(run: Run, method: Method, params: Any) -> list[Panel]:
    """What it adds to the scores of queries and keys of unit length, all alike, per head."""
    if not method.has("score"):
        return []
    n, heads = SHOWN, run.model.n_heads
    q, x = _unit(1, n, heads, run.model.head_width), _unit(1, n, run.model.d_model)
    mask = np.tril(np.ones((n, n), dtype=bool)) if run.model.causal else np.ones((n, n), dtype=bool)
    bias, _ = method.bias(params, q, q, x, x, Places(natural(n), natural(n), mask, run.model.causal))
    shown = np.where(mask, np.broadcast_to(bias, (1, heads, n, n))[0], np.nan)  # [head, query, key]
    told = "Head {}: what is added to the score of each query and key, were all of them one and the same vector."
    return [Panel(positions.bias(values), told.format(head), wide=False) for head, values in enumerate(shown)]


def _unit(*shape: int) -> np.ndarray:
    """Vectors of length 1, all features alike."""
    return np.full(shape, shape[-1] ** -0.5)
