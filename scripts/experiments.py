"""The experiments on grokking: which runs each is made of, and the command that trains what is not there yet.

    python scripts/experiments.py operations            # docs/experiments/operations.jsonl, a line a run
    python scripts/experiments.py all --seeds 2         # every experiment, its first two seeds
    python scripts/experiment_pages.py                  # the pages and the figures from the raw files

A run that has a line is not trained again. Seeds are the outer loop: a file that was stopped early holds whole seeds.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onelayer.arrays import map_tree
from onelayer.grokking import characters, spectra, weights
from onelayer.grokking.subject import Subject
from onelayer.studies import grid
from onelayer.studies.grid import Run
from onelayer.tasks.operations import OPERATIONS
from onelayer.training import configure, objective, recipes

HERE = Path(__file__).parent.parent / "docs" / "experiments"


class Study(NamedTuple):
    runs: Callable[[range, Path], Iterator[Run]]  # (seeds, raw) -> runs, in order; raw: what is known so far
    seeds: int
    look: grid.Look | None = None
    at_end: grid.End | None = None
    keep: Callable[[list[dict[str, Any]]], Any] = lambda curve: None


def known(raw: Path, **cell: Any) -> list[dict[str, Any]]:
    """The lines of a cell."""
    return [row for row in grid.read(raw) if all(row["cell"].get(name) == value for name, value in cell.items())]


# ---------------------------------------------------------------------------------------- every operation

P = 53
LEFT_OUT = (
    "x!",
    "x + y + z",
    "(x + y)**z",
    "Z113: x*y",
    "S6: x*y",
    "min(x, y)",
    "S5: x*y*x^-1",
    "S5: x*y*x",
    "D60: x*y",
)
FRACTIONS = (0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
NAMES = sorted(
    [name for name in OPERATIONS if name not in LEFT_OUT] + ["x**2 + x*y + y**2 mod 61"],
    key=lambda name: name == "S5: x*y",  # last: 120² pairs
)
FAST = {  # fastest, made slower and with more decay: fastest itself was tuned to x + y, and fails on x - y
    "optimizer": {"lr": 0.25, "adam_ratio": 0.075, "weight_decay": 0.4},
    "schedule": {"name": "cosine", "warmup": 5, "total": 120, "floor": 0.05},
    "steps": 160,
}


def operations(seeds: range, raw: Path) -> Iterator[Run]:
    """From .7 down while any seed has learnt, up unless all have; what follows from that is not trained."""
    for seed in seeds:
        for name in NAMES:
            yield operation(name, 0.7, seed)
            if learnt(raw, name, 0.7) < 1:
                yield operation(name, 0.9, seed)
            for fraction in (0.5, 0.4, 0.3, 0.2):
                if learnt(raw, name, FRACTIONS[FRACTIONS.index(fraction) + 1]) == 0:
                    break
                yield operation(name, fraction, seed)


LEARNT = 0.95  # of the test pairs, at best: what counts as learnt where the next fraction is chosen


def learnt(raw: Path, name: str, fraction: float) -> float:
    """The share of the seeds so far that learnt it."""
    rows = known(raw, operation=name, fraction=fraction, recipe="muon")
    return sum(row["best_test"] >= LEARNT for row in rows) / max(1, len(rows))


def operation(name: str, fraction: float, seed: int, recipe: str = "muon") -> Run:
    known = name.removesuffix(" mod 61")
    p = {"x xor y": 64}.get(name, 61 if name != known else P)
    task = {"operation": known, "train_fraction": fraction} | ({} if ":" in name else {"p": p})
    base, change = ("fastest", FAST) if recipe == "muon" else ("default", {"steps": 500})
    config = configure(base, change, {"task": task, "seed": seed})
    hopeless = (100, 0.3) if recipe == "muon" else (300, 0.3)
    return Run({"operation": name, "fraction": fraction, "recipe": recipe}, config, hopeless=hopeless)


CONTROLS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "mirrors kept together": {"split": "mirror_closed"},
    "a tenth of the labels spoilt": {"label_noise": 0.1},
    "three tenths of the labels spoilt": {"label_noise": 0.3},
    "all labels permuted": {"permute_labels": True},
}


def controls(seeds: range, raw: Path) -> Iterator[Run]:
    for seed in seeds:
        for name, change in CONTROLS.items():
            task = {"p": P, "train_fraction": 0.5} | change
            config = configure("fastest", FAST, {"task": task, "seed": seed})
            yield Run({"control": name}, config, until=())


def spoilt(engine: Any, state: Any) -> dict[str, Any]:
    """Of the training pairs with a spoilt label, the share answered as spoilt, and as the operation has it."""
    facts = engine.task.facts
    if "noisy" not in facts:
        return {}
    batch = engine.task.train
    said = objective.forward(state.params, batch, engine.objective)[0][:, -1].argmax(axis=-1)
    noisy = facts["noisy"]
    return {
        "as_spoilt": float(np.mean(said[noisy] == batch.targets[noisy, 0])),
        "as_true": float(np.mean(said[noisy] == facts["clean_targets"][noisy, 0])),
    }


CHECKED = ("x < y", "x**2 + x*y + y**2", "x**3 + x*y", "x**3 + x*y**2 + y", "x + y", "x - y")


def recipes_agree(seeds: range, raw: Path) -> Iterator[Run]:
    """The verdicts again with AdamW, which has time: is what the quick recipe cannot do a matter of the recipe?"""
    for seed in seeds:
        for name in CHECKED:
            yield replace(operation(name, 0.7, seed, "adamw"), grain=0.05)


# ---------------------------------------------------------------------------------------- the fraction

SWEPT = {0.8: 400, 0.7: 400, 0.6: 600, 0.5: 800, 0.4: 1400, 0.3: 3000}  # steps at most


def fractions(seeds: range, raw: Path) -> Iterator[Run]:
    """The published recipe at ten times its rate; and at its own, where that is short."""
    for seed in seeds:
        for fraction, steps in SWEPT.items():
            yield swept(fraction, 1e-2, steps, seed)
        for fraction in (0.7, 0.6):
            yield swept(fraction, 1e-3, 4000, seed)


def swept(fraction: float, lr: float, steps: int, seed: int) -> Run:
    config = configure(
        "nanda-2023",
        {"task": {"train_fraction": fraction}, "optimizer": {"lr": lr}, "steps": steps, "seed": seed},
    )
    return Run({"fraction": fraction, "lr": lr}, config, every=2, grain=0.02, until=("sustained", "loss_0.1"))


# ---------------------------------------------------------------------------------------- the decay law

SMALL = {"task": {"p": 53, "train_fraction": 0.5}, "model": {"d_model": 64, "d_mlp": 256}}
LAW = {  # (rate, decay): two decades of their product, either alone
    "decay": [(1e-3, wd) for wd in (10.0, 3.0, 1.0, 0.3, 0.1)],
    "rate": [(lr, 1.0) for lr in (1e-2, 3e-3, 3e-4)],
}


def decay_law(seeds: range, raw: Path) -> Iterator[Run]:
    """All but the slowest for every seed; that one, 10,000 steps and more, for the first three."""
    pairs = sorted({pair for pairs in LAW.values() for pair in pairs}, key=lambda pair: -pair[0] * pair[1])
    for seed in seeds:
        yield from (decaying(lr, decay, seed) for lr, decay in pairs if lr * decay > 2.9e-4)
    yield from (decaying(1e-3, 0.1, seed) for seed in seeds[:3])


LIMIT = 6  # of rate · decay · t: where a run ends at the latest


def decaying(lr: float, decay: float, seed: int) -> Run:
    steps = round(LIMIT / (lr * decay))
    config = configure(
        "nanda-2023", SMALL, {"optimizer": {"lr": lr, "weight_decay": decay}, "steps": steps, "seed": seed}
    )
    return Run({"lr": lr, "decay": decay}, config, every=5, grain=0.02, until=("sustained", "loss_0.01"))


# ---------------------------------------------------------------------------------------- norm or logit scale

ALPHAS, TEMPERATURES = (0.7, 1.0, 1.4), (0.1, 0.3, 1.0, 3.0, 10.0)


def scales(seeds: range, raw: Path) -> Iterator[Run]:
    """The norm held at α times the usual, and the loss at a temperature, each with each; and free, with decay."""
    for seed in seeds:
        for alpha in ALPHAS:
            for temperature in TEMPERATURES:
                yield scale(True, alpha, temperature, seed)
        for temperature in TEMPERATURES:
            yield scale(False, 1.0, temperature, seed)


def scale(held: bool, alpha: float, temperature: float, seed: int) -> Run:
    change: dict[str, Any] = {"model": {"init_scale": alpha}, "loss": {"temperature": temperature}}
    change |= {"projections": [{"name": "constant_norm"}]} if held else {}
    change |= {"optimizer": {"weight_decay": 0.0 if held else 1.0, "lr": 3e-3}, "steps": 1200, "seed": seed}
    return Run({"held": held, "alpha": alpha, "temperature": temperature}, configure("nanda-2023", SMALL, change),
               every=5, grain=0.03)  # fmt: skip


def scale_of(engine: Any, state: Any, step: int) -> dict[str, float]:
    """The effective logit scale: of the test logits, as the loss sees them, the root mean square about each row's mean;
    and the norm of all weights."""
    z = objective.forward(state.params, engine.test, engine.objective)[0].astype(np.float64)
    z = (z - z.mean(axis=-1, keepdims=True)) / engine.objective.temperature
    return {"scale": float(np.sqrt(np.mean(z**2))), "norm": float(np.linalg.norm(weights.as_vector(state.params)))}


def scale_marks(curve: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """Step, scale, norm, train and test accuracy, of some 30 evaluations."""
    chosen = curve[:: max(1, len(curve) // 30)]
    return [tuple(r[n] for n in ("step", "scale", "norm", "train_accuracy", "test_accuracy")) for r in chosen]


# ---------------------------------------------------------------------------------------- optimizers

RATES: dict[str, dict[str, Any]] = {
    "AdamW": {"optimizer": {"name": "adamw", "lr": 1e-2, "beta2": 0.98, "weight_decay": 1.0}, "steps": 800},
    "Muon, every matrix": recipes.get("fastest").config | {"steps": 300},
    "Muon, hidden matrices": {  # of scripts/search_fastest.py
        "optimizer": {"name": "muon", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.4, "adam_ratio": 0.15,
                      "adam_beta1": 0.8, "adam_beta2": 0.9,
                      "decay": {"embed.*": 10.0, "pos_embed.*": 10.0, "unembed.*": 10.0}},
        "schedule": {"name": "cosine", "warmup": 5, "total": 150, "floor": 0.05}, "steps": 400},
    "Muon, hidden matrices, rates of Fu 2026": {
        "optimizer": {"name": "muon", "lr": 0.02, "momentum": 0.95, "weight_decay": 1.0, "adam_ratio": 0.05,
                      "adam_beta1": 0.9, "adam_beta2": 0.98}, "steps": 800},
    "AdamW, constant norm": {
        "optimizer": {"name": "adamw", "lr": 1e-2, "beta2": 0.98, "weight_decay": 0.0},
        "projections": [{"name": "constant_norm"}], "model": {"init_scale": 0.8}, "steps": 800},
}  # fmt: skip


def optimizers(seeds: range, raw: Path) -> Iterator[Run]:
    """To twice the steps that it took to generalise."""
    for seed in seeds:
        for name, change in RATES.items():
            task = {"task": {"p": P, "train_fraction": 0.5}, "seed": seed}
            yield Run({"optimizer": name}, configure("default", change, task), every=5, grain=0.03, after=2.0)


def frequencies_of(engine: Any, state: Any) -> dict[str, Any]:
    """In how many frequencies the solution lives, and its control, the network as it began."""
    whole = objective.init(engine.objective.model, engine.config.seed)
    params, start = (in_float64(tree) for tree in (state.params, whole))
    subject = Subject(engine.task, engine.objective, params, start, engine.config.seed, engine.config.dtype)
    return {"frequencies": told(subject) | {"keys": list(subject.key_frequencies)}, "untrained": told(subject.twin)}


def told(s: Subject) -> dict[str, float]:
    energy = characters.transform(s.seen["hook_resid_post"], s.characters) ** 2
    by_pair = pairs_of(energy.sum(axis=-1), s.characters)
    return {
        "key_frequencies": len(s.key_frequencies),
        "effective_frequencies": spectra.effective_frequencies(s),
        "effective_pairs": float(np.exp(characters.entropy(by_pair))),
        "sum_share": spectra.sum_share(s),
        "neuron_specialisation": spectra.neuron_specialisation(s),
        "embedding_gini": spectra.embedding_gini(s),
        "norm": weights.weight_norm(s),
    }


def pairs_of(energy: np.ndarray, ch: characters.Characters) -> np.ndarray:
    """[n n] over the basis functions of a and of b -> the energy of each pair of frequencies but the constant's."""
    of = np.asarray(ch.frequency)
    n = int(of.max()) + 1
    summed = np.zeros((n, n))
    np.add.at(summed, (of[:, None], of[None, :]), energy)
    return summed.ravel()[1:]


