"""Gradient filters: what happens to a gradient before the optimizer sees it. One file a filter; listed in `optimizers`.

Each is `init(params) -> State` and `apply(grads, state, params, …) -> (grads, state)`, pure, and they can be chained.
"""
