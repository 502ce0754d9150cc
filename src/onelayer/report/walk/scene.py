"""The scene: the example that is walked through, traced, its tokens as words, and the tokens that the text follows.

The example is of the valid or test split, short enough to read, and one that the model gets right where there is one:
the first whose every token has the largest logit. (Given what came before it, that is; but then greedy decoding, which
begins alike and says the same at each step, gives the same answer.) It is cut to its own length: padding changes
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from onelayer.arrays import Array, map_tree
from onelayer.errors import BadInput
from onelayer.microscope import Trace, trace
from onelayer.report.run import Run
from onelayer.tasks import Batch, Pair

__all__ = ["Scene", "choose", "cropped", "shown"]

READABLE = (4, 11)  # tokens of a source and of a target, fewest and most
TRIED = 64  # examples that the model is asked, until it gets one right


@dataclass(frozen=True, eq=False)
class Scene:
    run: Run
    split: str
    number: int  # in its split
    trace: Trace
    right: bool  # whether the model says every token of the target

    # ------------------------------------------------------------------------------------------------ in words

    @cached_property
    def source(self) -> list[str]:
        assert self.trace.batch.source is not None
        return [shown(self.run.source_vocabulary[i]) for i in self.trace.batch.source[0]]

    @cached_property
    def read(self) -> list[str]:
        """What the decoder reads: the target, one place later."""
        return [shown(self.run.task.vocabulary[i]) for i in self.trace.batch.tokens[0]]

    @cached_property
    def wanted(self) -> list[str]:
        """What it should say at each place."""
        return [self.word(i) for i in self.trace.batch.targets[0]]

    @cached_property
    def said(self) -> list[str]:
        return [self.word(i) for i in self.trace.values["logits"][0].argmax(axis=-1)]

    def word(self, token: int) -> str:
        return shown(self.run.task.vocabulary[int(token)])

    @property
    def pair(self) -> Pair | None:
        """The example as strings, where the task has them."""
        text = self.run.task.text
        return None if text is None else text.pairs[self.split][self.number]

    def tokens(self, stack: str) -> list[str]:
        return self.source if stack == "encoder." else self.read

    # ------------------------------------------------------------------------------------------------ what is followed

    @cached_property
    def surprise(self) -> Array:
        """−log P of the wanted token, at each place of the target  [T]."""
        share, targets = self.trace.judged.share[0], self.trace.batch.targets[0]
        return -np.log(np.maximum(share[np.arange(len(targets)), targets], np.finfo(share.dtype).tiny))

    @cached_property
    def t(self) -> int:
        """The place of the target where the model is least sure: there most gradient comes from."""
        return int(np.argmax(self.surprise))

    @cached_property
    def s(self) -> int:
        """The source token that the last cross-attention looks at most from there, the end of the source left out."""
        looks = self.value(f"decoder.blocks.{self.trace.cfg.n_layers - 1}.cross_attn.hook_pattern")[:, self.t].mean(
            axis=0
        )
        return int(np.argmax(looks[:-1])) if len(looks) > 1 else 0

    def followed(self, stack: str) -> int:
        return self.s if stack == "encoder." else self.t

    def head(self, attention: str) -> int:
        """The head whose look from the followed token is the sharpest."""
        row = self.followed(attention.partition("blocks.")[0])
        return int(np.argmax(self.value(f"{attention}.hook_pattern")[:, row].max(axis=-1)))

    # ------------------------------------------------------------------------------------------------ numbers

    def value(self, name: str) -> Array:
        """An activation of the example, or a weight."""
        values = self.trace.values
        return values[name][0] if name in values else self.trace.weights[name]

    def slope(self, name: str) -> Array:
        """∂loss/∂ the same."""
        gradients = self.trace.gradients
        return gradients[name][0] if name in gradients else self.trace.weight_gradients[name]

    def has(self, name: str) -> bool:
        return name in self.trace.values or name in self.trace.weights


@lru_cache(maxsize=1)  # three sections of a page look at it
def choose(run: Run) -> Scene:
    """The example of this run; BadInput where no split has one."""
    split = next((name for name in ("valid", "test") if getattr(run.task, name) is not None), "test")
    batch = run.split(split)
    if batch.source is None:
        raise BadInput("the task reads no source")
    source, target = lengths(batch)
    low, high = READABLE
    fits = np.flatnonzero((source >= low) & (source <= high) & (target >= low) & (target <= high))
    if not fits.size:  # then those nearest to it, the shorter ones first
        most = np.maximum(source, target)
        fits = np.lexsort((np.arange(len(most)), np.abs(most - high)))
    tried = fits[:TRIED]
    rights = _right(run, map_tree(lambda a: a[tried], batch))
    number = int(tried[np.argmax(rights)])
    params = map_tree(lambda a: np.asarray(a, np.float64), run.params)
    t = trace(params, cropped(batch, number), run.model, **run.words, **run.loss)
    return Scene(run, split, number, t, bool(rights.any()))


def lengths(batch: Batch) -> tuple[Array, Array]:
    """How many tokens each source [N] and each target [N] has, without padding."""
    n, S = batch.source.shape if batch.source is not None else (len(batch.tokens), 0)
    source = np.full(n, S) if batch.source_mask is None else batch.source_mask.sum(axis=1)
    target = np.full(n, batch.targets.shape[1]) if batch.weights is None else (batch.weights > 0).sum(axis=1)
    return source, target


def cropped(batch: Batch, number: int) -> Batch:
    """One example, cut to its own length."""
    one = map_tree(lambda a: a[number : number + 1], batch)
    S, T = (int(n[0]) for n in lengths(one))
    short = {name: x[:, : S if name.startswith("source") else T] for name, x in one._asdict().items() if x is not None}
    return one._replace(**short)


def _right(run: Run, batch: Batch) -> Array:
    """[N]: whether every token that counts has the largest logit."""
    said = run.values(batch, "logits")["logits"].argmax(axis=-1)
    hit = said == batch.targets
    return np.all(hit if batch.weights is None else hit | (batch.weights == 0), axis=1)


def shown(token: str) -> str:
    """A token as a label: white space gets a sign."""
    return token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def listed(words: Sequence[str]) -> str:
    return " ".join(words)
