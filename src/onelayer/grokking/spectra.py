"""Spectra: at which frequencies the embedding, the logits, the neurons and the attention live.

Shapes    W_E [n D], rows in the order of the places     W_L = W_out W_U [F C], columns likewise
          N [n n F] the neurons, A [n n H] a head's attention from `=` on the left operand

Embedding  s_k = Σ over the rows j of k of ‖F_j W_E‖², shares of Σ_k s_k with the constant
Gini       of the component norms ‖F_j W_E‖, ‖F_j W_Lᵀ‖, over all j (see characters.gini)
Neuron     of its energy over (a, b) less the constant, the share in products of {1, cos, sin}(w_k a) and
           {1, cos, sin}(w_k b); its frequency is the k with the greatest
Attention  R² of A = m + α (cos w_k a − cos w_k b) + β (sin w_k a − sin w_k b), least squares, at the best k
W_L        R²: the share of Σ (W_Lᵀ F_jᵀ)² in the rows j of the key frequencies
           phases: p [2 F] a neuron's two waves over a∘b at its own frequency, w [2 F] its row of W_L in the same
           two over c; Σ p·w / Σ ‖p‖‖w‖ over the neurons, 1 where each speaks for the answer whose phase it has
           read out along c: u_j = W_L F_j, and R² of N·u_j over (a, b) by the two waves of the same frequency over a∘b

Source    Nanda et al. 2023, arXiv:2301.05217, sections 4.1 to 4.3 and appendix B.
          IPR, and that the phases of what a neuron reads add up to that of what it writes: Doshi et al. 2024,
          arXiv:2310.13061.
"""

import numpy as np

from . import characters
from .characters import Characters
from .subject import Subject, centred

SPECIAL = 0.85


def embedding_spectrum(s: Subject) -> dict[int, float]:
    energy = characters.energy_by_frequency(s.params.embed.W_E[s.characters.a], s.characters)
    return {k: float(e) for k, e in enumerate(energy / energy.sum())}


def embedding_key_share(s: Subject) -> float:
    spectrum = embedding_spectrum(s)
    return float(sum(spectrum[k] for k in s.key_frequencies))


def embedding_gini(s: Subject) -> float:
    return characters.gini(characters.component_norms(s.params.embed.W_E[s.characters.a], s.characters))


def logit_map(s: Subject) -> np.ndarray:
    """W_L [F n]: from a neuron to the logits, straight."""
    return s.params.blocks[-1].mlp.W_out @ s.params.unembed.W_U[:, s.characters.c]


def logit_map_gini(s: Subject) -> float:
    return characters.gini(characters.component_norms(logit_map(s).T, s.characters))


def logit_map_key_share(s: Subject) -> float:
    w = logit_map(s)
    return float(np.sum((w @ s.characters.rows(s.key_frequencies).T) ** 2) / np.sum(w**2))


def phase_alignment(s: Subject) -> float:
    """1: every neuron's wave over a∘b pushes the answers of its own phase; 0: as chance would have it."""
    ch, own = s.characters, np.array(s.characters.frequencies)[s.neuron_shares.argmax(axis=0)]
    here = ch.frequency[:, None] == own
    heard = np.where(here, ch.basis @ characters.profile(s.neurons, ch.product), 0)
    said = np.where(here, ch.basis @ logit_map(s).T, 0)
    most = np.sum(np.linalg.norm(heard, axis=0) * np.linalg.norm(said, axis=0))
    return float(np.sum(heard * said) / most) if most > 0 else 0.0


def logit_families(s: Subject) -> dict[str, float]:
    return characters.families(centred(s.logits), s.characters)


def logit_spectrum(s: Subject) -> dict[int, float]:
    return {k: float(s.logit_shares[k]) for k in s.characters.frequencies}


def sum_share(s: Subject) -> float:
    """Of the varying part of the last residual stream; what every activation and architecture has in common."""
    parts = characters.families(s.seen["hook_resid_post"], s.characters)
    return parts["sum"] / (1 - parts["constant"]) if parts["constant"] < 1 else 0.0


def effective_frequencies(s: Subject) -> float:
    energy = characters.sum_energy(s.seen["hook_resid_post"], s.characters.product, s.characters)[1:]
    return float(np.exp(characters.entropy(energy)))


