"""The walk backward: from the loss to the embeddings, gradient by gradient; what the illustrated tours leave out.

∂a is ∂loss/∂a. The last block of either stack is shown, where its gradient comes from first.
"""

from collections.abc import Sequence

import numpy as np

from onelayer.arrays import Array, flatten, map_tree, unflatten
from onelayer.layers import cross_entropy
from onelayer.microscope import explain, gates
from onelayer.microscope.complex_step import STEP
from onelayer.report.section import Matrix, Step
from onelayer.report.walk.forward import last, unembedding
from onelayer.report.walk.parts import Attention, adds_up, arrow, classes, quoted, stream, told, weight, words
from onelayer.report.walk.scene import Scene
from onelayer.report.wording import percent

__all__ = ["complex_step", "steps"]


def steps(scene: Scene) -> list[Step]:
    cfg = scene.trace.cfg
    top = cfg.n_layers - 1
    above = (cfg.n_encoder_layers or cfg.n_layers) - 1
    cross = Attention(scene, f"decoder.blocks.{top}.cross_attn")
    return [
        _from_the_loss(scene),
        _through_the_unembedding(scene),
        *_through_the_last_norm(scene),
        *_feed_forward(scene, f"decoder.blocks.{top}"),
        _into_cross_attention(cross),
        _values(cross),
        _pattern(cross),
        _softmax(cross),
        _queries_and_keys(cross),
        _memory(scene),
        *_looking_back(scene, top),
        *_feed_forward(scene, f"encoder.blocks.{above}"),
        *_encoder_attention(scene, above),
        *_embeddings(scene, above),
        _taken_apart(scene, cross),
    ]


# ---------------------------------------------------------------------------------------------------- the loss


def _from_the_loss(scene: Scene) -> Step:
    judged, t, shown = scene.trace.judged, scene.t, classes(scene)
    P, q, w = judged.share[0], judged.wanted[0], judged.weight[0]
    d = scene.slope("logits")
    labels = [scene.word(v) for v in shown]
    target = int(scene.trace.batch.targets[0, t])
    rival = int(np.argmax(np.where(np.arange(P.shape[1]) == target, -1, P[t])))
    growth = "" if judged.growth is None else " s′/s"

    def drawn(symbol: str, x: Array, amounts: bool = False) -> Matrix:
        column = np.flatnonzero(shown == target)
        return Matrix(symbol, x[:, shown], "tv", scene.read, labels, amounts, (t, int(column[0])))

    smoothing = scene.trace.settings.get("smoothing", 0.0)
    each = f"1/{round(1 / w[t, 0])}" if abs(1 / w[t, 0] - round(1 / w[t, 0])) < 1e-9 else told(w[t, 0])
    softened = "" if not smoothing else f" (label smoothing leaves {told(smoothing)} of q to the other words.)"
    return Step(
        "The first gradient: what was said less what was wanted",
        f"Of {quoted(scene.wanted[t])}: P − q = {told(P[t, target])} − {told(q[t, target])} = "
        f"{told(P[t, target] - q[t, target])}; of {quoted(scene.word(rival))}, which was not wanted: "
        f"{told(P[t, rival] - q[t, rival])}. Each place has the weight {each}. Every row sums to 0: what one word "
        f"is raised by, the others are lowered by (here {told(d[t].sum())}).{softened}",
        f"∂logits = w{growth} (P − q)",
        [
            [
                drawn("P", P, True),
                "−",
                drawn("q", q, True),
                "=",
                drawn("P − q", P - q),
                f"× {each} =",
                drawn("∂logits", d),
            ],
        ],
    )


