"""The walk forward, in the order of Alammar, The Illustrated Transformer (2018): from words to the loss."""

import numpy as np

from onelayer.decoding.decode import Greedy, decode
from onelayer.report.section import Matrix, Step
from onelayer.report.walk.parts import Attention, arrow, classes, quoted, reader, stream, told, weight, words
from onelayer.report.walk.scene import Scene
from onelayer.report.wording import percent

__all__ = ["steps"]


def steps(scene: Scene) -> list[Step]:
    cfg = scene.trace.cfg
    return [
        *_entering(scene, "encoder.", "Encoder"),
        *_encoder_attention(scene),
        *_added(scene, "encoder.blocks.0", "attn"),
        _feed_forward(scene, "encoder.blocks.0"),
        _memory(scene, cfg.n_encoder_layers or cfg.n_layers),
        *_entering(scene, "decoder.", "Decoder"),
        *_masked_attention(scene),
        *_added(scene, "decoder.blocks.0", "attn"),
        *_cross_attention(scene),
        *_added(scene, "decoder.blocks.0", "cross"),
        _feed_forward(scene, "decoder.blocks.0"),
        _logits(scene),
        _softmax_of_words(scene),
        _loss(scene),
    ]


# ---------------------------------------------------------------------------------------------------- entering


def _entering(scene: Scene, stack: str, side: str) -> list[Step]:
    """Tokens become rows of numbers, and get their places."""
    cfg, tokens, i = scene.trace.cfg, scene.tokens(stack), scene.followed(stack)
    E, x = scene.value(f"{stack}hook_embed"), scene.value(f"{stack}blocks.0.hook_resid_pre")
    table = f"{stack if cfg.tied != 'all' or stack == 'decoder.' else 'decoder.'}embed.W_E"
    V, D = scene.trace.weights[table].shape
    scaled = f" and multiplied by √D = {told(cfg.scale)}" if cfg.embed_scale else ""
    begins = "" if stack == "encoder." else (
        "It reads the target one place later: <bos> first, and at each place what should have been said before it. "
    )  # fmt: skip
    text = (
        f"{begins}A token's row is taken from the table W_E of {V:,} × {D}{scaled}; that of {quoted(tokens[i])} has "
        f"the length {told(np.linalg.norm(E[i]))}. "
    )
    looked_up = "E = √D W_E[token]" if cfg.embed_scale else "E = W_E[token]"
    method, drawn = cfg.position_method, stream(scene, "E", E, stack)
    if not method.has("embedding"):
        if method.name != "none":
            text += f"Where it stands is not added here: the method “{method.name}” acts within attention."
        return [Step(f"{side}: each token becomes {D} numbers", text, f"{looked_up}      x = E", [[drawn]])]
    P = x - E
    text += (
        f"Attention sees a set, not a sequence, so each row also gets something that tells its place "
        f"(“{method.name}”): at place {i} a row of length {told(np.linalg.norm(P[i]))}."
    )
    equation = [drawn, "+", stream(scene, "P", P, stack), "=", stream(scene, "x", x, stack)]
    return [Step(f"{side}: each token becomes {D} numbers, and gets its place", text, f"{looked_up}      x = E + P",
                 [equation])]  # fmt: skip


def _normed(scene: Scene, stack: str, before: str, x: str, after: str, ln: str) -> Step:
    """x -> y = norm(x)."""
    cfg, i = scene.trace.cfg, scene.followed(stack)
    rows, y = scene.value(before), scene.value(after)
    return Step(
        "Normed before it is read",
        f"Each row for itself: of {quoted(scene.tokens(stack)[i])} the mean {told(rows[i].mean())} and the standard "
        f"deviation {told(rows[i].std())} become what the gain and the bias of {ln} make of 0 and 1."
        if cfg.norm_kind == "layer"
        else f"Each row for itself: that of {quoted(scene.tokens(stack)[i])}, whose root mean square is "
        f"{told(np.sqrt(np.mean(rows[i] ** 2)))}, gets the size 1, times the gain of {ln}.",
        _norm_formula(cfg.norm_kind),
        [[stream(scene, x, rows, stack), arrow("norm"), stream(scene, f"norm({x})", y, stack)]],
    )