def effective_mode_pairs(s: Subject) -> float:
    """exp of the entropy of the last residual stream's energy over pairs (k, l) of frequencies of a and of b."""
    ch = s.characters
    energy = np.sum(characters.transform(s.seen["hook_resid_post"], ch) ** 2, axis=-1)
    pairs = np.zeros((ch.frequency.max() + 1,) * 2)
    np.add.at(pairs, (ch.frequency[:, None], ch.frequency), energy)
    pairs[0, 0] = 0
    return float(np.exp(characters.entropy(pairs))) if pairs.any() else 0.0


def neuron_specialisation(s: Subject) -> float:
    return float(np.mean(s.neuron_shares.max(axis=0) > SPECIAL))


def neurons_by_frequency(s: Subject) -> dict[int, int]:
    shares = s.neuron_shares
    special = shares.max(axis=0) > SPECIAL
    counts = np.bincount(shares.argmax(axis=0)[special], minlength=len(shares))
    return {k: int(c) for k, c in zip(s.characters.frequencies, counts, strict=True) if c}


def neuron_variance_explained(s: Subject) -> float:
    """At each neuron's own frequency, the mean over the neurons that are not constant."""
    best = s.neuron_shares.max(axis=0)
    return float(np.mean(best[best > 0])) if np.any(best > 0) else 0.0


def neuron_ipr(s: Subject) -> float:
    """Σ e² / (Σ e)² of each neuron's energies e over the frequencies of its mean over b; the mean."""
    left = s.neurons.mean(axis=1)
    energy = np.stack([np.sum((s.characters.rows([k]) @ left) ** 2, axis=0) for k in s.characters.frequencies])
    total = energy.sum(axis=0)
    alive = total > 0
    return float(np.mean(np.sum(energy[:, alive] ** 2, axis=0) / total[alive] ** 2)) if alive.any() else 0.0


def periodicity(attention: np.ndarray, ch: Characters) -> tuple[int, float]:
    """(k, R²) of one head's attention [n n] on the left operand, at its best k."""
    n = len(attention)
    varying = attention - attention.mean()
    total = float(np.sum(varying**2))
    best = (0, 0.0)
    for k in ch.frequencies:
        # F_j(a) − F_j(b), of squared norm 2n over the pairs; these are orthogonal
        along = [np.sum(varying.sum(axis=1) * row) - np.sum(varying.sum(axis=0) * row) for row in ch.rows([k])]
        explained = float(np.sum(np.square(along))) / (2 * n)
        if total > 0 and explained / total > best[1]:
            best = (k, explained / total)
    return best


def attention_periodicity(s: Subject) -> dict[str, float]:
    pattern = s.seen["attn.hook_pattern"]
    return {f"head {h}": periodicity(pattern[:, :, h, 0], s.characters)[1] for h in range(pattern.shape[2])}


def attention_periodicity_least(s: Subject) -> float:
    return min(attention_periodicity(s).values())


def attention_frequencies(s: Subject) -> dict[str, int]:
    pattern = s.seen["attn.hook_pattern"]
    return {f"head {h}": periodicity(pattern[:, :, h, 0], s.characters)[0] for h in range(pattern.shape[2])}


def self_attention(s: Subject) -> dict[str, float]:
    pattern = s.seen["attn.hook_pattern"]
    return {f"head {h}": float(pattern[:, :, h, -1].mean()) for h in range(pattern.shape[2])}


def readout_variance_explained(s: Subject) -> dict[str, float]:
    """wave of c -> R²: does the projection on it vary with a∘b at the same frequency?"""
    ch, w = s.characters, logit_map(s)
    explained = {}
    for k in s.key_frequencies:
        rows = ch.rows([k])
        waves = ("cos", "sin")[: len(rows)] if ch.names is None else map(str, range(1, len(rows) + 1))
        for name, row in zip(waves, rows, strict=True):
            value = s.neurons @ (w @ row)
            fitted = characters.along(value, ch.product, ch, [k])
            explained[f"{name} {ch.name(k)}"] = float(np.sum(fitted**2) / np.sum((value - value.mean()) ** 2))
    return explained