def _through_the_unembedding(scene: Scene) -> Step:
    d, shown, t = scene.slope("logits"), classes(scene), scene.t
    y, W = scene.value(last(scene)), unembedding(scene)
    dy, dW = d @ W.T, y.T @ d
    labels = [scene.word(v) for v in shown]
    dlogits = Matrix("∂logits", d[:, shown], "tv", scene.read, labels, mark=(t, None))
    share = float(np.sum(d[:, shown] ** 2) / max(np.sum(d**2), np.finfo(float).tiny))
    some = "" if len(shown) == W.shape[1] else f" The words drawn hold {percent(share)} of Σ (∂logits)²."
    biggest = int(np.argmax(np.linalg.norm(dW, axis=0)))
    return Step(
        "Through the unembedding",
        f"Each row y learns in which direction it should have pointed, and each column of W_U which rows it should "
        f"have met: the column of {quoted(scene.word(biggest))} gets the longest gradient, "
        f"{told(np.linalg.norm(dW[:, biggest]))}.{some}",
        "∂y = ∂logits W_Uᵀ      ∂W_U = yᵀ ∂logits",
        [
            [dlogits, "×", Matrix("W_Uᵀ", W[:, shown].T, "vd", labels), "=" if not some else "≈",
             stream(scene, "∂y", dy, "decoder.")],
            [Matrix("yᵀ", y.T, "dt", None, scene.read, mark=(None, t)), "×", dlogits, "=",
             Matrix("∂W_U", dW[:, shown], "dv", None, labels)],
        ],
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- norms


def _norm(scene: Scene, stack: str, title: str, x: Array, dy: Array, dx: Array, ln: str, y: str, of: str) -> Step:
    """∂x = r (∂x̂ − mean ∂x̂ − x̂ mean(x̂ ∂x̂)), with the numbers of the row that is followed."""
    cfg, i = scene.trace.cfg, scene.followed(stack)
    gain = scene.trace.weights[f"{ln}.gain"]
    layer = cfg.norm_kind == "layer"
    centred = x - x.mean(axis=-1, keepdims=True) if layer else x
    r = 1 / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + cfg.norm_eps)
    x_hat, d_hat = r * centred, gain * dy
    stretch = float(np.mean(x_hat[i] * d_hat[i]))
    shift = f"the mean of ∂x̂, {told(d_hat[i].mean())}, and " if layer else ""
    return Step(
        title,
        f"What a norm takes out going up, no gradient can put in going down: {shift}the part along x̂, "
        f"{told(stretch)}, are taken out; the rest is scaled by r = {told(r[i, 0])}. The row of "
        f"{quoted(scene.tokens(stack)[i])} goes from "
        f"length {told(np.linalg.norm(dy[i]))} to {told(np.linalg.norm(dx[i]))}.",
        "∂x̂ = g ∂y      ∂x = r (∂x̂ − mean ∂x̂ − x̂ mean(x̂ ∂x̂))" if layer else
        "∂x̂ = g ∂y      ∂x = r (∂x̂ − x̂ mean(x̂ ∂x̂))",
        [[stream(scene, y, dy, stack), arrow("norm, backwards"), stream(scene, of, dx, stack)]],
    )  # fmt: skip


def _through_the_last_norm(scene: Scene) -> list[Step]:
    """Where the norm stands before what reads it, there is one more at the top."""
    if scene.trace.cfg.norm != "pre":
        return []
    top = f"decoder.blocks.{scene.trace.cfg.n_layers - 1}.hook_resid_post"
    dy = scene.slope("decoder.ln_final.hook_normalized")
    args = (scene.value(top), dy, scene.slope(top), "decoder.ln_final", "∂y", "∂post")
    return [_norm(scene, "decoder.", "Through the last norm", *args)]


# ---------------------------------------------------------------------------------------------------- feed-forward