def _norm_formula(kind: str) -> str:
    return "norm(x) = g (x − mean x)/√(var x + ε) + b" if kind == "layer" else "norm(x) = g x/√(mean x² + ε)"


# ---------------------------------------------------------------------------------------------------- attention


def _encoder_attention(scene: Scene) -> list[Step]:
    a = Attention(scene, "encoder.blocks.0.attn")
    found = []
    if scene.trace.cfg.norm == "pre":
        scope = "encoder.blocks.0"
        found.append(_normed(scene, "encoder.", f"{scope}.hook_resid_pre", "x", f"{scope}.ln1.hook_normalized", "ln1"))
    return [*found, *_three_roles(a), _scores(a), _shares(a), _mixed(a), *_heads(a)]


def _masked_attention(scene: Scene) -> list[Step]:
    a = Attention(scene, "decoder.blocks.0.attn")
    return [_scores(a), _looked_back(a), *_heads(a)]


def _cross_attention(scene: Scene) -> list[Step]:
    a = Attention(scene, "decoder.blocks.0.cross_attn")
    found = []
    if scene.trace.cfg.norm == "pre":
        scope = "decoder.blocks.0"
        after = f"{scope}.ln_cross.hook_normalized"
        found.append(_normed(scene, "decoder.", f"{scope}.hook_resid_mid", "mid", after, "ln_cross"))
    q, k, v = (a.value(letter) for letter in "qkv")
    text = (
        f"The queries come from the decoder, keys and values from the encoder's memory: head {a.head} of "
        f"{scene.trace.cfg.n_heads} asks with {words(len(a.asking), 'row')} and gets its answers from {len(a.asked)}."
    )
    found.append(
        Step(
            "Cross-attention: the decoder asks, the encoder answers",
            text,
            "Q = x W_Q      K = memory W_K      V = memory W_V",
            [
                [stream(scene, "x", a.read, a.stack), "×", weight("W_Q", a.W("Q"), "dk"), *_biased(a, "Q"), "=",
                 a.queries("Q", q)],
                [stream(scene, "memory", a.asked_of, a.sources), "×", weight("W_K", a.W("K"), "dk"), *_biased(a, "K"),
                 "=", a.keys("K", k)],
                [stream(scene, "memory", a.asked_of, a.sources), "×", weight("W_V", a.W("V"), "dk"), *_biased(a, "V"),
                 "=", a.keys("V", v)],
            ],
        )
    )  # fmt: skip
    return [*found, _scores(a), _shares(a), _mixed(a), *_heads(a)]


def _biased(a: Attention, letter: str) -> list[Matrix | str]:
    name = f"{a.name}.b_{letter}"
    if not a.scene.has(name):
        return []
    return ["+", Matrix(f"b_{letter}", a.scene.value(name)[a.head][None], "-k")]


def _three_roles(a: Attention) -> list[Step]:
    scene, i = a.scene, a.row
    cfg, token = scene.trace.cfg, quoted(a.asking[i])
    x = stream(scene, "x", a.read, a.stack, i)
    each = [
        [x, "×", weight(f"W_{letter}", a.W(letter), "dk"), *_biased(a, letter), "=",
         Matrix(letter.lower(), a.value(letter.lower())[i : i + 1], "tk", [a.asking[i]])]
        for letter in "QKV"
    ]  # fmt: skip
    q, k, v = (a.value(letter) for letter in "qkv")
    return [
        Step(
            "Query, key and value of a word",
            f"Head {a.head} of {cfg.n_heads} reads the row of {token} three times, each time through a matrix of "
            f"{cfg.d_model} × {a.width}: as a query (what it looks for), a key (what it can be found by), and a value "
            f"(what it hands over). Their lengths: {told(np.linalg.norm(q[i]))}, {told(np.linalg.norm(k[i]))} and "
            f"{told(np.linalg.norm(v[i]))}.",
            "q = x W_Q      k = x W_K      v = x W_V",
            each,
        ),
        Step(
            "… of all words at once",
            f"The same for all {len(a.asking)} rows together, as three products of matrices.",
            "Q = X W_Q      K = X W_K      V = X W_V",
            [[a.queries("Q", q), ",", a.keys("K", k), ",", a.keys("V", v)]],
        ),
    ]  # fmt: skip


