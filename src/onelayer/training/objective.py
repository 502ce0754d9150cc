"""The objective: what a batch costs under the parameters, how each parameter would have to move, and who was right.

loss and gradients   logits = model(batch), loss = cross_entropy(logits, targets), then the backward by hand
scores               per example: its loss, and how many of the targets that count were said (argmax)

Pure functions of arrays: the same lines run under NumPy and inside JAX's jit.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Bool, Inexact, Integer

from ..arrays import Array, array_namespace, is_jax_array, map_tree
from ..fused import fused
from ..layers import cross_entropy
from ..models import circuits, decoder_only, encoder_decoder, first_attention, tables
from ..models.config import ModelConfig
from ..tasks import Batch

__all__ = [
    "Met", "Objective", "Scores", "accumulated", "forward", "init", "loss_and_grads", "meet", "meet_again", "say",
    "scores", "to_parameters",
]  # fmt: skip


class Objective(NamedTuple):
    """Everything fixed that a loss hangs on."""

    model: ModelConfig
    read: int  # the last positions that are judged
    variant: str = "softmax"
    smoothing: float = 0.0
    never: int | None = None  # the class that gets no smoothing mass: padding
    temperature: float = 1.0


def init(model: ModelConfig, seed: int) -> Any:
    """The first weights, NumPy float64."""
    return (decoder_only if model.architecture == "decoder_only" else encoder_decoder).init(model, seed)


class Met(NamedTuple):
    """What the examples meet: the parameters, or what is multiplied out of them once for all examples of a batch."""

    params: Any
    batch: Batch  # as they meet it
    made_of: circuits.Origin | tuple[first_attention.Stack, ...] | None = None


def meet(params: Any, batch: Batch, objective: Objective) -> Met:
    """Multiply out what `circuits` can, or tabulate what `first_attention` can, where that is less work.

    Where tokens are JAX's the examples meet the parameters: XLA's products of the circuits' widths gain nothing
    (measured). The JAX engine gives NumPy's tokens where kernels take the examples (engines/examples.py).
    """
    cfg, read = objective.model, objective.read
    if isinstance(params, circuits.Circuits | first_attention.Seen) or is_jax_array(batch.tokens):
        return Met(params, batch)
    if cfg.architecture == "decoder_only" and circuits.fits(cfg, batch.tokens.shape, read):
        made, origin = circuits.multiply_out(cast(decoder_only.Params, params), batch.tokens, cfg)
        return Met(made, batch._replace(tokens=origin.rows.seats.rows), origin)
    sequences = [ids for ids in (batch.source, batch.tokens) if ids is not None]
    numbered_alike = batch.ids is None and batch.source_ids is None
    if numbered_alike and first_attention.fits(params, cfg, read, *sequences):
        seen, origins = first_attention.meet(params, cfg, *sequences)
        return Met(seen, batch, origins)
    return Met(params, batch)


def meet_again(met: Met, batch: Batch, objective: Objective) -> Met | None:
    """Other examples meet the same circuits; None where these lack something, or there are none."""
    if not isinstance(met.made_of, circuits.Origin):
        return None
    rows = tables.seated(met.made_of.rows.seats, batch.tokens, objective.model)
    return None if rows is None else met._replace(batch=batch._replace(tokens=rows))


def to_parameters(grads: Any, met: Met, objective: Objective) -> Any:
    """From the gradient of what was met to that of the parameters."""
    if met.made_of is None:
        return grads
    if isinstance(met.made_of, circuits.Origin):
        return circuits.multiply_out_backward(grads, met.made_of, objective.model)
    return first_attention.meet_backward(grads, met.made_of, objective.model)


def forward(params: Any, batch: Batch, objective: Objective) -> tuple[Array, Any]:
    """The logits of the positions that are read, and the model's cache; of the parameters, or of what was met."""
    cfg, (params, batch, _) = objective.model, meet(params, batch, objective)
    if isinstance(params, circuits.Circuits):
        return circuits.forward(params, batch.tokens, cfg)
    read = min(objective.read, batch.tokens.shape[1])  # a batch as wide as its longest may be narrower than the task
    if isinstance(params, first_attention.Seen):
        return first_attention.forward(
            params, batch.tokens, cfg, read=read, source=batch.source, source_present=batch.source_mask
        )
    if cfg.architecture == "encoder_decoder":
        return encoder_decoder.forward(
            params, batch.source, batch.tokens, cfg,
            source_present=batch.source_mask, source_ids=batch.source_ids, target_ids=batch.ids,
        )  # fmt: skip
    if tables.fits(cfg, batch.tokens.shape, objective.read):
        return tables.forward(params, batch.tokens, cfg)
    return decoder_only.forward(params, batch.tokens, cfg, read=read, ids=batch.ids)


def say(params: Any, batch: Batch, objective: Objective) -> Array:
    """The logits alone, where no backward follows."""
    if isinstance(params, circuits.Circuits):
        return circuits.say(params, batch.tokens, objective.model)
    return forward(params, batch, objective)[0]