def _feed_forward(scene: Scene, scope: str) -> list[Step]:
    """Through the neurons and around them."""
    cfg, stack = scene.trace.cfg, scope.partition("blocks.")[0]
    side = "Encoder" if stack == "encoder." else "Decoder"
    below = "hook_resid_cross" if stack == "decoder." else "hook_resid_mid"
    mid = "∂met" if stack == "decoder." else "∂mid"
    i, tokens = scene.followed(stack), scene.tokens(stack)
    dout, dh, dpre = (scene.slope(f"{scope}.{x}") for x in ("hook_mlp_out", "mlp.hook_post", "mlp.hook_pre"))
    around, through, whole = (scene.slope(f"{scope}.{x}") for x in ("route_skip_mlp", "route_mlp", below))
    found = []
    if cfg.norm == "post":
        x = scene.value(f"{scope}.{below}") + scene.value(f"{scope}.hook_mlp_out")
        args = (x, scene.slope(f"{scope}.hook_resid_post"), dout, f"{scope}.ln2", "∂post", "∂sum")
        found.append(_norm(scene, stack, f"{side}: through the norm after the feed-forward", *args))
    on = int(np.count_nonzero(dpre[i]))
    neuron = int(np.argmax(np.abs(dpre[i])))
    passes = (
        f"A neuron that was off at a token lets nothing through: at {quoted(tokens[i])} {on} of {dpre.shape[1]} do. "
        if cfg.activation == "relu"
        else ""
    )

    def neurons(symbol: str, x: Array) -> Matrix:
        return Matrix(symbol, x, "tf", tokens, mark=(i, None))

    back = arrow("W_inᵀ, norm backwards" if cfg.norm == "pre" else "W_inᵀ")
    found.append(
        Step(
            f"{side}: through the feed-forward",
            f"{passes}Most is asked of neuron {neuron}: ∂h = {told(dh[i, neuron])}, and the slope there makes it "
            f"{told(dpre[i, neuron])}.",
            f"∂h = ∂out W_outᵀ      ∂pre = {cfg.activation}′(pre) ∂h      ∂x = ∂pre W_inᵀ      ∂W_in = xᵀ ∂pre"
            "      ∂W_out = hᵀ ∂out",
            [[stream(scene, "∂out", dout, stack), arrow("W_outᵀ"), neurons("∂h", dh), arrow(f"{cfg.activation}′(pre)"),
              neurons("∂pre", dpre), back, stream(scene, "∂x", through, stack)]],
        )
    )  # fmt: skip
    lengths = [told(np.linalg.norm(x[i])) for x in (around, through, whole)]
    found.append(
        Step(
            f"{side}: two roads meet",
            f"A sum hands its gradient to both of its terms, so at the fork below it comes back twice: around the "
            f"feed-forward ({lengths[0]} long at {quoted(tokens[i])}) and through it ({lengths[1]}). Together: "
            f"{lengths[2]}.",
            f"{mid} = around + through",
            [[stream(scene, "around", around, stack), "+", stream(scene, "through", through, stack), "=",
              stream(scene, mid, whole, stack)]],
        )
    )  # fmt: skip
    return found


# ---------------------------------------------------------------------------------------------------- attention


def _into_cross_attention(a: Attention) -> Step:
    """From what cross-attention wrote to the sums of its heads."""
    scene = a.scene
    dout, dz, W_O = scene.slope(f"{a.scope}.hook_cross_out"), a.slope("z"), a.W("O")
    normed = " (The norm after it is passed first.)" if scene.trace.cfg.norm == "post" else ""
    return Step(
        "Into cross-attention, head by head",
        f"W_O joined the heads, and its transpose sends each head its own share: head {a.head} gets "
        f"{percent(float(np.sum(dz**2) / max(np.sum(scene.slope(f'{a.name}.hook_z') ** 2), 1e-300)))} of Σ (∂z)² over "
        f"all heads.{normed}",
        "∂z_h = ∂out W_O[h]ᵀ      ∂W_O[h] = z_hᵀ ∂out",
        [[stream(scene, "∂out", dout, a.stack), "×", weight("W_Oᵀ", W_O.T, "dk"), "=", a.queries("∂z", dz)]],
    )