def _scores(a: Attention) -> Step:
    q, k, scores = a.value(f"{a.turned}q"), a.value(f"{a.turned}k"), a.value("attn_scores")
    raw = q @ k.T
    i, j = a.row, a.column
    asks, asked = quoted(a.asking[i]), quoted(a.asked[j])
    text = (
        f"How well does what {asks} looks for match what {asked} can be found by? q · k = {told(raw[i, j])}; divided "
        f"by √{a.width} = {told(a.scale)}, so that wide heads are not louder, the score is {told(raw[i, j] / a.scale)}."
    )
    biased = a.position.has("score")
    if biased:
        text += (
            f" The method “{a.position.name}” adds {told(scores[i, j] - raw[i, j] / a.scale)}: {told(scores[i, j])}."
        )
    if a.turned:
        text += f" (Q and K were turned by “{a.position.name}” before they meet.)"
    forbidden = int((~a.allowed).sum())
    if forbidden:
        text += (
            f" What comes later may not be looked at: {forbidden} of {a.allowed.size} scores are struck out (grey), as "
            "the decoder will not have those words when it writes."
        )
    elif not a.crosses:
        text += " The encoder masks nothing but padding, and here there is none."
    mark = "′" if a.turned else ""
    title = {
        "encoder.": "Scores",
        "decoder.": "Cross-attention: scores" if a.crosses else "Masked self-attention: scores",
    }
    after = ["÷ √K =" if not biased else "÷ √K, + bias =", a.looks("scores", a.masked(scores))]
    return Step(
        title[a.stack],
        text,
        f"scores = Q{mark} K{mark}ᵀ/√K" + (" + bias" if biased else "") + (", where it may look" if forbidden else ""),
        [
            [a.queries(f"Q{mark}", q), "×", a.keys(f"K{mark}ᵀ", k, across=True), "=", a.looks("Q Kᵀ", raw)],
            [a.looks("Q Kᵀ", raw), *after],
        ],
    )


def _shares(a: Attention) -> Step:
    scores, pattern = a.masked(a.value("attn_scores")), a.value("pattern")
    i, j = a.row, a.column
    total = float(np.nansum(np.exp(scores[i] - np.nanmax(scores[i]))))
    return Step(
        "Softmax: scores become shares",
        f"Each row's shares are positive and sum to 1. {quoted(a.asking[i])} gives most, {percent(pattern[i, j])}, to "
        f"{quoted(a.asked[j])}: 1 of {told(total)}, the sum of e^(score − largest) over the row. An even row would "
        f"give {percent(1 / len(a.asked))} to each.",
        "A = e^score / Σ e^score, row by row",
        [[a.looks("scores", scores), arrow("softmax"), a.looks("A", pattern, amounts=True)]],
    )


def _largest_terms(a: Attention, count: int = 3) -> str:
    shares = a.value("pattern")[a.row]
    best = np.argsort(-shares, kind="stable")[:count]
    return " + ".join(f"{told(shares[s])} v({quoted(a.asked[s])})" for s in best) + (
        " and so on" if len(shares) > count else ""
    )


