"""Curvature: what the loss looks like around the weights, by exact Hessian products.

    at = linearise(params, batch, cfg)                tangent/: one forward and one backward, kept
    at.hessian(v)    at.gauss_newton(v)               by the R-operator
    by_complex_step(params, v, batch, cfg)            the same, by another road: complex weights through the backward

    eigenvalues(at, top=3, bottom=1)                  Lanczos (scipy): only products are needed
    trace(at)                                         Hutch++, with its standard error
    density(at)                                       the whole spectrum, by stochastic Lanczos quadrature
    sharpness(at, v)                                  vᵀ H v / vᵀ v: the curvature along one direction

Hutch++   tr H = tr(Qᵀ H Q) + tr((I − QQᵀ) H (I − QQᵀ)), Q an orthonormal basis of H S for random signs S: the first
          part is computed, and only the rest is estimated, from random signs g: E gᵀ M g = tr M.
Density   k steps of Lanczos from a random unit v give a small tridiagonal matrix, whose eigenvalues θ_i and squared
          first components w_i are Gauss's quadrature: Σ w_i f(θ_i) ≈ vᵀ f(H) v, exact for polynomials f of degree < 2k.
          Every new vector is orthogonalised against all before it, so no eigenvalue appears twice.

Source    Pearlmutter 1994; Meyer, Musco, Musco & Woodruff 2021, arXiv:2010.09649 (Hutch++); Ghorbani, Krishnan & Xiao
          2019, arXiv:1901.10159 (density); Cohen et al. 2021, arXiv:2103.00065 (sharpness over training).
          docs/microscope/curvature.md
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, flatten, generator, map_tree, unflatten
from ..errors import BadInput, unknown
from ..layers import cross_entropy
from ..models.config import ModelConfig
from ..tasks import Batch
from . import complex_step, gates
from .groupings import loss_settings
from .journal import Journal, Schedule
from .tangent import Linearised, linearise

__all__ = [
    "Density", "Estimate", "Follow", "by_complex_step", "density", "eigenvalues", "linearise", "measure", "over",
    "product", "sharpness", "trace",
]  # fmt: skip

KINDS = ("hessian", "gauss_newton")
MEASURES = ("top", "bottom", "trace", "along_gradient", "along_update")


def by_complex_step(params: Any, v: Any, batch: Batch, cfg: ModelConfig, **settings: Any) -> Any:
    """H v: the derivative of the gradient along v, by one backward with complex weights."""

    def gradient(p: Any) -> Any:
        logits, cache = gates.forward(p, batch, cfg)
        _, c = cross_entropy.forward(logits, batch.targets, batch.weights, **settings)
        return gates.backward(cross_entropy.backward(c), cache, cfg)

    float64 = partial(map_tree, lambda x: np.asarray(x, dtype=np.float64))
    return complex_step.directional(gradient, float64(params), float64(v))


# ---------------------------------------------------------------------------------------------------- as a matrix


def product(at: Linearised, kind: str = "hessian") -> Callable[[Array], Array]:
    """The matrix as a function of flat vectors, in the order of the flat names."""
    if kind not in KINDS:
        raise unknown("kind of curvature", kind, KINDS)
    apply = at.hessian if kind == "hessian" else at.gauss_newton
    return lambda v: _flat(apply(_tree(v, at.params)))


def _flat(tree: Any) -> Array:
    return np.concatenate([np.ravel(x) for x in flatten(tree).values()])


def _tree(v: Array, like: Any) -> Any:
    flat, start = {}, 0
    for name, x in flatten(like).items():
        flat[name], start = v[start : start + x.size].reshape(x.shape), start + x.size
    return unflatten(flat, like)


def _size(at: Linearised) -> int:
    return sum(x.size for x in flatten(at.params).values())


def eigenvalues(
    at: Linearised, top: int = 1, bottom: int = 1, kind: str = "hessian", *, tolerance: float = 1e-6, seed: int = 0
) -> tuple[Array, Array]:
    """The largest `top` eigenvalues, falling, and the smallest `bottom`, rising."""
    n = _size(at)
    if not (0 <= top < n and 0 <= bottom < n and top + bottom > 0):
        raise BadInput(
            f"a matrix of {n} rows: ask for 1 to {n - 1} eigenvalues at an end; received top={top}, bottom={bottom}"
        )
    linalg = _scipy()
    matrix = linalg.LinearOperator((n, n), matvec=product(at, kind), dtype=np.float64)
    start = generator(seed, "lanczos").standard_normal(n)

    def end(k: int, which: str) -> Array:
        if k == 0:
            return np.empty(0)
        return np.sort(linalg.eigsh(matrix, k, which=which, v0=start, tol=tolerance, return_eigenvectors=False))

    return end(top, "LA")[::-1], end(bottom, "SA")


def _scipy() -> Any:
    try:
        from scipy.sparse import linalg
    except ImportError as error:
        raise BadInput(
            "eigenvalues come from scipy's Lanczos, and scipy is not installed: pip install 'onelayer[curvature]'. "
            "trace, density and sharpness do without it"
        ) from error
    return linalg


class Estimate(NamedTuple):
    value: float
    error: float  # one standard error


def trace(at: Linearised, kind: str = "hessian", *, products: int = 60, seed: int = 0) -> Estimate:
    """The sum of all eigenvalues, from so many products."""
    third = products // 3
    if third < 2:
        raise BadInput(f"Hutch++ divides its products among three jobs; give it at least 6, received {products}")
    multiply, n = product(at, kind), _size(at)
    signs = generator(seed, "hutch++").choice((-1.0, 1.0), (2, third, n))
    Q, _ = np.linalg.qr(np.stack([multiply(s) for s in signs[0]], axis=1))
    known = sum(float(q @ multiply(q)) for q in Q.T)
    rest = [g - Q @ (Q.T @ g) for g in signs[1]]
    samples = np.array([float(g @ multiply(g)) for g in rest])
    return Estimate(known + float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(third)))


class Density(NamedTuple):
    """Each row is one probe's quadrature: weight w_i at eigenvalue θ_i; a row's weights sum to 1."""

    nodes: Array  # [probes, steps]
    weights: Array  # [probes, steps]

    def on(self, grid: Array, width: float) -> Array:
        """The density at the points of a grid, each node widened to a Gaussian of that standard deviation."""
        gap = (grid[:, None] - self.nodes.ravel()) / width
        bell = np.exp(-0.5 * gap * gap) / (width * np.sqrt(2 * np.pi))
        return bell @ self.weights.ravel() / len(self.nodes)

    def mean(self, f: Callable[[Array], Array] = lambda x: x) -> float:
        """The mean of f over all eigenvalues: f(λ) = λ gives tr H / n."""
        return float(np.sum(self.weights * f(self.nodes)) / len(self.nodes))


def density(at: Linearised, kind: str = "hessian", *, probes: int = 4, steps: int = 40, seed: int = 0) -> Density:
    """The spectrum, from probes · steps products."""
    multiply, n = product(at, kind), _size(at)
    if probes < 1 or not 1 <= steps <= n:
        raise BadInput(f"give at least 1 probe, and 1 to {n} Lanczos steps; received {probes} and {steps}")
    found = [
        _quadrature(multiply, v / np.linalg.norm(v), steps) for v in generator(seed, "slq").standard_normal((probes, n))
    ]
    k = max(len(nodes) for nodes, _ in found)
    pad = [(np.pad(nodes, (0, k - len(nodes))), np.pad(weights, (0, k - len(nodes)))) for nodes, weights in found]
    return Density(*(np.stack(x) for x in zip(*pad, strict=True)))


def _quadrature(multiply: Callable[[Array], Array], v: Array, steps: int) -> tuple[Array, Array]:
    """Lanczos from the unit vector v; it ends early where the space that v spans is exhausted."""
    basis, alpha, beta = [v], [], []
    for _ in range(steps):
        w = multiply(basis[-1])
        alpha.append(float(w @ basis[-1]))
        Q = np.stack(basis)
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            w = w - Q.T @ (Q @ w)
        norm = float(np.linalg.norm(w))
        if norm <= 1e-10 * max(map(abs, alpha)) or len(basis) == len(v):
            break
        beta.append(norm)
        basis.append(w / norm)
    k = len(alpha)
    off = np.diag(beta[: k - 1], 1)
    nodes, vectors = np.linalg.eigh(np.diag(alpha) + off + off.T)
    return nodes, vectors[0] ** 2


def sharpness(at: Linearised, direction: Any, kind: str = "hessian") -> float:
    """vᵀ H v / vᵀ v along a direction (a tree like params, or the flat names' arrays)."""
    flat = flatten(direction)
    v = np.concatenate([np.ravel(np.asarray(flat[name], dtype=np.float64)) for name in flatten(at.params)])
    square = float(v @ v)
    if square == 0.0:
        raise BadInput("the direction is zero; sharpness needs somewhere to look")
    return float(v @ product(at, kind)(v)) / square


# ---------------------------------------------------------------------------------------------------- over training


def measure(
    at: Linearised, what: Iterable[str] = MEASURES, *, update: Any = None, products: int = 30, seed: int = 0
) -> dict[str, float]:
    """Several figures at one point: those of `what`; along_update only where an update is given."""
    wanted = tuple(what)
    for name in wanted:
        if name not in MEASURES:
            raise unknown("measure of curvature", name, MEASURES)
    found: dict[str, float] = {"loss": at.trace.loss}
    if "top" in wanted or "bottom" in wanted:
        top, bottom = eigenvalues(at, int("top" in wanted), int("bottom" in wanted), tolerance=1e-3, seed=seed)
        found |= {name: float(x[0]) for name, x in (("top", top), ("bottom", bottom)) if len(x)}
    if "trace" in wanted:
        value, error = trace(at, products=products, seed=seed)
        found |= {"trace": value, "trace_error": error}
    if "along_gradient" in wanted and any(np.any(g) for g in at.gradient.values()):
        found["along_gradient"] = sharpness(at, at.gradient)
    if "along_update" in wanted and update is not None and any(np.any(x) for x in flatten(update).values()):
        found["along_update"] = sharpness(at, update)
    return found


class Follow(Journal):
    """Curvature over training, into the run's curvature.jsonl: train(config, callback=follow, watch=follow).

    along_update is the curvature along the step that was just taken, at the weights before it. With `batch` the
    curvature is that of another loss than the step's own, for example over the first thousand training examples.
    """

    FILE = "curvature.jsonl"

    def __init__(
        self, objective: Any, what: Iterable[str] = MEASURES, *,
        every: Schedule = "log", path: Path | str | None = None, batch: Batch | None = None, products: int = 30,
    ) -> None:  # fmt: skip
        super().__init__(every, path)
        self.objective, self.what, self.batch, self.products = objective, tuple(what), batch, products

    def measure(self, step: Any) -> dict[str, Any]:
        batch = step.batch if self.batch is None else self.batch
        at = linearise(step.before.params, batch, self.objective.model, **loss_settings(self.objective))
        update = map_tree(lambda a, b: b - a, step.before.params, step.after.params)
        return measure(at, self.what, update=update, products=self.products)


def over(
    checkpoints: Iterable[tuple[int, Any]],
    batch: Batch,
    objective: Any,
    what: Iterable[str] = MEASURES,
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """The same over weights that were kept: (step, params) in, a record for each out."""
    before = None
    for step, params in checkpoints:
        at = linearise(params, batch, objective.model, **loss_settings(objective))
        update = None if before is None else map_tree(lambda a, b: b - a, before, params)
        yield {"step": int(step)} | measure(at, what, update=update, **settings)
        before = params