def _values(a: Attention) -> Step:
    dz, A, dv, j = a.slope("z"), a.value("pattern"), a.slope("v"), a.column
    scene, dW = a.scene, a.asked_of.T @ a.slope("v")
    asks = int(np.argmax(A[:, j]))
    return Step(
        "Into the values",
        f"Where a look went, gradient comes back, in the same shares: the value of {quoted(a.asked[j])} hears most "
        f"from {quoted(a.asking[asks])}, which had given it {percent(A[asks, j])}. It was made of the memory, so W_V's "
        f"gradient is memory times this.",
        "∂V = Aᵀ ∂z      ∂W_V = memoryᵀ ∂V",
        [
            [Matrix("Aᵀ", A.T, "st", a.asked, a.asking, True, (j, a.row)), "×", a.queries("∂z", dz), "=",
             a.keys("∂V", dv)],
            [Matrix("memoryᵀ", a.asked_of.T, "ds", None, scene.tokens(a.sources), mark=(None, j)), "×",
             a.keys("∂V", dv), "=", weight("∂W_V", dW, "dk")],
        ],
    )  # fmt: skip


def _pattern(a: Attention) -> Step:
    dz, v, dA = a.slope("z"), a.value("v"), a.slope("pattern")
    i, j = a.row, a.column
    low = int(np.argmin(dA[i]))
    return Step(
        "Into the shares",
        f"Would looking more at {quoted(a.asked[j])} have helped {quoted(a.asking[i])}? ∂A = ∂z · v = "
        f"{told(dA[i, j])}: the loss would {'rise' if dA[i, j] > 0 else 'fall'} with that share. Most wanted was "
        f"{quoted(a.asked[low])}, with {told(dA[i, low])}.",
        "∂A = ∂z Vᵀ",
        [[a.queries("∂z", dz), "×", a.keys("Vᵀ", v, across=True), a.mixes, a.looks("∂A", dA)]],
    )


def _softmax(a: Attention) -> Step:
    A, dA, dS = a.value("pattern"), a.slope("pattern"), a.slope("attn_scores")
    i, j = a.row, a.column
    mean = float(A[i] @ dA[i])
    return Step(
        "Through the softmax, to the scores",
        f"Shares sum to 1, so one can only grow at the others' cost: what counts is how much better than the row's "
        f"average a look would be. For {quoted(a.asking[i])} looking at {quoted(a.asked[j])}: {told(A[i, j])} × "
        f"({told(dA[i, j])} − ({told(mean)})) = {told(dS[i, j])}. A row sums to 0; a share of 0 or 1 learns nothing.",
        "∂scores = A (∂A − Σ A ∂A), row by row",
        [[a.looks("A", A, amounts=True), "∘ (", a.looks("∂A", dA), "− Σ A ∂A ) =", a.looks("∂scores", dS)]],
    )


def _queries_and_keys(a: Attention) -> Step:
    mark = "′" if a.turned else ""
    dS, q, k = a.slope("attn_scores"), a.value(f"{a.turned}q"), a.value(f"{a.turned}k")
    dq, dk = a.slope(f"{a.turned}q"), a.slope(f"{a.turned}k")
    i, j = a.row, a.column
    return Step(
        "Into queries and keys",
        f"Each query is pulled along the keys that it should have met better, and each key along the queries. Lengths: "
        f"∂q of {quoted(a.asking[i])} {told(np.linalg.norm(dq[i]))}, ∂k of {quoted(a.asked[j])} "
        f"{told(np.linalg.norm(dk[j]))}. The √{a.width} that made the scores smaller makes these smaller too.",
        f"∂Q{mark} = ∂scores K{mark}/√K      ∂K{mark} = ∂scoresᵀ Q{mark}/√K      ∂W_Q = xᵀ ∂Q      ∂W_K = memoryᵀ ∂K",
        [
            [a.looks("∂scores", dS), "×", a.keys(f"K{mark}", k), "÷ √K =", a.queries(f"∂Q{mark}", dq)],
            [Matrix("∂scoresᵀ", dS.T, "st", a.asked, a.asking, mark=(j, i)), "×", a.queries(f"Q{mark}", q), "÷ √K =",
             a.keys(f"∂K{mark}", dk)],
        ],
    )  # fmt: skip


