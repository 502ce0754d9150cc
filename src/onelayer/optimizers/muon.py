"""Muon: hidden matrices move along the orthogonal matrix nearest to their momentum; all other tensors by AdamW.

State     t step count, m momentum, v second moment (AdamW's tensors only), all 0 at first

Hidden    m ← μ m + (1 − μ) g                    G = μ m + (1 − μ) g (Nesterov) or m
matrices  O = NS(G)                              about U Vᵀ, where G = U S Vᵀ: every singular value becomes about 1
          θ ← θ − η λ w θ − η s O                s = √max(1, out/in)                 scaling "width"
                  decay     gradient               = 0.2 √max(in, out)               scaling "rms": as large as Adam's
                                                   = 1                               scaling "none"

Newton–   X = G / (‖G‖_F + ε), as a wide matrix; 5 times
Schulz    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X     (a, b, c) = (3.4445, −4.7750, 2.0315)
          An odd polynomial of X acts on its singular values alone. Five of these send [0.01, 1] into
          [0.68, 1.14]; they do not converge to 1, and need not. A zero matrix stays zero.

The rest  m, v and θ ← θ − ρη λ w θ − ρη m̂ / (√v̂ + ε): AdamW at ρ times the learning rate, so that one schedule
          drives both.

Matrices  A tensor is hidden if its name is W_… , it has two axes or more, and no embedding, unembedding or position
          stands in its path (`is_hidden`; pass your own to `init`). matrices="all" takes the embedding and the
          unembedding too, and leaves AdamW the positions, gains and biases.
          Weights are [in, out]. The heads' W_Q, W_K, W_V [H D K] are taken as one matrix D × HK and W_O [H K D] as
          HK × D, which is what they are to the residual stream and what published recipes do; heads="separate"
          orthogonalises each head's matrix by itself.

Symbols   θ params   g grads   η lr   μ momentum   λ weight_decay   ρ adam_ratio   β₁ β₂ adam_beta1 adam_beta2
          ε eps (Newton–Schulz) and adam_eps   w decay_mask (a factor for each tensor; None: all 1)
          debias=True: as in optax, G has m / (1 − μᵗ⁺¹) and g / (1 − μᵗ); without Nesterov m / (1 − μᵗ)

Source    Jordan et al. 2024, kellerjordan.github.io/posts/muon; "rms": Liu et al. 2025, arXiv:2502.16982.
          Every matrix orthogonalised, for grokking: Pasand & Dohmatob, Egalitarian gradient descent, ICLR 2026.
          Why orthogonal: docs/derivations/optimizers.md
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float, Int

from onelayer.arrays import Array, array_namespace, flatten, map_tree, unflatten, zeros_like_tree
from onelayer.errors import unknown

__all__ = ["State", "init", "is_hidden", "is_matrix", "newton_schulz", "update"]

SCALINGS = {
    "width": lambda n_in, n_out: math.sqrt(max(1, n_out / n_in)),
    "rms": lambda n_in, n_out: 0.2 * math.sqrt(max(n_in, n_out)),
    "none": lambda n_in, n_out: 1.0,
}
HEADS = ("joint", "separate")


class State(NamedTuple):
    count: Int[Array, ""]
    m: Any  # a tree like params
    v: Any  # likewise; None where the tensor is a hidden matrix


def is_hidden(name: str, x: Array) -> bool:
    """Whether the tensor of this flat name is a hidden matrix: `blocks.0.mlp.W_in`, not `embed.W_E` or `attn.b_Q`."""
    *path, last = name.split(".")
    return last.startswith("W_") and x.ndim >= 2 and not {"embed", "pos_embed", "pos", "unembed"} & set(path)


def is_matrix(name: str, x: Array) -> bool:
    """Whether the tensor is a matrix of weights, the embedding's and the unembedding's included."""
    *path, last = name.split(".")
    return last.startswith("W_") and x.ndim >= 2 and not {"pos_embed", "pos"} & set(path)


MATRICES = {"hidden": is_hidden, "all": is_matrix}


def init(params: Any, *, matrices: str = "hidden", hidden: Callable[[str, Array], bool] | None = None) -> State:
    if matrices not in MATRICES:
        raise unknown("choice of Muon's matrices", matrices, MATRICES)
    flat, hidden = flatten(params), hidden or MATRICES[matrices]
    xp = array_namespace(next(iter(flat.values())))
    v = {name: None if hidden(name, x) else xp.zeros_like(x) for name, x in flat.items()}
    return State(xp.zeros((), dtype=xp.int32), zeros_like_tree(params), unflatten(v, params))


def newton_schulz(g: Float[Array, "*batch I J"], *, steps: int = 5, eps: float = 1e-7) -> Float[Array, "*batch I J"]:
    """About U Vᵀ of each matrix g = U S Vᵀ in the batch."""
    xp = array_namespace(g)
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else xp.matrix_transpose(g)
    x = x / (xp.sqrt(xp.sum(x * x, axis=(-2, -1), keepdims=True)) + eps)
    for _ in range(steps):
        a = x @ xp.matrix_transpose(x)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x if wide else xp.matrix_transpose(x)


def _orthogonal(name: str, g: Array, heads: str, scaling: str, ns_steps: int, eps: float) -> Array:
    """s NS(G) for the tensor of this name, in its own shape."""
    xp = array_namespace(g)
    if g.ndim != 3 or heads == "separate":
        matrix, back = g, lambda x: x
    elif name.endswith("W_O"):
        matrix, back = xp.reshape(g, (-1, g.shape[2])), lambda x: xp.reshape(x, g.shape)
    else:
        h, d, k = g.shape
        matrix = xp.reshape(xp.permute_dims(g, (1, 0, 2)), (d, h * k))
        back = lambda x: xp.permute_dims(xp.reshape(x, (d, h, k)), (1, 0, 2))  # noqa: E731
    return SCALINGS[scaling](*matrix.shape[-2:]) * back(newton_schulz(matrix, steps=ns_steps, eps=eps))


def update(
    grads: Any, state: State, params: Any, *,
    lr: Any = 0.02, momentum: Any = 0.95, nesterov: bool = True, weight_decay: Any = 0.0, ns_steps: int = 5,
    eps: float = 1e-7, scaling: str = "width", heads: str = "joint", debias: bool = False, adam_ratio: Any = 0.05,
    adam_beta1: Any = 0.9, adam_beta2: Any = 0.95, adam_eps: Any = 1e-8, decay_mask: Any = None,
    join: Callable[[Array, Array, Array], Any] = lambda p, decay, gradient: p + decay + gradient,
) -> tuple[Any, State]:  # fmt: skip
    if scaling not in SCALINGS:
        raise unknown("Muon scaling", scaling, SCALINGS)
    if heads not in HEADS:
        raise unknown("way for Muon to take the heads", heads, HEADS)
    flat = flatten(params)
    xp = array_namespace(next(iter(flat.values())))
    count = xp.asarray(state.count + 1)
    t = xp.asarray(count, dtype=xp.result_type(*flat.values()))
    of_m, of_g = (1 / (1 - momentum ** (t + nesterov)), 1 / (1 - momentum**t)) if debias else (1, 1)
    pace, root = -lr * adam_ratio / (1 - adam_beta1**t), 1 / xp.sqrt(1 - adam_beta2**t)  # as in adamw

    def one(p: Array, name: str, g: Array, m: Array, v: Array | None, w: Any) -> tuple[Array, ...]:
        def number(x: Any) -> Array:
            return xp.asarray(x, dtype=p.dtype)

        if v is None:  # a hidden matrix
            m = number(momentum) * m + number(1 - momentum) * g
            ahead = number(of_m) * m
            if nesterov:
                ahead = number(momentum) * ahead + number((1 - momentum) * of_g) * g
            decay = number(-lr * weight_decay * w) * p
            gradient = number(-lr) * _orthogonal(name, ahead, heads, scaling, ns_steps, eps)
        else:
            m = number(adam_beta1) * m + number(1 - adam_beta1) * g
            v = number(adam_beta2) * v + number(1 - adam_beta2) * (g * g)
            decay = number(-lr * adam_ratio * weight_decay * w) * p
            gradient = number(pace) * m / (number(root) * xp.sqrt(v) + number(adam_eps))
        return join(p, decay, gradient), m, v

    names = unflatten({name: name for name in flat}, params)
    mask = map_tree(lambda _: 1.0, params) if decay_mask is None else decay_mask
    moved = map_tree(one, params, names, grads, state.m, state.v, mask)
    params, m, v = (map_tree(lambda _, x, i=i: x[i], params, moved) for i in range(3))
    return params, State(count, m, v)
