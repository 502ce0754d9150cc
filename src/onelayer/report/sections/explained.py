"""Three numbers taken apart: a logit, an attention score, a weight's gradient, each a tree whose children add up."""

import numpy as np

from onelayer.microscope import Trace, explain, trace
from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.tasks import Batch
from onelayer.training.opened import open_run

EXAMPLES = 64  # of the training set
DEPTH, TOP = 3, 3  # of the trees: levels, and terms at each node


def applies(run: Run) -> bool:
    return bool(run.checkpoints)


def build(run: Run) -> Section:
    seen = open_run(run.directory.path, examples=min(EXAMPLES, len(run.task.train.tokens)))
    t = trace(seen.params, seen.batch, seen.model, **run.words, **seen.loss)
    listings = {f"{why}: {name}": str(explain(t, name, depth=DEPTH, top=TOP)) for why, name in chosen(t).items()}
    text = (
        f"At step {seen.step:,}, over the first {len(seen.batch.tokens)} training examples. At every node the children "
        "sum to their parent; the smaller terms are added up in one. Any other number: "
        f"`onelayer explain {run.directory.path} NAME`."
    )
    return Section("Why this number?", text, listings=listings)


def chosen(t: Trace) -> dict[str, str]:
    """why -> the number's name: in the first example, but for the gradient, which is of all."""
    row = last_said(t.batch)
    answer = int(t.batch.targets[0, row])
    word = t.vocabulary[answer] if t.vocabulary else str(answer)
    scores = [name for name in t.values if name.endswith("attn.hook_attn_scores")][-1]
    attention = scores.removesuffix(".hook_attn_scores")
    query = row + t.value(scores).shape[2] - t.shape["R"]
    pattern = t.value(f"{attention}.hook_pattern")[0, :, query]  # [H S]
    head, source = np.unravel_index(np.argmax(pattern), pattern.shape)
    weight = t.gradient(f"{attention}.W_V")
    place = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    return {
        f"The logit of the right answer, {word}": f"logits[0,{row},{answer}]",
        "The score of the strongest look": f"{scores}[0,{head},{query},{source}]",
        "The largest gradient of a value weight": f"{attention}.W_V[{','.join(map(str, place))}]",
    }


def last_said(batch: Batch) -> int:
    """The last position of the first example whose target counts: behind it there is padding."""
    return batch.targets.shape[1] - 1 if batch.weights is None else int(np.flatnonzero(batch.weights[0])[-1])