def _routes(scene: Scene, attention: str, ends: str) -> list[Array]:
    """What comes back to what was read, by queries, keys or values: Σ_h ∂q_h W_Q[h]ᵀ, and so on, [T D] each."""
    found = []
    for end in ends:
        d, W = scene.slope(f"{attention}.route_{end}"), scene.value(f"{attention}.W_{end.upper()}")
        found.append(np.tensordot(d, W, axes=((1, 2), (0, 2))))
    return found


def _memory(scene: Scene) -> Step:
    """What all blocks of the decoder send back to the memory, added up."""
    layers, whole, s = scene.trace.cfg.n_layers, scene.slope("encoder.hook_memory"), scene.s
    both = [_routes(scene, f"decoder.blocks.{i}.cross_attn", "kv") for i in range(layers)]
    keys, values = (np.sum([pair[end] for pair in both], axis=0) for end in (0, 1))
    heads = scene.trace.cfg.n_heads
    sign = adds_up((keys, values), whole, "through the bias")
    each = "" if layers == 1 else "; from the blocks " + ", ".join(
        told(np.linalg.norm(k[s] + v[s])) for k, v in both) + ", the lowest first"  # fmt: skip
    share = np.linalg.norm(whole, axis=1)
    most = int(np.argmax(share))
    return Step(
        "The memory's gradient",
        f"The memory was read {2 * layers * heads} times: as keys and as values, by {words(heads, 'head')} of "
        f"{words(layers, 'block')}. What is read more than once gets the sum of what its readers send back. At "
        f"{quoted(scene.source[s])}: {told(np.linalg.norm(keys[s]))} through keys, {told(np.linalg.norm(values[s]))} "
        f"through values{each}. Most comes to {quoted(scene.source[most])}. Here the decoder's part ends and the "
        f"encoder's begins.",
        "∂memory = Σ over blocks and heads of ∂K W_Kᵀ + ∂V W_Vᵀ",
        [[stream(scene, "through keys", keys, "encoder."), "+", stream(scene, "through values", values, "encoder."),
          sign, stream(scene, "∂memory", whole, "encoder.")]],
    )  # fmt: skip


def _looking_back(scene: Scene, top: int) -> list[Step]:
    """The decoder's own way down: its queries, its look back, and its embeddings."""
    scope, t = f"decoder.blocks.{top}", scene.t
    cfg = scene.trace.cfg
    a = Attention(scene, f"{scope}.attn")
    around, through, mid = (scene.slope(f"{scope}.{x}") for x in ("route_skip_cross", "route_cross", "hook_resid_mid"))
    token = quoted(scene.read[t])
    lengths = [told(np.linalg.norm(x[t])) for x in (around, through, mid)]
    first = Step(
        "Decoder: around cross-attention, and through its queries",
        f"Back in the decoder: at {token} {lengths[0]} came around cross-attention and {lengths[1]} through the "
        f"queries that it asked; together {lengths[2]}.",
        "∂mid = around + ∂Q W_Qᵀ" + (", normed backwards" if cfg.norm == "pre" else ""),
        [[stream(scene, "around", around, "decoder."), "+", stream(scene, "through", through, "decoder."), "=",
          stream(scene, "∂mid", mid, "decoder.")]],
    )  # fmt: skip
    A, dA, dS = a.value("pattern"), a.slope("pattern"), a.slope("attn_scores")
    second = Step(
        "Decoder: the look back",
        f"The same four steps as across: ∂V = Aᵀ ∂z, ∂A = ∂z Vᵀ, through the softmax, into Q and K. Where looking was "
        f"forbidden, A is 0, and so is ∂scores: no gradient flows from a word to a later one. Head {a.head}.",
        "∂scores = A (∂A − Σ A ∂A)",
        [[a.looks("A", A, amounts=True), "∘ (", a.looks("∂A", a.masked(dA)), "− Σ A ∂A ) =", a.looks("∂scores", dS)]],
    )
    return [first, second, _four_roads(scene, a, "Decoder: four roads into what the block read")]