# ---------------------------------------------------------------------------------------- sums of many digits

SUMS = {"little": 700, "endless": 2**20}  # 700 examples again and again; a million, none of which is seen twice


def addition(seeds: range, raw: Path) -> Iterator[Run]:
    for seed in seeds:
        for order in ("low_first", "high_first"):
            for data, n_train in SUMS.items():
                yield summed(data, order, n_train, seed)


def summed(data: str, order: str, n_train: int, seed: int) -> Run:
    config = configure(
        "default",
        {
            "task": {"name": "addition", "n_digits": 4, "n_train": n_train, "sum_order": order, "operand_order": order},
            "optimizer": {"lr": 3e-3, "weight_decay": 0.3},
            "schedule": {"name": "cosine", "warmup": 100, "total": 1500, "floor": 0.02},
            "batch_size": 256,
            "steps": 1500,
            "seed": seed,
        },
    )
    return Run({"data": data, "order": order}, config, every=100, until=(), sample=2000)


def digits_of(engine: Any, state: Any, step: int) -> dict[str, Any]:
    """The share of right digits by place, units first; the right digits before it are given (teacher forcing)."""
    logits = objective.forward(state.params, engine.test, engine.objective)[0]
    right = np.mean(logits.argmax(axis=-1) == engine.test.targets, axis=0)
    low_first = engine.task.facts["sum_order"] == "low_first"
    return {"digits": [float(share) for share in (right if low_first else right[::-1])]}


