"""The answer on one page, from the others' figures."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import experiments
import numpy as np

from pages import critical_data
from pages.addition import by_chain
from pages.common import HERE, Rows, cells, machine, spread, study, table
from pages.operations import known_by_heart, order_of


def page() -> str:
    made = study("operations")
    by = cells(made, "operation", "fraction")
    controls = cells(study("controls"), "control")
    replicated = json.loads((HERE / "replication.json").read_text("utf-8"))
    names = sorted({name for name, _ in by}, key=experiments.NAMES.index)
    whole = [n for n in names if order_of(by, n)[0] <= 0.7]
    hard = ("random table", "x**3 + x*y", "x**3 + x*y**2 + y", "x**2 + x*y + y**2 + x")
    nothing = [n for n in hard if (n, 0.9) in by]

    def percent(values: Iterable[float], digits: int = 1) -> str:
        values = [100 * v for v in values]
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        return f"{low} %" if low == high else f"{low} to {high} %"

    def of(name: str, what: str) -> list[float]:
        return [r["last"][what] if what in r["last"] else r[what] for r in controls[name]]

    lines = []
    for name, rows in controls.items():
        spoilt = "as_spoilt" in rows[0]
        lines.append([
            name, f"{len(rows)}", percent(of(name, "train_accuracy")), percent(of(name, "test_accuracy")),
            percent(of(name, "mirror_free_accuracy")) if "mirror_free_accuracy" in rows[0]["last"] else "–",
            percent(of(name, "as_spoilt")) if spoilt else "–", percent(of(name, "as_true")) if spoilt else "–",
        ])  # fmt: skip
    head = ["x + y, half of the table", "seeds", "train", "test", "test, mirror not shown", "spoilt pairs: as spoilt",
            "… as x + y"]  # fmt: skip
    closed = "mirrors kept together"
    both = [r for r in made if r["memorised"] is not None and r["sustained"] is not None]
    worst = max(float(r["last"]["test_accuracy"]) for n in nothing for r in by[n, 0.9])
    value = lambda name: spread(r["measures"][name]["value"] for r in replicated)  # noqa: E731
    return f"""# Learn or memorise?

Does one layer learn an operation, or does it know answers by heart? **Both, and in this order: it first memorises;
then, if the operation is of a kind that it can express as sums of functions, and if the weights are kept small, it
learns the rule beside what it knows, and sheds what the rule makes needless. Where the operation is not of that kind it
memorises and no more, though the rule be short.** What follows is measured here, on runs with a command each.

## The controls

A network that only memorised would be right on no pair it has not seen, but for two leaks: the mirror (b, a) of a pair
that was shown, and the most frequent answer. Both are closed here. Training pairs whose label was spoilt ask for the
opposite: memory answers them as they were spoilt, a rule that has replaced the memory answers them by the rule.

{table(head, lines)}

Addition mod {experiments.P}, the recipe of [operations](operations.md), to its last step.

## The strongest evidence that it learns

- **Pairs whose mirror it never saw** are right in {percent(of(closed, "test_accuracy"))} of cases, with all mirrors on
  the same side of the split.
- **The inside is the rule.** In the published network, {len(replicated)} seeds: {value("cosine_variance_explained")}
  of the logits' variance are cosines of a + b − c at {min(len(r["key_frequencies"]) for r in replicated)} to
  {max(len(r["key_frequencies"]) for r in replicated)} frequencies, found by no one but the network. With these alone
  the loss over all pairs is {value("restricted_loss")}; without them even the training pairs are lost, at
  {value("excluded_loss")} nats, where guessing costs 4.73 ([replication](replication.md)).
- **It grows before it shows.** The circuit forms while the test loss stays high; what is sudden is the accuracy, not
  the learning ([replication](replication.md)).
- **Not addition alone.** {len(whole)} of {len(names)} operations are learnt from 70 % of the table or less, with one
  recipe, chosen on x + y and x − y: {", ".join(f"`{n}`" for n in whole)} ([operations](operations.md)).
{addition_words("low_first")}

## The strongest evidence that it only memorises

- **Short rules that it never learns.** {", ".join(f"`{n}`" for n in nothing)}: every training pair known, and on the
  other tenth of the table never more than {100 * worst:.0f} % right. Three of these are short polynomials, one is a
  random table; to the network they are alike. It does not look for rules; it has one kind of rule, and finds it where
  it is there.