def _four_roads(scene: Scene, a: Attention, title: str) -> Step:
    stack, i = a.stack, a.row
    whole, around = scene.slope(f"{a.scope}.hook_resid_pre"), scene.slope(f"{a.scope}.route_skip_attn")
    by = dict(zip(("queries", "keys", "values"), _routes(scene, a.name, "qkv"), strict=True))
    pre = scene.trace.cfg.norm == "pre"
    token = quoted(a.asking[i])
    lengths = ", ".join(f"{told(np.linalg.norm(x[i]))} through {name}" for name, x in by.items())
    normed = " The last three pass the norm, backwards, before they are added." if pre else ""
    sign = adds_up((around, *by.values()), whole, "through the bias")
    roads: list[Matrix | str] = [stream(scene, "around", around, stack)]
    for name, x in by.items():
        roads += ["+", stream(scene, f"through {name}", x, stack)]
    return Step(
        title,
        f"At {token}: {told(np.linalg.norm(around[i]))} around attention, {lengths}.{normed} Together "
        f"{told(np.linalg.norm(whole[i]))}.",
        "∂x = around + norm′(∂Q W_Qᵀ + ∂K W_Kᵀ + ∂V W_Vᵀ)" if pre else "∂x = around + ∂Q W_Qᵀ + ∂K W_Kᵀ + ∂V W_Vᵀ",
        [[*roads, arrow("norm backwards, added") if pre else sign, stream(scene, "∂x", whole, stack)]],
    )


def _encoder_attention(scene: Scene, above: int) -> list[Step]:
    a = Attention(scene, f"encoder.blocks.{above}.attn")
    A, dA, dS = a.value("pattern"), a.slope("pattern"), a.slope("attn_scores")
    dz, dv, dq, dk = a.slope("z"), a.slope("v"), a.slope("q"), a.slope("k")
    i, j = a.row, int(np.argmax(np.abs(dS[a.row])))
    wish = "more" if dS[i, j] < 0 else "less"
    first = Step(
        "Encoder: self-attention, backwards",
        f"Nothing is new here, only that queries, keys and values were all read from the same rows. The score that "
        f"should change most for {quoted(a.asking[i])} is that of {quoted(a.asked[j])}: ∂score = {told(dS[i, j])}, it "
        f"should have looked {wish} at it. Head {a.head}.",
        "∂V = Aᵀ ∂z      ∂A = ∂z Vᵀ      ∂scores = A (∂A − Σ A ∂A)      ∂Q = ∂scores K/√K      ∂K = ∂scoresᵀ Q/√K",
        [
            [a.looks("A", A, amounts=True), "∘ (", a.looks("∂A", dA), "− Σ A ∂A ) =", a.looks("∂scores", dS)],
            [a.queries("∂z", dz), arrow("Aᵀ"), a.keys("∂V", dv)],
            [a.queries("∂Q", dq), ",", a.keys("∂K", dk)],
        ],
    )
    return [first, _four_roads(scene, a, "Encoder: four roads into what the block read")]


# ---------------------------------------------------------------------------------------------------- embeddings


