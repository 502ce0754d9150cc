"""Memory: what part of the accuracy a table learnt by heart would have, or a constant, or a mirror.

Shapes    L [n n C] logits over the pairs, centred over the answers     P = Σ_k P_k over the key frequencies

Accuracies     of train and test; of the test pairs whose mirror (b, a) is not in train; of a constant answer on test
Memorised      under label noise, the share of the spoilt training examples that are answered as spoilt; and as true
Efficiency     root mean square of P L (what generalises) and of L − P L (the rest), each per ‖θ‖²: the circuit whose
               logits cost less weight wins under weight decay. This splits by directions, not by training.

Source    Circuit efficiency: Varma et al. 2023, arXiv:2309.02390. Noisy labels: Zhang et al. 2017, arXiv:1611.03530.
          Mirrors: docs/tasks.md.
"""

import numpy as np

from ..tasks import Batch
from ..training import objective as objectives
from . import characters
from .subject import Subject, as_vector, centred, part


def _right(s: Subject, batch: Batch) -> np.ndarray:
    return objectives.scores(s.params, batch, s.objective)[2]


def accuracy(s: Subject) -> dict[str, float]:
    return {"train": float(np.mean(_right(s, s.task.train))), "test": float(np.mean(_right(s, s.task.test)))}


def mirror_free_accuracy(s: Subject) -> float:
    return float(np.mean(_right(s, part(s.task.test, s.task.groups["mirror_free"]))))


def majority_accuracy(s: Subject) -> float:
    return float(s.task.facts["majority_accuracy"])


def memorised_noise(s: Subject) -> dict[str, float]:
    spoilt = s.task.facts["noisy"]
    true = s.task.train._replace(targets=s.task.facts["clean_targets"])
    told = {"as spoilt": _right(s, s.task.train), "as true": _right(s, true)}
    return {name: float(np.mean(right[spoilt])) for name, right in told.items()}


def circuit_efficiency(s: Subject) -> dict[str, float]:
    logits, ch = centred(s.logits), s.characters
    general = characters.along(logits, ch.product, ch, s.key_frequencies)
    cost = float(np.sum(as_vector(s.params) ** 2))
    size = {"key frequencies": general, "the rest": logits - general}
    return {name: float(np.sqrt(np.mean(x**2))) / cost for name, x in size.items()}
