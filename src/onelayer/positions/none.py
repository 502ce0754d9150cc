"""No positional encoding: the model sees a bag of words, but for what a causal mask gives away.

Shapes    no parameters, no stage

Forward   nothing is added anywhere.
          Without positions, one causal layer's output depends only on the last token and on the multiset before it.

Backward  nothing flows back.

Source    Kazemnejad et al. 2023, arXiv:2305.19466 (many causal layers can recover positions; one cannot:
          Irie 2025, arXiv:2501.00659). Every step: docs/derivations/positions.md
"""

from typing import Any

RELATIVE = True
EXTRAPOLATES = "yes"


def init(rng: Any, size: Any) -> None:
    return None