def digit_marks(curve: list[dict[str, Any]]) -> list[list[Any]]:
    return [[r["step"], r["train_accuracy"], r["test_accuracy"], r["test_loss"]] for r in curve]


def in_float64(tree: Any) -> Any:
    return map_tree(lambda w: np.asarray(w, dtype=np.float64), tree)


STUDIES = {
    "operations": Study(operations, 5),
    "controls": Study(controls, 5, at_end=spoilt),
    "recipes-agree": Study(recipes_agree, 5),
    "fraction": Study(fractions, 5),
    "decay-law": Study(decay_law, 5),
    "logit-scale": Study(scales, 5, look=scale_of, keep=scale_marks),
    "optimizers": Study(optimizers, 5, at_end=frequencies_of),
    "addition": Study(addition, 5, look=digits_of, keep=digit_marks),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="+", choices=[*STUDIES, "all"])
    parser.add_argument("--seeds", type=int, help="the first so many seeds; each study has its own number")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of the raw files, STUDY.jsonl")
    args = parser.parse_args()
    for name in STUDIES if "all" in args.study else args.study:
        study, raw = STUDIES[name], args.out / f"{name}.jsonl"
        runs = study.runs(range(args.seeds or study.seeds), raw)
        grid.fill(runs, raw, look=study.look, at_end=study.at_end, keep=study.keep,
                  say=lambda words: print(words, flush=True))  # fmt: skip


if __name__ == "__main__":
    main()