def backward(dlogits: Array, cache: Any, objective: Objective) -> Any:
    """The gradient of all that `forward` was given or met, by the model whose forward left the cache."""
    models = circuits, tables, first_attention, decoder_only, encoder_decoder
    model = next(m for m in models if isinstance(cache, m.Cache))
    return model.backward(dlogits, cache, objective.model)


def loss_and_grads(
    params: Any,
    batch: Batch,
    objective: Objective,
    ahead: tuple[Array, Any] | None = None,
    among: float | None = None,
) -> tuple[Array, Any]:
    """The mean loss over the batch, and its gradient.

    ahead: `forward` of the same, if already known.
    among: the batch is a part of one whose targets weigh so much: its share in the loss of that one, and the gradient.
    """
    met = meet(params, batch, objective)
    logits, cache = forward(met.params, met.batch, objective) if ahead is None else ahead
    xp = array_namespace(logits)
    loss, c = cross_entropy.forward(
        logits,
        batch.targets,
        batch.weights,
        smoothing=objective.smoothing,
        never=objective.never,
        temperature=objective.temperature,
        variant=objective.variant,
    )
    dlogits = cross_entropy.backward(c)
    if among is not None:
        share = weight(batch) / among
        loss, dlogits = share * loss, share * dlogits
    dlogits = xp.astype(dlogits, logits.dtype)
    return loss, to_parameters(backward(dlogits, cache, objective), met, objective)


def weight(batch: Batch) -> float:
    """Of its targets together."""
    return float(np.prod(batch.targets.shape)) if batch.weights is None else float(batch.weights.sum())


class Scores(NamedTuple):
    """Per example [B]. The loss is never smoothed, nor is a temperature in it: it is the surprise at what was right."""

    loss: Array  # summed over its targets
    count: Array  # how many targets count
    correct: Array  # whether all of them were said
    hits: Array  # how many of them were said


def accumulated(
    params: Any,
    parts: Sequence[Batch],
    objective: Objective,
    each: Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]] = map,
    ahead: Sequence[tuple[Array, Any]] | None = None,
    gradient: Callable[..., tuple[Array, Any]] = loss_and_grads,
    among: float | None = None,
) -> tuple[Array, Any]:
    """`loss_and_grads` of all the parts as one batch: each counts by its targets' weight.

    loss = Σ n_i loss_i / Σ n_i, and so the gradient; n_i is the sum of the weights of part i. A part's share
    n_i / Σ n_i is in its ∂logits already, so that no gradient needs to be multiplied by it.
    each: `map` takes one part after the other, in the memory of one; `threads.together` takes them side by side.
    ahead: `forward` of each part, if already known.   gradient: how a part's is had.
    """
    weights = [weight(part) for part in parts]
    told = [i for i, w in enumerate(weights) if w > 0]  # a part of padding alone has nothing to say
    among = sum(weights) if among is None else among

    def own(i: int) -> tuple[Array, Any]:
        return gradient(params, parts[i], objective, None if ahead is None else ahead[i], among)

    found = iter(each(own, told))
    loss, grads = next(found)
    for more, g in found:
        loss, grads = loss + more, map_tree(_add, grads, g)
    return loss, grads


def _add(a: Array, b: Array) -> Array:
    """a + b; NumPy's in the memory of a, a part's own, or in C order: those who read it next need not copy it."""
    if not isinstance(a, np.ndarray):
        return a + b
    return np.add(a, b, out=a if a.flags.c_contiguous else np.empty(a.shape, a.dtype))


def scores(params: Any, batch: Batch, objective: Objective) -> Scores:
    """What the model, told the right answer so far, says next, at every target of each example."""
    return judge(forward(params, batch, objective)[0], batch)


def judge(logits: Array, batch: Batch) -> Scores:
    """The scores of what was said."""
    xp = array_namespace(logits)
    surprise, hit = surprises(xp.reshape(logits, (-1, logits.shape[-1])), xp.reshape(batch.targets, (-1,)))
    w = xp.ones(batch.targets.shape, dtype=logits.dtype) if batch.weights is None else batch.weights
    hit = xp.reshape(hit, batch.targets.shape)
    correct = xp.all(xp.logical_or(hit, w == 0), axis=-1)
    loss = xp.sum(w * xp.reshape(surprise, batch.targets.shape), axis=-1)
    return Scores(loss, xp.sum(w, axis=-1), correct, xp.sum(xp.where(hit, w, xp.zeros_like(w)), axis=-1))


@fused
def surprises(
    rows: Inexact[Array, "N V"], targets: Integer[Array, " N"]
) -> tuple[Inexact[Array, " N"], Bool[Array, " N"]]:
    """How little each right answer was expected, −log P, and whether it was expected most."""
    xp = array_namespace(rows)
    places = xp.arange(rows.shape[0], dtype=targets.dtype) * rows.shape[1] + targets
    said, top = xp.take(xp.reshape(rows, (-1,)), places), xp.max(rows, axis=-1)
    surprise = xp.log(xp.sum(xp.exp(rows - top[:, None]), axis=-1)) + (top - said)
    return surprise, xp.argmax(rows, axis=-1) == targets