def _mixed(a: Attention) -> Step:
    extra = f" (“{a.position.name}” adds to the values too, which A V leaves out.)" if a.position.has("value") else ""
    return Step(
        "The weighted sum of the values",
        f"What {quoted(a.asking[a.row])} takes away: z = {_largest_terms(a)}.{extra}",
        "z = A V",
        [[a.looks("A", a.value("pattern"), amounts=True), "×", a.keys("V", a.value("v")), a.mixes,
          a.queries("z", a.value("z"))]],
    )  # fmt: skip


def _looked_back(a: Attention) -> Step:
    pattern = a.value("pattern")
    return Step(
        "Softmax and weighted sum, looking back",
        f"The first row can only look at itself. {quoted(a.asking[a.row])} takes z = {_largest_terms(a)}.",
        "A = softmax(scores)      z = A V",
        [[a.looks("A", pattern, amounts=True), "×", a.keys("V", a.value("v")), a.mixes, a.queries("z", a.value("z"))]],
    )


def _heads(a: Attention) -> list[Step]:
    """All heads beside each other, and what W_O makes of them."""
    scene = a.scene
    pattern, z, W_O = (scene.value(f"{a.name}.{name}") for name in ("hook_pattern", "hook_z", "W_O"))
    H, K, D = W_O.shape
    out = scene.value(f"{a.scope}.hook_{'cross' if a.crosses else 'attn'}_out")
    best = pattern[:, a.row].argmax(axis=-1)
    found = [f"head {h} {quoted(a.asked[s])} ({percent(pattern[h, a.row, s])})" for h, s in enumerate(best)]
    each = [Matrix(f"head {h}", pattern[h], "ts", a.asking, a.asked, True, (a.row, int(best[h]))) for h in range(H)]
    bias = f"{a.name}.b_O"
    plus = ["+", Matrix("b_O", scene.value(bias)[None], "-d")] if scene.has(bias) else []
    joined = Matrix("z of all heads", z.reshape(len(z), H * K), "tk", a.asking, mark=(a.row, None))
    return [
        Step(
            f"{words(H, 'head')}, {words(H, 'way')} of looking",
            f"Each head has matrices of its own. {quoted(a.asking[a.row])} is looking most at: {', '.join(found)}.",
            "",
            [each],
        ),
        Step(
            "The heads are joined by W_O",
            f"Side by side the heads have {H} × {K} = {H * K} numbers for each token; W_O brings them back to {D}. "
            f"What is written for {quoted(a.asking[a.row])} has the length {told(np.linalg.norm(out[a.row]))}.",
            "out = [z₀ z₁ …] W_O = Σ_h z_h W_O[h]" + (" + b_O" if plus else ""),
            [[joined, "×", weight("W_O", W_O.reshape(H * K, D), "kd"), *plus, "=", stream(scene, "out", out, a.stack)]],
        ),
    ]


# ---------------------------------------------------------------------------------------------------- around and on


def _added(scene: Scene, scope: str, kind: str) -> list[Step]:
    """What a sublayer wrote is added to what was there."""
    stack, cfg = scope.partition("blocks.")[0], scene.trace.cfg
    before, after, ln = {
        "attn": ("hook_resid_pre", "hook_resid_mid", "ln1"),
        "cross": ("hook_resid_mid", "hook_resid_cross", "ln_cross"),
    }[kind]
    x, out, y = (scene.value(f"{scope}.{name}") for name in (before, f"hook_{kind}_out", after))
    i = scene.followed(stack)
    sizes = [told(np.linalg.norm(row)) for row in (x[i], out[i], (x + out)[i])]
    symbol, result = ("x", "mid") if kind == "attn" else ("mid", "met")
    equation = [stream(scene, symbol, x, stack), "+", stream(scene, "out", out, stack), "="]
    text = (
        f"Nothing is overwritten: what was found is added. For {quoted(scene.tokens(stack)[i])} a row of length "
        f"{sizes[0]} and one of {sizes[1]} make one of {sizes[2]}."
    )
    if cfg.norm == "post":
        text += f" The sum is normed (by {ln}): its mean {told((x + out)[i].mean())} and deviation "
        text += f"{told((x + out)[i].std())} are taken out."
        equation += [stream(scene, "sum", x + out, stack), arrow("norm"), stream(scene, result, y, stack)]
        return [Step("Around it, and normed", text, f"{result} = norm({symbol} + out)", [equation])]
    return [Step("Around it", text, f"{result} = {symbol} + out", [[*equation, stream(scene, result, y, stack)]])]