- **Memory comes first.** In {sum(r["memorised"] <= r["sustained"] for r in both)} of the {len(both)} runs of all
  operations that generalised, training was known no later than the test pairs.
- **The rule does not replace the memory.** {spoilt_words(controls, percent)}
{addition_words("high_first")}
{critical_words()}
- **Half-learnt is common.** Between the two lie operations that are right in 40 to 95 % at these sizes; "grokked" and
  "memorised" are the ends of a scale.

## What this does not show

- One layer, p = {experiments.P} (113 in the replication), a few seeds: {len({r["seed"] for r in made})} for most
  operations. A *never* is a censored figure: not within the steps that were run, with these recipes.
- Each operation was asked with settings chosen on x + y and x − y. {order_words(by)}
- All test pairs are made of numbers that training showed in other pairs. A number that it never showed keeps the
  embedding that it was drawn with: what is learnt is a table's structure, not arithmetic.
- "Rule" is what the measures define: cosines, key frequencies, restricted and excluded loss. The untrained twin scores
  near zero on each of those named here; other measures do not pass that test, and [the table](../grokking.md) marks
  them.

## Repeat it

```sh
python scripts/experiments.py controls operations
python scripts/experiment_pages.py learn-or-memorise
```

Figures: [controls.jsonl](controls.jsonl), [operations.jsonl](operations.jsonl), [replication.json](replication.json).
Machine: {machine()}.
"""


def order_words(by: dict[Any, Rows]) -> str:
    """What `x < y` says about the recipe."""
    with_adamw = cells(study("recipes-agree"), "operation").get("x < y")
    said = f"With them `x < y` is not even memorised (train {100 * known_by_heart(by['x < y', 0.7]):.0f} %)"
    if not with_adamw:
        return f"{said}, which speaks about the recipe more than about the operation."
    train, test = (100 * np.median([r["last"][f"{split}_accuracy"] for r in with_adamw]) for split in ("train", "test"))
    best = 100 * np.median([r["best_test"] for r in with_adamw])
    there = f"with AdamW it reaches {best:.0f} % of the test pairs, and ends on {test:.0f} % (train {train:.0f} %)"
    return f"{said}; {there} ([operations](operations.md))."


def spoilt_words(controls: dict[str, Rows], percent: Callable[..., str]) -> str:
    told = []
    for name, rows in controls.items():
        if "as_spoilt" in rows[0]:
            as_spoilt, right = (percent(values, 0) for values in ([r["as_spoilt"] for r in rows],
                                [r["last"]["test_accuracy"] for r in rows]))  # fmt: skip
            told.append(f"with {name}, {as_spoilt} of the spoilt pairs are answered as spoilt, and {right} of the test "
                        "pairs are right")  # fmt: skip
    return f"""It learns the exceptions by heart beside it: {"; ".join(told)}. Rule and memory live in
  the same weights, and share them."""


def addition_words(order: str) -> str:
    """What 700 sums of four digits teach: units first, a rule; as we write, less of one."""
    by = cells(study("addition"), "data", "order")
    if ("little", order) not in by:
        return ""
    right = spread([100 * r["last"]["test_accuracy"] for r in by["little", order]])
    if order == "low_first":
        return f"""- **Sums of four digits from 700 examples.** Asked for the units first, it is right on {right} % of
  other sums, of which there are 10⁸ ([addition](addition.md))."""
    chains = by_chain(by["little", order])
    return f"""- **The same sums as we write them.** From the same 700 examples, which it knows, it is right on
  {right} % of others, and on {chains[3]:.0f} % of those whose carries run through three places: what the
  order hides it does not find ([addition](addition.md))."""


def critical_words() -> str:
    """What becomes of a rule whose data are taken away."""
    rows = study("critical-data")
    found = [x for x in (critical_data.forgets(rows, seed) for seed in critical_data.seeds(rows)) if x is not None]
    if not found:
        return ""
    return f"""- **It unlearns the rule.** A network that has learnt x + y, and is then shown less than
  {spread([100 * x for x in found], 2)} % of the table, loses it again and keeps what it is shown
  ([critical-data](critical-data.md))."""
