"""Projections: what happens to the parameters after the optimizer's step. One file each; listed in `optimizers`.

Each is `init(params) -> State`, once, and `project(params, state) -> params` after every update, pure. A step is thus

    grads → filters → optimizer → projections
"""