def _feed_forward(scene: Scene, scope: str) -> Step:
    stack, cfg = scope.partition("blocks.")[0], scene.trace.cfg
    plain, symbol = ("hook_resid_cross", "met") if stack == "decoder." else ("hook_resid_mid", "mid")
    below, post = scene.value(f"{scope}.{plain}"), scene.value(f"{scope}.hook_resid_post")
    read = scene.value(reader(scene, scope, "ln2", plain))
    h, out = scene.value(f"{scope}.mlp.hook_post"), scene.value(f"{scope}.hook_mlp_out")
    i, F = scene.followed(stack), h.shape[1]
    token, tokens = quoted(scene.tokens(stack)[i]), scene.tokens(stack)
    neurons = Matrix("h", h, "tf", tokens, mark=(i, None))
    first = stream(scene, symbol, below, stack)
    before = [first, arrow("norm"), stream(scene, f"norm({symbol})", read, stack)] if cfg.norm == "pre" else [first]
    after = [first, "+", stream(scene, "out", out, stack), "="]
    if cfg.norm == "post":
        after += [stream(scene, "sum", below + out, stack), arrow("norm")]
    inside = f"norm({symbol})" if cfg.norm == "pre" else symbol
    whole = f"post = norm({symbol} + out)" if cfg.norm == "post" else f"post = {symbol} + out"
    return Step(
        "Feed-forward: every token for itself",
        f"{F} neurons look at each row. At {token}, {int((h[i] > 0).sum())} of them are above zero; the strongest, "
        f"number {int(np.argmax(h[i]))}, has {told(h[i].max())}. What they write, of length "
        f"{told(np.linalg.norm(out[i]))}, is added as before.",
        f"h = {cfg.activation}({inside} W_in + b_in)      out = h W_out + b_out      {whole}",
        [
            [*before, arrow(f"W_in, {cfg.activation}"), neurons, arrow("W_out"), stream(scene, "out", out, stack)],
            [*after, stream(scene, "post", post, stack)],
        ],
    )


def _memory(scene: Scene, layers: int) -> Step:
    memory, i = scene.value("encoder.hook_memory"), scene.s
    above = "" if layers == 1 else f" after {layers - 1} more such blocks, with weights of their own,"
    normed = " normed once more," if scene.trace.cfg.norm == "pre" else ""
    return Step(
        "The memory",
        f"What the encoder hands over,{above}{normed} is one row for each token read: {memory.shape[0]} × "
        f"{memory.shape[1]}. That of {quoted(scene.source[i])} now holds what it took from the others too. The decoder "
        "looks at these rows at every step that it writes.",
        "memory = norm(post)" if normed else "memory = post",
        [[stream(scene, "memory", memory, "encoder.")]],
    )


# ---------------------------------------------------------------------------------------------------- what is said


def last(scene: Scene) -> str:
    """The name of what the unembedding reads."""
    top = f"decoder.blocks.{scene.trace.cfg.n_layers - 1}.hook_resid_post"
    return "decoder.ln_final.hook_normalized" if scene.trace.cfg.norm == "pre" else top


def unembedding(scene: Scene) -> np.ndarray:
    """W_U [D V], which is the embedding's table where the two are tied."""
    W_U = scene.trace.weights.get("unembed.W_U")
    return scene.trace.weights["decoder.embed.W_E"].T if W_U is None else W_U


