"""The measures: each with its definition, what others found, and what it asks of a run. This file is the registry.

Needs     "pairs"       arithmetic with two operands, in a decoder
          "characters"  a Fourier basis for its operation (characters.py says which)
          "answers"     and the answer is the group's product itself
          "commuting"   an operation with x∘y = y∘x, in which a test pair can lack its mirror
          "parity"      a task of parity; "all inputs", one of so few bits that all inputs can be seen
          "run"         three checkpoints or more; "rules", those that the run was trained by
          "relu"        that activation; "untied", an unembedding of its own; "noise", a run with label noise
          A measure with no needs applies to every decoder's run.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from ..errors import unknown
from ..models.decoder_only import Params
from ..training.run_directory import Run
from . import geometry, gradients, interventions, landscape, losses, memory, parity, posterior, spectra, weights
from .subject import Subject, why_no_characters

__all__ = ["MEASURES", "Measure", "get", "markdown", "why_not"]

NANDA = "Nanda 2023, x + y mod 113"
ZHONG = "Zhong 2023"


class Measure(NamedTuple):
    of: Callable[[Subject], Any]
    definition: str
    reference: str  # what others found, and who; "—" where none is known to us
    needs: tuple[str, ...] = ("pairs", "characters")
    high: bool | None = None  # whether a high value speaks of structure, or a low one; None: neither, or no single one
    costly: bool = False  # measured where it is asked for by name


PAIRS = ("pairs",)
PARITY = ("parity",)
ANSWERS = ("pairs", "characters", "answers")

MEASURES: dict[str, Measure] = {
    # ------------------------------------------------------------------------------------------------ accuracy
    "accuracy": Measure(
        memory.accuracy, "share of right answers, train and test", "1 and > .99 once generalised", ()),
    "mirror_free_accuracy": Measure(
        memory.mirror_free_accuracy, "share right among test pairs (a, b) whose mirror (b, a) is not in train",
        "—", ("pairs", "commuting"), True),
    "majority_accuracy": Measure(
        memory.majority_accuracy, "share of test answers equal to the most frequent training answer",
        "1/p for x + y; 61 % for gcd", PAIRS),
    "memorised_noise": Measure(
        memory.memorised_noise, "of the training examples with a spoilt label, the share answered as spoilt, as true",
        "—", ("pairs", "noise")),
    "logit_lens": Measure(
        geometry.logit_lens, "accuracy over all pairs of the stream at `=` unembedded after embedding, attention, MLP",
        "in one layer, above chance after the MLP only", PAIRS),
    "logit_lens_margin": Measure(
        geometry.logit_lens_margin, "the same logits: the right one less the best other, the mean over the pairs",
        "—", PAIRS),
    "logit_lens_cosines": Measure(
        geometry.logit_lens_cosines, "the same logits: share of their variance that the key frequencies' cosines make",
        "—", ANSWERS),
    # ------------------------------------------------------------------------------------------------ spectra
    "embedding_spectrum": Measure(
        spectra.embedding_spectrum, "share of Σ W_E² (rows of the numbers) at each frequency, 0 the constant",
        f"{NANDA}: 6 frequencies not negligible, of which 5 are used"),
    "embedding_key_share": Measure(
        spectra.embedding_key_share, "share of Σ W_E² at the key frequencies", "—", high=True),
    "embedding_gini": Measure(
        spectra.embedding_gini, "Gini coefficient of the norms ‖F_j W_E‖ over the basis functions j",
        f"{NANDA}: rises sharply in clean-up", high=True),
    "logit_map_gini": Measure(
        spectra.logit_map_gini, "Gini coefficient of the norms ‖F_j W_Lᵀ‖, W_L = W_out W_U",
        f"{NANDA}: rises sharply in clean-up", (*ANSWERS, "untied"), True),
    "logit_map_key_share": Measure(
        spectra.logit_map_key_share, "share of Σ W_L² on cos and sin w_k c, k the key frequencies",
        f"{NANDA}: > .9945 on 10 directions", (*ANSWERS, "untied"), True),
    "readout_variance_explained": Measure(
        spectra.readout_variance_explained,
        "per key wave of c: R² of the neurons read out along it, by the same frequency over the result",
        f"{NANDA}: .932 to .982", (*ANSWERS, "untied")),
    "phase_alignment": Measure(
        spectra.phase_alignment,
        "Σ p·w/Σ ‖p‖‖w‖ over the neurons: p a neuron's waves over a∘b at its own frequency, w its row of W_L in them",
        "Doshi 2024, trained on x + y: the phases of what is read add up to that of what is written",
        (*ANSWERS, "untied"), True),
    "logit_families": Measure(
        spectra.logit_families,
        "shares of Σ L² (less each pair's mean) by family of the 2-D transform over (a, b): constant, left only, right "
        "only, sum, difference, mixed",
        f"{NANDA}: 20 significant components, all of a key frequency with itself"),
    "effective_mode_pairs": Measure(
        spectra.effective_mode_pairs,
        "exp of the entropy of the last residual stream's energy over pairs (k, l) of frequencies of a and of b",
        "Fu 2026, p = 97: AdamW 2.7 to 2.9, Muon 300 to 390", high=False),
    "logit_spectrum": Measure(
        spectra.logit_spectrum,
        "per frequency, the share of the logits' energy (less each pair's and each answer's mean) that is a wave of it "
        "over the result; key is what has .01", f"{NANDA}: five frequencies"),
    "sum_share": Measure(
        spectra.sum_share, "of the last residual stream's energy, less the constant, what is a function of a∘b",
        "Fu 2026, p = 97, (k, k) family: AdamW .88 to .92, Muon .19 to .46", high=True),
    "effective_frequencies": Measure(
        spectra.effective_frequencies, "exp of the entropy of ‖P_k x‖² over k, x the last residual stream",
        "—", high=False),
    "neuron_specialisation": Measure(
        spectra.neuron_specialisation,
        "share of all neurons with more than .85 of their variance over (a, b) at one frequency (1, cos, sin of a "
        "times those of b)",
        f"{NANDA}: .846 (433 of 512)", high=True),
    "neuron_variance_explained": Measure(
        spectra.neuron_variance_explained, "the same share at each neuron's own frequency, the mean over neurons",
        "—", high=True),
    "neurons_by_frequency": Measure(
        spectra.neurons_by_frequency, "how many neurons above .85 each frequency has", f"{NANDA}: five frequencies"),
    "neuron_ipr": Measure(
        spectra.neuron_ipr, "Σ e²/(Σ e)² over the frequencies of a neuron's mean over b; the mean over neurons",
        "1 for a single wave", high=True),
    "attention_periodicity": Measure(
        spectra.attention_periodicity,
        "per head, R² of attention on a by m + α (cos w_k a − cos w_k b) + β (sin w_k a − sin w_k b), at its best k",
        f"{NANDA}: .979 to .991"),
    "attention_periodicity_least": Measure(
        spectra.attention_periodicity_least, "the least of these R² over the heads", f"{NANDA}: .979", high=True),
    "attention_frequencies": Measure(spectra.attention_frequencies, "that k, per head", "—"),
    "self_attention": Measure(
        spectra.self_attention, "per head, mean attention of `=` on itself", f"{NANDA}: .001 to .004", PAIRS),
    "attention_rate": Measure(
        interventions.attention_rate,
        "accuracy over all pairs with each pattern A replaced by αA + (1 − α)·uniform, at rates α of 0 to .75",
        f"{ZHONG}, trained at each rate: pizzas at 0, clocks at 1", PAIRS),
    # ------------------------------------------------------------------------------------------------ parity
    "walsh_support_share": Measure(
        parity.walsh_support_share, "share of the variance of f, logit of 1 less that of 0, on the support's character",
        "1 for the parity itself", PARITY, True),
    "walsh_by_degree": Measure(
        parity.walsh_by_degree, "shares of the variance of f by the number of bits of the Walsh function",
        "all at k", (*PARITY, "all inputs")),
    "parity_restricted_loss": Measure(
        parity.parity_restricted_loss, "cross-entropy over the inputs of f's mean and its support's character alone",
        "—", PARITY, False),
    "parity_excluded_loss": Measure(
        parity.parity_excluded_loss, "cross-entropy over the training examples of f less its support's character",
        "near ln 2 or above where the answer is in it", PARITY, True),
    # ------------------------------------------------------------------------------------------------ losses
    "full_loss": Measure(
        losses.full_loss, "cross-entropy over the numbers (`=` left out), of all pairs, train and test", "—"),
    "restricted_loss": Measure(
        losses.restricted_loss, "cross-entropy over all pairs of Σ_k P_k L + mean L, k the key frequencies",
        f"{NANDA}: below the full loss, 5.5e-8 to 2.4e-7; falls long before the test loss", high=False),
    "restricted_loss_by_split": Measure(losses.restricted_loss_by_split, "the same, of all pairs, train and test", "—"),
    "restricted_by_frequency": Measure(
        losses.restricted_by_frequency, "the same over all pairs, with one key frequency alone", "—"),
    "excluded_loss": Measure(
        losses.excluded_loss, "cross-entropy over the training pairs of L − Σ_k P_k L, k the key frequencies",
        f"{NANDA}: rises through circuit formation, steps 1,400 to 9,400", high=True),
    "excluded_loss_by_split": Measure(losses.excluded_loss_by_split, "the same, of all pairs, train and test", "—"),
    "excluded_by_frequency": Measure(
        losses.excluded_by_frequency, "the same over the training pairs, with one key frequency taken away",
        f"{NANDA}: 6.5 to 11 once clean"),
    "excluded_quotient_loss": Measure(
        losses.excluded_quotient_loss,
        "as excluded_loss, along the differences (quotients): as many directions, which the answer does not use",
        "near the full loss"),
    # ------------------------------------------------------------------------------------------------ cosines
    "cosine_coefficients": Measure(
        losses.cosine_coefficients, "α_k = ⟨g_k, L⟩/‖g_k‖, g_k = cos w_k(a + b − c) or its like", "—", ANSWERS),
    "cosine_variance_explained": Measure(
        losses.cosine_variance_explained, "Σ α_k²/Σ L², k the key frequencies, L less each pair's mean",
        f"{NANDA}: .95", ANSWERS, True),
    "cosine_residual_loss": Measure(
        losses.cosine_residual_loss, "cross-entropy over all pairs of the key frequencies' cosines alone", "—", ANSWERS,
        False),
    # ------------------------------------------------------------------------------------------------ weights
    "weight_norm": Measure(
        weights.weight_norm, "√Σ θ²", "Omnigrok 2022, Nanda's net: 42.8, at most 60.8, at last 30.3", ()),
    "weight_norms": Measure(weights.weight_norms, "the same for each tensor", "—", ()),
    "logit_scale": Measure(
        weights.logit_scale, "root mean square of the logits, less each pair's mean over the answers; by temperature",
        "Khanh 2026: explains the delay, R² = .97", PAIRS),
    "margin": Measure(weights.margin, "the right logit less the best other, the mean over the pairs", "—", PAIRS, True),
    "softmax_collapse": Measure(
        weights.softmax_collapse, "share of training examples whose loss is exactly 0 in the run's precision",
        "Prieto 2025: learning stalls as it nears 1", PAIRS),
    "growth_alignment": Measure(
        weights.growth_alignment, "cos(−g, θ), g the gradient of the training loss",
        "Prieto 2025: near 1 in naive loss minimisation", ()),
    "effective_rank": Measure(
        weights.effective_rank, "exp of the entropy of σ/Σσ, of each matrix (heads averaged)",
        "Fu 2026, hidden matrices: 118 to 110", ()),
    "stable_rank": Measure(
        weights.stable_rank, "Σσ²/σ₁², of each matrix (heads averaged)",
        "Fu 2026: 50 to 26 (AdamW), 44 to 66 (Muon)", ()),
    "weight_entropy": Measure(
        weights.weight_entropy, "exp of the entropy of the sizes of θ, over the number of weights", "—", ()),
    "trajectory_cosine": Measure(
        weights.trajectory_cosine, "cos(θ, θ₀)", "Fu 2026, when it groks: .25 (Muon), .67 (AdamW)", ()),
    "trajectory_turn": Measure(
        landscape.trajectory_turn,
        "sum of the angles, in radians, between successive saved weights; control: a random walk of the same steps",
        "—", ("run",)),
    "trajectory_pc1": Measure(
        landscape.trajectory_pc1,
        "share of the saved weights' variance on their first principal component; control: a random walk, .61 if long",
        ".70 to .94 (secondary source)", ("run",), True),
    "activation_sparsity": Measure(
        weights.activation_sparsity, "share of exact zeros among the neurons, over all pairs", "—", PAIRS),
    # ------------------------------------------------------------------------------------------------ gradients
    "gradient_alignment": Measure(
        gradients.gradient_alignment, "cos of the gradients of two random halves of the training set", "—", ()),
    "train_test_cosine": Measure(
        gradients.train_test_cosine, "cos of the gradients of the training and the test loss", "—", ()),
    "gradient_signal_to_noise": Measure(
        gradients.gradient_signal_to_noise, "‖mean g‖/√Σ var g over 16 batches of up to 256 examples", "—", ()),
    "gradient_entropy": Measure(
        weights.gradient_entropy, "exp of the entropy of the sizes of g, over the number of weights", "—", ()),
    "gradient_persistence": Measure(
        landscape.gradient_persistence,
        "‖h‖/‖g‖ after 50 further steps by the run's rule, h the moving average of their gradients (α = .98)",
        "Lee 2024 amplifies h: Grokfast", ("rules",), costly=True),
    "commutator_defect": Measure(
        landscape.commutator_defect,
        "‖θ_AB − θ_BA‖/(‖η g_A‖ ‖η g_B‖): gradient steps on either half of the training set, in either order",
        "Xu 2026: peaks 600 to 1,600 steps before 90 %; 50 to 190 when it groks", ()),
    "sharpness": Measure(
        landscape.sharpness,
        "100 (max f − f)/(1 + f), f the training loss within about 1e-3 along ten random directions",
        "Keskar 2017 (method), as in the code of Power 2022", (), costly=True),
    "hessian_top": Measure(
        landscape.hessian_top, "largest eigenvalue of the Hessian of the training loss", "—", ("scipy",), costly=True),
    "gradient_symmetricity": Measure(
        gradients.gradient_symmetricity,
        "mean over 200 random (a, b, c) of cos(∂L_abc/∂E_a, ∂L_abc/∂E_b)", f"{ZHONG}: pizza .9937, clock .3336", PAIRS,
        True),
    "distance_irrelevance": Measure(
        gradients.distance_irrelevance,
        "mean over d of the std of the right logit over the pairs with a − b = d, over its std",
        f"{ZHONG}: pizza .17 (0 to .4), clock .85 (.4 to 1)", high=False),
    # ------------------------------------------------------------------------------------------------ geometry
    "circularity": Measure(
        geometry.circularity,
        "of the embedding's first four principal components, the greatest share of each at one frequency, the mean",
        f"{ZHONG}: circular above .995", high=True),
    "parallelogram_error": Measure(
        geometry.parallelogram_error,
        "mean ‖E_i + E_j − E_m − E_n‖² where i∘j = m∘n, over that of unrelated numbers", "—", high=False),
    "parallelogram_quality": Measure(
        geometry.parallelogram_quality, "share of them closer than a tenth of the unrelated ones' root mean square",
        "Liu 2022: predicts accuracy in its toy", high=True),
    "local_complexity": Measure(
        geometry.local_complexity, "ReLUs that change sign within 5 % of an MLP input, mean over 64 pairs",
        "Humayun 2024: falls once the training set is fitted", ("pairs", "relu")),
    "circuit_efficiency": Measure(
        memory.circuit_efficiency, "root mean square logits in the key frequencies, and of the rest, over Σ θ²",
        "Varma 2023: what generalises is the more efficient"),
    "local_learning_coefficient": Measure(
        posterior.local_learning_coefficient, "nβ (mean L(w) − L(w*)), 100 draws by SGLD near the weights, nβ = n/ln n",
        "Lau 2023 (method); for these tasks it falls as the network generalises", (), costly=True),
}  # fmt: skip


def get(name: str) -> Measure:
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    return MEASURES[name]


def why_not(name: str, s: Subject) -> str | None:
    """Why a measure does not apply; None where it does."""
    needs, facts, model = MEASURES[name].needs, s.task.facts, s.objective.model
    if model.architecture != "decoder_only" or not isinstance(s.params, Params):
        return "the measures are those of decoder-only models"
    if "pairs" in needs and ("table" not in facts or s.task.n_ctx != 3):
        return "it is over all pairs (a, b) of an operation on two numbers"
    if ("characters" in needs or "answers" in needs) and (reason := why_no_characters(s)):
        return reason
    if "answers" in needs and s.characters.c is None:
        return f"the answer of {facts['operation']} is not a + b itself"
    if "commuting" in needs and "mirror_free" not in s.task.groups:
        return "no test pair is without its mirror, or the operation does not commute"
    if "relu" in needs and model.activation != "relu":
        return f"it counts the kinks of ReLU; the activation is {model.activation}"
    if "untied" in needs and s.params.unembed.W_U is None:
        return "the unembedding is tied to the embedding"
    if "parity" in needs and "support" not in facts:
        return "it is of the parity of some bits"
    if "all inputs" in needs and facts["n_bits"] > parity.WHOLE:
        return f"it asks for all inputs of at most {parity.WHOLE} bits; the task has {facts['n_bits']}"
    if "run" in needs and (s.run is None or sum(s.step is None or at <= s.step for at in Run(s.run).snapshots) < 3):
        return "it asks for three checkpoints or more up to this step"
    if "rules" in needs and s.rules is None:
        return "it takes further steps, and no rule for them is known"
    if "scipy" in needs and find_spec("scipy") is None:
        return "it is found by scipy, which is not installed: pip install 'onelayer[curvature]'"
    if "noise" in needs and not facts.get("label_noise"):
        return "no label was spoilt"
    return None


def markdown() -> str:
    """The table of docs/grokking.md."""
    rows = ["| measure | definition | found by others | needs |", "|---" * 4 + "|"]
    for name, m in MEASURES.items():
        rows.append(f"| `{name}` | {m.definition} | {m.reference} | {', '.join(m.needs) or 'any decoder'} |")
    return "\n".join(rows)