def _embeddings(scene: Scene, above: int) -> list[Step]:
    """Every token's row of the table gets the sum over the places where it stood."""
    cfg, tokens = scene.trace.cfg, scene.source
    assert scene.trace.batch.source is not None
    ids = scene.trace.batch.source[0]
    d = scene.slope("encoder.hook_embed")
    kept = list(dict.fromkeys(ids.tolist()))
    rows = np.stack([cfg.scale * d[ids == token].sum(axis=0) for token in kept])
    labels = [tokens[int(np.flatnonzero(ids == token)[0])] for token in kept]
    twice = [label for label, token in zip(labels, kept, strict=True) if int((ids == token).sum()) > 1]
    again = f" {', '.join(map(quoted, twice))} stood at several places: those are added." if twice else ""
    V = len(scene.run.source_vocabulary)
    scale = f", times the √D = {told(cfg.scale)} that multiplied it" if cfg.embed_scale else ""
    below = "" if above == 0 else f" (Block {above} is shown above; the blocks below it are passed in the same way.)"
    tied = {
        "none": "",
        "unembed": " The decoder's table, which is the unembedding too, gets the gradients of both uses, added.",
        "all": " One table serves both sides and the unembedding: it gets the sum of all three.",
    }[cfg.tied]
    return [
        Step(
            "The embeddings",
            f"The sum of embedding and position hands its gradient to both. A row of W_E gets what came back to its "
            f"token{scale}; the {V - len(kept):,} words of the vocabulary that were not read get exactly "
            f"0.{again}{below}{tied}",
            "∂W_E[token] = √D Σ over its places of ∂x" if cfg.embed_scale else
            "∂W_E[token] = Σ over its places of ∂x",
            [[stream(scene, "∂x", d, "encoder."), arrow("added by token"), Matrix("∂W_E", rows, "vd", labels)]],
        )
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- one number


def _taken_apart(scene: Scene, cross: Attention) -> Step:
    """One weight's gradient as the sum of its terms, and the same number found without any backward."""
    names = (f"{cross.name}.W_V", "encoder.blocks.0.attn.W_Q")  # the latter is as far from the loss as there is
    places = [
        (name, np.unravel_index(np.argmax(np.abs(g := scene.trace.weight_gradients[name])), g.shape)) for name in names
    ]
    numbers = [f"{name}[{','.join(map(str, map(int, at)))}]" for name, at in places]
    trees = [explain(scene.trace, number, depth=2, top=6) for number in numbers]
    (name, at), tree = places[0], trees[0]
    found = complex_step(scene, name, [int(i) for i in at])
    off = abs(found - tree.value) / abs(tree.value) if tree.value else abs(found)
    worst = max(tree.worst for tree in trees)
    return Step(
        "One number, taken apart; and is it right?",
        f"Any entry of any gradient is a sum that can be written out. Below, two of the largest: at every node the "
        f"terms add up to their parent (the worst misses by {told(worst)} of the largest). And without any backward: "
        f"moving {numbers[0]} by {told(STEP)} i, and looking at the imaginary part of the loss, gives the slope "
        f"{found:.12g}; the backward says {tree.value:.12g}. They differ by {told(off)} of it.".replace("-", "−")
        + f" Further down the tree: {_command(scene, numbers[0])}.",
        "∂loss/∂w = Im loss(w + ih)/h",
        (),
        {f"∂{number}": str(tree) for number, tree in zip(numbers, trees, strict=True)},
    )


def _command(scene: Scene, number: str) -> str:
    """What takes this number apart on the command line."""
    run, step = scene.run, scene.run.step_best
    at = "" if step is None else f" --step {step}"
    return f"onelayer explain {run.directory.path} '{number}' --split {scene.split} --only {scene.number}{at} --depth 5"


def complex_step(scene: Scene, name: str, at: Sequence[int]) -> float:
    """∂loss/∂ one entry of a weight by complex step (microscope/complex_step.py): one forward, no backward."""
    t = scene.trace
    flat = flatten(map_tree(lambda a: a.astype(np.complex128), t.params))
    moved = flat[name].copy()
    moved[tuple(at)] += 1j * STEP
    logits, _ = gates.forward(unflatten(flat | {name: moved}, t.params), t.batch, t.cfg)
    loss, _ = cross_entropy.forward(logits, t.batch.targets, t.batch.weights, **t.settings)
    return float(np.imag(loss)) / STEP
