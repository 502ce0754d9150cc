"""The interventions of docs/causal.md over seeds: cut, freeze, take decay or data away, transplant, rescale.

    python scripts/causal.py                    # docs/experiments/causal.jsonl, a line an intervention and seed
    python scripts/experiment_pages.py causal   # the page and its figure

Parent      x + y mod 59 from half of the table, 1,000 steps. At step 200 it answers every training pair and of the test
            pairs little more than the mirrors of trained ones; at step 1,000 it has generalised, and is cut.
Branches    off step 200 to step 1,000, the optimizer's state kept. Without a change that is the parent itself.
Less data   off step 1,000, 2,000 steps more with a part of the half (examples are nested)
Circles     another seed's network on the parent's split, its embedding frozen from the start as it is, or with the key
            circles of the parent at step 1,000 in it; control: the same circles, the numbers on them shuffled
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from onelayer.arrays import generator
from onelayer.grokking.interventions import ablations, circles, rescale
from onelayer.grokking.measures import MEASURES
from onelayer.grokking.subject import Subject, open_subject
from onelayer.studies import grid
from onelayer.training import Run, configure, train
from onelayer.training.branch import Edit, branch, outcome
from onelayer.training.figures import fold

RAW = Path(__file__).parent.parent / "docs" / "experiments" / "causal.jsonl"
P, MEMORISED, LEARNT, SEEDS = 59, 200, 1000, 5
LESS, LONGER = 0.15, 2000
SETTING: dict[str, Any] = {
    "task": {"p": P, "train_fraction": 0.5}, "model": {"d_model": 64, "d_mlp": 128}, "optimizer": {"lr": 0.003},
    "steps": LEARNT, "stop": {"on": "none"}, "checkpoint": {"keep": LEARNT // 100},
}  # fmt: skip
BRANCHES: dict[str, dict[str, Any]] = {
    "without weight decay": {"changes": {"optimizer.weight_decay": 0.0}},
    "embedding frozen": {"freeze": ["embed"]},
    "attention frozen": {"freeze": ["attention"]},
    "feed-forward frozen": {"freeze": ["mlp"]},
    "unembedding frozen": {"freeze": ["unembed"]},
}
OWN, FROZEN, GIVEN, SHUFFLED = "its own, trained", "its own, frozen", "the parent's circles", "the circles shuffled"
READ = ("cosine_variance_explained", "restricted_loss", "neuron_specialisation")
CURVE = 50  # steps between what is kept of a curve


def read(s: Subject) -> dict[str, Any]:
    """How far the circuit has come."""
    return {"keys": len(s.key_frequencies)} | {name: MEASURES[name].of(s) for name in READ}


def told(run: Path) -> dict[str, Any]:
    """A run's evaluations in short, its last figures, and its circuit there."""
    records, config = Run(run).metrics, Run(run).config
    found = fold(records, config.stop)
    last = {name: records[-1][name] for name in ("test_loss", "test_accuracy", "mirror_free_accuracy", "weight_norm")}
    return {
        "memorised": found.step_memorised, "sustained": found.step_sustained, **last, **read(open_subject(run)),
        "curve": [[r["step"], r["test_accuracy"]] for r in records if r["step"] % CURVE == 0],
    }  # fmt: skip


def shuffled(donor: Path, seed: int) -> Edit:
    """The donor's circles with the numbers in another order: as large and as round, each number in a wrong place."""
    given, order = circles(donor, LEARNT), generator(seed, "shuffled circles").permutation(P)

    def apply(weights: dict[str, Any], config: Any) -> dict[str, Any]:
        new = given.apply(weights, config)
        W = new["embed.W_E"].copy()
        W[:P] = W[order]
        return new | {"embed.W_E": W}

    return Edit(f"{given.text}, the numbers shuffled", apply)


