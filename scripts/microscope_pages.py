"""The numbers of docs/microscope/: a small model is trained and traced, and the pages' marked blocks are written anew.

    python scripts/microscope_pages.py            about ten seconds; says which pages changed
    python scripts/microscope_pages.py --check    changes nothing, fails where a page is out of date

A block stands between `<!-- numbers: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onelayer.microscope import Trace, explain, replay, split, splits, trace
from onelayer.training import step as steps
from onelayer.training.config import resolve

PAGES = Path(__file__).parents[1] / "docs" / "microscope"
STEPS, HEAD, QUERY = 300, 0, 5  # the query is `=`, which says the sum's first digit
CONFIG = {
    "task": {"name": "addition", "n_digits": 2, "n_train": 400, "n_test": 100},
    "model": {"d_model": 32, "n_heads": 2, "d_mlp": 64},
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "dtype": "float64",
}  # fmt: skip


def trained() -> Trace:
    """Two-digit addition after 300 steps: it has learnt some of it, so its gradients still have something to say."""
    config = resolve(CONFIG)
    task = config.task.make(config.seed)
    goal, rules = steps.make_objective(config, task), steps.make_rules(config)
    state = steps.start(goal, rules, config.seed, config.dtype)
    for t in range(STEPS):
        state, _, _ = steps.take(state, task.train, t, goal, rules)
    return trace(state.params, task.train, goal.model, vocabulary=task.vocabulary)


def words(t: Trace) -> list[str]:
    return [t.vocabulary[i] for i in t.batch.tokens[0]] if t.vocabulary else []


def table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(x) for x in line) + " |" for line in lines)


def _cell(x: object) -> str:
    return f"{x:.4g}" if isinstance(x, float | np.floating) else str(x)


def code(text: str) -> str:
    return f"```text\n{text}\n```"


# ---------------------------------------------------------------------------------------------------- the head's page


def row(t: Trace) -> int:
    """The query's row: only the read positions ask."""
    return QUERY - (t.shape["T"] - t.shape["R"])


def the_trace(t: Trace) -> str:
    target = t.vocabulary[int(t.batch.targets[0, 0])] if t.vocabulary else ""
    return (
        f"{t!r}\n\nThe example is `{' '.join(words(t))}`; at `=` (position {QUERY}) the digit {target} should be said."
    )


def looking(t: Trace) -> str:
    """What the head did in the forward, and what the backward says of it, source by source."""
    r, a = row(t), "blocks.0.attn"
    pattern, slopes = t.value(f"{a}.hook_pattern")[0, HEAD, r], t.gradient(f"{a}.hook_pattern")[0, HEAD, r]
    scores, dscores = t.value(f"{a}.hook_attn_scores")[0, HEAD, r], t.gradient(f"{a}.hook_attn_scores")[0, HEAD, r]
    rows = [[f"{s}: `{w}`", scores[s], pattern[s], slopes[s], pattern[s] * slopes[s], dscores[s]]
            for s, w in enumerate(words(t)) if pattern[s] > 0]  # fmt: skip
    mean = float(pattern @ slopes)
    total = f"Σ A ∂A = {mean:.4g}, and the last column sums to {np.sum(dscores):.1e}."
    return table(["source", "score", "A", "∂A", "A ∂A", "∂score"], rows) + f"\n\n{total}"


def one_entry(t: Trace) -> str:
    return code(explain(t, f"blocks.0.attn.W_Q[{HEAD},3,5]", depth=3, top=3).text())


def a_score(t: Trace) -> str:
    return code(explain(t, f"blocks.0.attn.hook_attn_scores[0,{HEAD},{row(t)},1]", depth=1, top=4).text())


def by_head(t: Trace) -> str:
    """The four weights' gradients of one head, by how they are made."""
    rows = []
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        s = split(t, f"blocks.0.attn.{name}", "head")
        rows.append([f"`{name}`", *(float(x) for x in s.norms), s.residual])
    return table(["weight", "head 0", "head 1", "residual"], rows)


def cut_routes(t: Trace) -> str:
    whole = t.gradient("embed.W_E")
    rows = []
    for what, gates in [
        ("nothing cut", {}), ("without queries and keys", {"*.attn.route_[qk]": 0}),
        ("without values", {"*.attn.route_v": 0}),
        ("without the skip around attention", {"*.route_skip_attn": 0}),
    ]:  # fmt: skip
        left = replay(t, gates).weights.embed.W_E
        cosine = np.sum(left * whole) / np.sqrt(np.sum(left**2) * np.sum(whole**2))
        rows.append([what, np.sqrt(np.sum(left**2)), cosine])
    return table(["backward", "length of ∂W_E", "cosine with the gradient"], rows)


# ---------------------------------------------------------------------------------------------------- the words' page


def said(t: Trace) -> list[str]:
    first = t.shape["T"] - t.shape["R"]
    return [f"digit {i} (at position {first + i})" for i in range(t.shape["R"])]


def every_weight(t: Trace) -> str:
    rows = [[f"`{name}`", *(float(x) for x in s.shares), s.cost, s.residual]
            for name, s in splits(t, ["*"], "loss_token").items()]  # fmt: skip
    return table(["weight", *said(t), "backwards run", "residual"], rows)


def lengths(t: Trace) -> str:
    rows = [[f"`{name}`", *(float(x) for x in s.norms)] for name, s in splits(t, ["*.attn.W_?"], "loss_token").items()]
    return table(["weight", *said(t)], rows)


def words_and_heads(t: Trace) -> str:
    s = split(t, "blocks.0.attn.W_V", ("loss_token", "head"))
    rows = [[said(t)[i], *(float(x) for x in line)] for i, line in enumerate(s.shares)]
    return table(["share of ∂W_V", "head 0", "head 1"], rows)


def words_and_sources(t: Trace) -> str:
    s = split(t, "blocks.0.attn.W_V", ("loss_token", "source"))
    names = ["a₁", "a₀", "+", "b₁", "b₀", "=", "s₀", "s₁"]
    rows = [[said(t)[i], *(float(x) for x in line)] for i, line in enumerate(s.shares)]
    return table(["share of ∂W_V", *names], rows)


def by_route(t: Trace) -> str:
    s = split(t, "embed.W_E", "route")
    return table(["route", "length", "share"], [[r["route"], r["norm"], r["share"]] for r in s.rows()])


BLOCKS: dict[str, Callable[[Trace], str]] = {
    "the trace": the_trace,
    "looking": looking,
    "one entry": one_entry,
    "a score": a_score,
    "lengths of heads": by_head,
    "cut": cut_routes,
    "every weight": every_weight,
    "lengths": lengths,
    "words and heads": words_and_heads,
    "words and sources": words_and_sources,
    "by route": by_route,
}


def renewed(page: str, t: Trace) -> str:
    def block(found: re.Match[str]) -> str:
        return f"<!-- numbers: {found[1]} -->\n\n{BLOCKS[found[1]](t)}\n\n<!-- end -->"

    return re.sub(r"<!-- numbers: ([\w ]+) -->.*?<!-- end -->", block, page, flags=re.DOTALL)


def main() -> None:
    t = trained()
    stale = []
    for path in sorted(PAGES.glob("*.md")):
        old = path.read_text("utf-8")
        new = renewed(old, t)
        if new != old:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(new, "utf-8")
    print(f"{'out of date' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    sys.exit(1 if stale and "--check" in sys.argv else 0)


if __name__ == "__main__":
    main()
