"""Three numbers taken apart: a logit, an attention score, a weight's gradient, each a tree whose children add up."""

import numpy as np

from onelayer.microscope import Trace, explain, trace
from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.training.opened import open_run

EXAMPLES = 64  # of the training set
DEPTH, TOP = 3, 3  # of the trees: levels, and terms at each node


def applies(run: Run) -> bool:
    return bool(run.checkpoints)


def build(run: Run) -> Section:
    seen = open_run(run.directory.path, examples=min(EXAMPLES, len(run.task.train.tokens)))
    t = trace(seen.params, seen.batch, seen.model, vocabulary=run.task.vocabulary, **seen.loss)
    listings = {f"{why}: {name}": str(explain(t, name, depth=DEPTH, top=TOP)) for why, name in chosen(t).items()}
    text = (
        f"At step {seen.step:,}, over the first {len(seen.batch.tokens)} training examples. At every node the children "
        "sum to their parent; the smaller terms are added up in one. Any other number: "
        f"`onelayer explain {run.directory.path} NAME`."
    )
    return Section("Why this number?", text, listings=listings)


def chosen(t: Trace) -> dict[str, str]:
    """why -> the number's name: in the first example, but for the gradient, which is of all."""
    answer = int(t.batch.targets[0, -1])
    word = t.vocabulary[answer] if t.vocabulary else str(answer)
    scores = [name for name in t.values if name.endswith("attn.hook_attn_scores")][-1]
    attention = scores.removesuffix(".hook_attn_scores")
    pattern = t.value(f"{attention}.hook_pattern")[0, :, -1]  # [H S], of the last query
    head, source = np.unravel_index(np.argmax(pattern), pattern.shape)
    query = t.value(scores).shape[2] - 1
    weight = t.gradient(f"{attention}.W_V")
    place = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    return {
        f"The logit of the right answer, {word}": f"logits[0,{t.shape['R'] - 1},{answer}]",
        "The score of the strongest look": f"{scores}[0,{head},{query},{source}]",
        "The largest gradient of a value weight": f"{attention}.W_V[{','.join(map(str, place))}]",
    }