class Networks:
    """The runs of a seed, trained where they are first asked for."""

    def __init__(self, out: Path, seed: int):
        self.out, self.seed = out / str(seed), seed

    def of(self, name: str, make: Callable[[Path], Any]) -> Path:
        path = self.out / name.replace(" ", "-")
        if not path.exists():
            make(path)
        return path

    @property
    def parent(self) -> Path:
        config = configure("default", SETTING, {"seed": self.seed})
        return self.of("parent", lambda path: train(config, path))

    @property
    def fresh(self) -> Path:
        config = configure("default", SETTING, {"seed": 100 + self.seed, "task": {"seed": self.seed}})
        return self.of(OWN, lambda path: train(config, path))

    def branched(self, name: str, run: Path, step: int, steps: int, **how: Any) -> Path:
        changes = how.pop("changes", {}) | {"steps": steps}
        return self.of(name, lambda path: branch(run, step, changes, out=path, **how))

    # ------------------------------------------------------------------------------------------- a line each

    def unchanged(self) -> dict[str, Any]:
        before = next(r for r in Run(self.parent).metrics if r["step"] == MEMORISED)
        known = {name: before[name] for name in ("test_accuracy", "mirror_free_accuracy", "weight_norm")}
        early = known | read(open_subject(self.parent, MEMORISED))
        return {"early": early, "frequencies": list(open_subject(self.parent, LEARNT).key_frequencies)} | told(
            self.parent
        )

    def cut(self) -> dict[str, Any]:
        rows = ablations(open_subject(self.parent, LEARNT))
        return {"rows": [{name: x for name, x in row.items() if name != "frequencies"} for row in rows]}

    def rescaled(self) -> dict[str, Any]:
        return rescale(open_subject(self.parent, LEARNT))["share"]["test"]

    def changed(self, name: str) -> dict[str, Any]:
        return told(self.branched(name, self.parent, MEMORISED, LEARNT, **BRANCHES[name]))

    def starved(self) -> dict[str, Any]:
        less = {"task.train_fraction": LESS}
        found = outcome(self.branched("less data", self.parent, LEARNT, LEARNT + LONGER, changes=less))
        return {f"{at}_{split}": found[at][f"{split}_accuracy"] for at in ("before", "after")
                for split in ("train", "unseen")}  # fmt: skip

    def given(self, name: str) -> dict[str, Any]:
        edits: dict[str, Callable[[], list[Edit]]] = {
            FROZEN: list,
            GIVEN: lambda: [circles(self.parent, LEARNT)],
            SHUFFLED: lambda: [shuffled(self.parent, self.seed)],
        }
        return told(self.branched(name, self.fresh, 0, LEARNT, freeze=["embed"], edits=edits[name]()))

    def lines(self) -> dict[str, Callable[[], dict[str, Any]]]:
        return {
            "unchanged": self.unchanged, "ablations": self.cut, "rescale": self.rescaled,
            **{name: partial(self.changed, name) for name in BRANCHES},
            "less data": self.starved, OWN: lambda: told(self.fresh),
            **{name: partial(self.given, name) for name in (FROZEN, GIVEN, SHUFFLED)},
        }  # fmt: skip


def new_rows(networks: Networks, known: set[str]) -> Iterator[dict[str, Any]]:
    for kind, of in networks.lines().items():
        if kind in known:
            continue
        clock, cpu = time.perf_counter(), time.process_time()
        found = of()
        cost = {"seconds": time.perf_counter() - clock, "cpu_seconds": time.process_time() - cpu}
        yield grid.rounded({"cell": {"kind": kind}, "seed": networks.seed, **found, **cost})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--raw", type=Path, default=RAW)
    parser.add_argument("--out", type=Path, help="where the runs are kept; by default they are not")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.seeds):
            known = {row["cell"]["kind"] for row in grid.read(given.raw) if row["seed"] == seed}
            for row in new_rows(Networks(given.out or Path(scratch), seed), known):
                grid.append(given.raw, json.dumps(row))
                shown = {name: x for name, x in row.items() if name not in ("curve", "rows")}
                print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
