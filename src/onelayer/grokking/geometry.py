"""Geometry: where along the stream the answer appears, whether embeddings form parallelograms, how folded the MLP is.

Shapes    E [n D] the embedding in the order of the places     h [D] an input of the feed-forward network

Logit lens      unembed(x), x the stream at `=` after the embedding, the attention, the MLP (through the last
                normalisation, where there is one): accuracy over all pairs; margin, the right logit less the best
                other; cosines, the share of its variance that those of the key frequencies make (losses.py)
Circularity     of the embedding's rows, less their mean, on their first four principal components: the greatest share
                of each component's energy at one frequency, the mean over the four
Parallelograms  over random i, j, m, n with i∘j = m∘n, {i, j} ≠ {m, n}: e = E_i + E_j − E_m − E_n, beside quadruples of
                unrelated numbers:   error  mean ‖e‖² / mean ‖e_unrelated‖²   (0 perfect, 1 none)
                quality (RQI): the share with ‖e‖ < δ √(mean ‖e_unrelated‖²), δ = 0.1
                On circles, as after Nanda's recipe, they do not close: E_i + E_j hangs on i − j too.
Local           the number of ReLUs whose sign differs among the 2m points h ± r u_i, u_i orthonormal, m = min(20, D),
complexity      r = 0.05 ‖h‖; the mean over 64 random pairs (Humayun takes a fixed radius, at the network's input)

Source    Logit lens: nostalgebraist 2020. Circularity: Zhong et al. 2023, arXiv:2306.17844, appendix.
          Parallelograms: Liu et al. 2022, arXiv:2205.10343, section 3.
          Local complexity: Humayun et al. 2024, arXiv:2402.15555.
"""

from dataclasses import replace

import numpy as np

from ..arrays import generator
from ..layers import unembedding
from ..sublayers import normalise
from . import characters, losses, weights
from .subject import Subject

FLAT = 1e-10  # of the largest singular value: below it there is no component, but rounding
QUADRUPLES, CLOSE, POINTS, RADIUS = 2000, 0.1, 64, 0.05
STREAM = {"embedding": "hook_resid_pre", "attention": "hook_resid_mid", "feed-forward": "hook_resid_post"}


def read_early(s: Subject) -> dict[str, np.ndarray]:
    """after which sublayer -> the logits [n n C] that the stream would give there."""
    p, cfg = s.params, s.objective.model
    head = p.unembed if p.unembed.W_U is not None else unembedding.tied(p.unembed, p.embed.W_E)
    found = {}
    for after, name in STREAM.items():
        x, _ = normalise.forward(p.ln_final, s.seen[name], cfg.norm_eps)
        found[after] = unembedding.forward(head, x)[0][..., :-1]
    return found


def logit_lens(s: Subject) -> dict[str, float]:
    answered = s.right >= 0
    return {
        after: float(np.mean(logits.argmax(axis=-1)[answered] == s.right[answered]))
        for after, logits in read_early(s).items()
    }


def logit_lens_margin(s: Subject) -> dict[str, float]:
    return {after: weights.margin(replace(s, said=logits)) for after, logits in read_early(s).items()}


def logit_lens_cosines(s: Subject) -> dict[str, float]:
    keys = s.key_frequencies
    early = {after: replace(s, said=logits, keys=keys) for after, logits in read_early(s).items()}
    return {after: losses.cosine_variance_explained(at) for after, at in early.items()}


def circularity(s: Subject) -> float:
    W = s.params.embed.W_E[s.characters.a]
    U, sigma, _ = np.linalg.svd(W - W.mean(axis=0), full_matrices=False)
    shares = [
        np.max(characters.energy_by_frequency(u, s.characters)[1:])
        for u in U.T[: min(4, np.sum(sigma > FLAT * sigma[0]))]
    ]  # u is of length 1
    return float(np.mean(shares)) if shares else 0.0


def quadruples(s: Subject) -> tuple[np.ndarray, np.ndarray]:
    """(related [m, 4], unrelated [m, 4]) places."""
    product = s.characters.product
    n, draw = len(product), generator(s.seed, "parallelograms")
    i, j, m = draw.integers(0, n, (3, QUADRUPLES))
    related = np.stack([i, j, m, np.argsort(product, axis=1)[m, product[i, j]]], axis=1)
    distinct = (related[:, 2] != i) & (related[:, 2] != j)
    return related[distinct], draw.integers(0, n, (QUADRUPLES, 4))


def _gaps(s: Subject) -> tuple[np.ndarray, np.ndarray]:
    left, right = s.params.embed.W_E[s.characters.a], s.params.embed.W_E[s.characters.b]
    related, unrelated = (
        np.sum((left[q[:, 0]] + right[q[:, 1]] - left[q[:, 2]] - right[q[:, 3]]) ** 2, axis=1) for q in quadruples(s)
    )
    return related, unrelated


def parallelogram_error(s: Subject) -> float:
    related, unrelated = _gaps(s)
    return float(related.mean() / unrelated.mean())


def parallelogram_quality(s: Subject) -> float:
    related, unrelated = _gaps(s)
    return float(np.mean(related < CLOSE**2 * unrelated.mean()))


def local_complexity(s: Subject) -> float:
    block = s.params.blocks[-1]
    h, cfg = s.seen["hook_resid_mid"], s.objective.model
    if cfg.norm == "pre":
        h, _ = normalise.forward(block.ln2, h, cfg.norm_eps)
    h = h.reshape(-1, h.shape[-1])
    draw = generator(s.seed, "local complexity")
    bias = 0.0 if block.mlp.b_in is None else block.mlp.b_in
    counts = []
    for x in h[draw.integers(0, len(h), POINTS)]:
        u = np.linalg.qr(draw.standard_normal((len(x), min(20, len(x)))))[0].T
        step = RADIUS * np.linalg.norm(x) * u
        on = np.concatenate([x + step, x - step]) @ block.mlp.W_in + bias > 0
        counts.append(np.sum(on.any(axis=0) & ~on.all(axis=0)))
    return float(np.mean(counts))