def _logits(scene: Scene) -> Step:
    y, logits, shown = scene.value(last(scene)), scene.value("logits"), classes(scene)
    W, t = unembedding(scene), scene.t
    V = W.shape[1]
    labels = [scene.word(v) for v in shown]
    best = np.argsort(-logits[t], kind="stable")[:3]
    layers = scene.trace.cfg.n_layers
    above = "A" if layers == 1 else f"After {layers - 1} more such blocks: a"
    of = "" if len(shown) == V else f" ({len(shown)} of {V:,} words are drawn: those wanted, and the likeliest.)"
    return Step(
        "Logits: how much each row points at each word",
        f"{above} row of {y.shape[1]} numbers times one column of W_U for each of the {V:,} words. After "
        f"{quoted(scene.read[t])} the largest are "
        f"{', '.join(f'{quoted(scene.word(v))} {told(logits[t, v])}' for v in best)}.{of}",
        "logits = y W_U" + (" + b_U" if "unembed.b_U" in scene.trace.weights else ""),
        [
            [stream(scene, "y", y, "decoder."), "×", Matrix("W_U", W[:, shown], "dv", None, labels),
             "=", Matrix("logits", logits[:, shown], "tv", scene.read, labels, mark=(t, _at(shown, best[0])))],
        ],
    )  # fmt: skip


def _at(shown: np.ndarray, token: int) -> int | None:
    found = np.flatnonzero(shown == token)
    return int(found[0]) if found.size else None


def _written(scene: Scene) -> str:
    """What greedy decoding writes, token by token, in the run's own weights."""
    cfg, source = scene.trace.cfg, scene.trace.batch.source
    assert source is not None
    [[answer]] = decode(scene.trace.params, cfg, [source[0].tolist()], Greedy())
    return " ".join(scene.word(token) for token in answer.tokens)


def _softmax_of_words(scene: Scene) -> Step:
    share, shown, t = scene.trace.judged.share[0], classes(scene), scene.t
    labels = [scene.word(v) for v in shown]
    best = np.argsort(-share[t], kind="stable")[:4]
    told_best = ", ".join(f"{quoted(scene.word(v))} {percent(share[t, v])}" for v in best)
    return Step(
        "Softmax over the vocabulary",
        f"Logits become probabilities. After {quoted(scene.read[t])}: {told_best}. When it writes, the decoder has no "
        f"target to read: it takes the likeliest word, appends it to what it reads, and asks again, up to <eos>. So "
        f"decoded, it writes “{_written(scene)}”.",
        "P = e^logit / Σ e^logit",
        [[Matrix("P", share[:, shown], "tv", scene.read, labels, True, (t, _at(shown, best[0])))]],
    )


def _loss(scene: Scene) -> Step:
    surprise, t, T = scene.surprise, scene.t, len(scene.wanted)
    share = scene.trace.judged.share[0]
    mean = float(np.mean(surprise))
    text = (
        f"The surprise at the right word, −log P: at {quoted(scene.wanted[t])} it is {told(surprise[t])}, the largest "
        f"of the {T}; their mean is {told(mean)} nats."
    )
    smoothing = scene.trace.settings.get("smoothing", 0.0)
    if smoothing:
        text += f" With label smoothing of {told(smoothing)}, the loss that is trained on is {told(scene.trace.loss)}."
    rows = [("said after", "wanted", "P", "−log P", "likeliest")]
    for i in range(T):
        best = np.argsort(-share[i], kind="stable")[:3]
        likely = ", ".join(f"{scene.word(v)} {share[i, v]:.3f}" for v in best)
        p = share[i, scene.trace.batch.targets[0, i]]
        rows.append((scene.read[i], scene.wanted[i], f"{p:.4f}", f"{surprise[i]:.4f}", likely))
    return Step(
        "The loss",
        text,
        "loss = mean over places of −log P[wanted]",
        [[Matrix("−log P[wanted]", surprise[None], "-t", None, scene.wanted, mark=(0, t))]],
        {"At every place": _table(rows)},
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    """Columns apart by two spaces, as wide as their longest word."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(word.ljust(n) for word, n in zip(row, wide, strict=True)).rstrip() for row in rows)
