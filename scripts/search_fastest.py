"""The search behind the recipe `fastest`: how few steps may one layer need to learn addition mod 113 from 30 % of it?

The net and the task are fixed: x + y mod 113, 30 % of the pairs, one block without norm, width 128, feed-forward 512,
ReLU. Searched are the optimizer and its settings, decay, schedule, initial scale, filters, and a constant norm.

    search   an evolution: a fifth of the trials are drawn at random from FAMILIES, the others are children of one of
             the best so far, their numbers moved by a random factor. A trial runs on one seed; the better it is, the
             more seeds it is tried on (1000 and up). Every run is a line of the raw file; a stopped search goes on.
    score    named settings on seeds that the search never saw (0 to 19), measured after every step.
    time     what was scored trained again, up to its sustained step, without evaluations, by the clock.

    python scripts/search_fastest.py search --trials 120 --raw docs/experiments/fastest-search.jsonl
    python scripts/search_fastest.py score --recipe fastest --seeds 20 --raw docs/experiments/fastest-scores.json
    python scripts/report_fastest.py       # docs/experiments/fastest-grokking.md from the two raw files

Source of the method: Real et al. 2018, arXiv:1802.01548 (evolution); Jamieson & Talwalkar 2016, arXiv:1502.07943
(few seeds for the many, many for the few).
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from onelayer.arrays import generator, map_tree
from onelayer.training import engines, recipes
from onelayer.training.config import RunConfig, nest, parse_value
from onelayer.training.engines import Diverged
from onelayer.training.figures import fold
from onelayer.training.objective import scores

SEARCH_SEEDS = 1000  # the first seed of the search; the scores' seeds start from 0
LIMIT = 120  # steps of a search trial: what is not there by then has failed
EVERY = 2  # a search trial is measured every so many steps, on SAMPLE test pairs
SAMPLE = 1500
SEEDS = (1, 3, 6, 10)  # tried on so many seeds in all, if it ranks among the first ...
RANKS = (math.inf, 8, 4, 2)
PARENTS = 6
SUSTAINED = 25  # steps over which a score's accuracy must stay at 99 %
HOPELESS = ((90, 0.6), (60, 0.1), (0, 0.0))  # from this step on, less than this is given up
_COSINE = {"name": "cosine", "warmup": 5, "total": 150, "floor": 0.05}
_ADAMW = {"name": "adamw", "lr": 0.015, "weight_decay": 4.0, "beta1": 0.8, "beta2": 0.9}
_MUON = {
    "name": "muon", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.4, "adam_ratio": 0.15, "adam_beta1": 0.8,
    "adam_beta2": 0.9, "scaling": "width", "decay": {"embed.*": 10.0, "pos_embed.*": 10.0, "unembed.*": 10.0},
}  # fmt: skip
_MUON_ALL = {
    "name": "muon", "matrices": "all", "lr": 0.4, "momentum": 0.3, "weight_decay": 0.2, "adam_ratio": 0.0375,
    "adam_beta1": 0.8, "adam_beta2": 0.9, "scaling": "width",
}  # fmt: skip
BEGIN = {  # the first trials of a family: what a handful of trials by hand had come to
    "adamw": (
        {"optimizer": _ADAMW, "model": {"init_scale": 1.0}, "schedule": _COSINE | {"warmup": 10}},
        {"optimizer": _ADAMW, "model": {"init_scale": 1.0}, "schedule": _COSINE, "loss": {"temperature": 0.5}},
    ),
    "muon, all matrices": (
        {"optimizer": _MUON_ALL, "model": {"init_scale": 1.5}, "schedule": _COSINE | {"warmup": 8, "total": 80}},
        {"optimizer": _MUON_ALL | {"lr": 0.5}, "model": {"init_scale": 1.5}, "schedule": _COSINE | {"total": 60}},
    ),
    "muon": (
        {"optimizer": _MUON | {"weight_decay": 0.7}, "model": {"init_scale": 1.0}, "schedule": _COSINE},
        {"optimizer": _MUON | {"lr": 0.2, "adam_ratio": 0.1, "weight_decay": 0.6}, "model": {"init_scale": 1.0},
         "schedule": _COSINE},
        {"optimizer": _MUON | {"adam_ratio": 0.3}, "model": {"init_scale": 1.0}, "schedule": _COSINE},
    ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- what is drawn


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def one_of(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def adamw(rng: np.random.Generator) -> dict[str, Any]:
    settings = {
        "name": "adamw",
        "lr": log_uniform(rng, 6e-3, 4e-2),
        "weight_decay": log_uniform(rng, 0.7, 8),
        "beta1": one_of(rng, 0.8, 0.9, 0.95),
        "beta2": one_of(rng, 0.9, 0.95, 0.98, 0.99),
    }
    return {"optimizer": settings, "model": {"init_scale": log_uniform(rng, 0.25, 1.0)}, "schedule": schedule(rng)}


def adamw_constant_norm(rng: np.random.Generator) -> dict[str, Any]:
    chosen = adamw(rng)
    chosen["optimizer"]["weight_decay"] = 0.0
    chosen["model"] = {"init_scale": log_uniform(rng, 0.4, 1.0)}
    return chosen | {"projections": [{"name": "constant_norm"}]}


def muon(rng: np.random.Generator) -> dict[str, Any]:
    lr = log_uniform(rng, 0.01, 0.12)
    settings = {
        "name": "muon",
        "lr": lr,
        "momentum": one_of(rng, 0.8, 0.9, 0.95),
        "weight_decay": log_uniform(rng, 0.03, 3),
        "adam_ratio": float(f"{log_uniform(rng, 2e-3, 3e-2) / lr:.3g}"),
        "adam_beta1": one_of(rng, 0.8, 0.9),
        "adam_beta2": one_of(rng, 0.95, 0.98, 0.99),
        "scaling": one_of(rng, "width", "rms", "none"),
    }
    if settings["scaling"] == "rms":  # steps as large as Adam's
        settings |= {"lr": log_uniform(rng, 4e-3, 4e-2)}
        settings |= {"adam_ratio": one_of(rng, 0.5, 1.0, 2.0), "weight_decay": log_uniform(rng, 0.3, 6)}
    return {"optimizer": settings, "model": {"init_scale": log_uniform(rng, 0.2, 1.0)}, "schedule": schedule(rng)}


def muon_all(rng: np.random.Generator) -> dict[str, Any]:
    lr = log_uniform(rng, 0.1, 1.0)
    settings = {
        "name": "muon",
        "matrices": "all",
        "lr": lr,
        "momentum": one_of(rng, 0.0, 0.3, 0.6, 0.8),
        "weight_decay": log_uniform(rng, 0.1, 0.4),
        "adam_ratio": float(f"{log_uniform(rng, 5e-3, 5e-2) / lr:.3g}"),
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "scaling": one_of(rng, "width", "none"),
    }
    return {"optimizer": settings, "model": {"init_scale": log_uniform(rng, 0.3, 1.5)}, "schedule": schedule(rng)}


def muon_constant_norm(rng: np.random.Generator) -> dict[str, Any]:
    chosen = muon(rng)
    chosen["optimizer"]["weight_decay"] = 0.0
    chosen["model"] = {"init_scale": log_uniform(rng, 0.3, 1.0)}
    return chosen | {"projections": [{"name": "constant_norm"}]}


def adamw_filtered(rng: np.random.Generator) -> dict[str, Any]:
    filters = [{"name": "grokfast_ema", "alpha": one_of(rng, 0.8, 0.9, 0.95), "lamb": one_of(rng, 0.5, 1.0, 2.0)}]
    return adamw(rng) | {"filters": one_of(rng, filters, [{"name": "orthogonal"}])}


def schedule(rng: np.random.Generator) -> dict[str, Any]:
    return one_of(
        rng,
        {"name": "constant"},
        {"name": "linear_warmup", "warmup": 5},
        *[{"name": "cosine", "warmup": one_of(rng, 0, 5), "total": one_of(rng, 80, 110, 150), "floor": 0.1}] * 3,
    )


FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], dict[str, Any]]]] = {  # its share of the trials
    "adamw": (0.3, adamw),
    "muon": (0.15, muon),
    "muon, all matrices": (0.2, muon_all),
    "adamw, constant norm": (0.1, adamw_constant_norm),
    "muon, constant norm": (0.15, muon_constant_norm),
    "adamw, filtered": (0.1, adamw_filtered),
}


def draw(trial: int, best: list[tuple[str, dict[str, Any]]], families: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The settings of a trial, given the best so far."""
    rng = generator(0, "search_fastest", trial)
    begin = [(family, settings) for family in families for settings in BEGIN.get(family, ())]
    if trial < len(begin):
        return begin[trial]
    if rng.random() < 4 / 5:
        family, settings = best[int(rng.integers(len(best)))]
        return family, child(rng, settings)
    shares = np.array([FAMILIES[name][0] for name in families])
    name = families[int(rng.choice(len(families), p=shares / shares.sum()))]
    return name, FAMILIES[name][1](rng)


def child(rng: np.random.Generator, settings: Any) -> Any:
    """Each number moved with probability ½: a rate by a factor, a β in its distance from 1, a count by some steps."""
    if not isinstance(settings, dict):
        return settings
    new = {}
    for key, value in settings.items():
        moves = rng.random() < 0.5
        if isinstance(value, dict):
            new[key] = child(rng, value)
        elif not moves or isinstance(value, str | bool | list) or not value:
            new[key] = value
        elif isinstance(value, int):
            new[key] = max(1, round(value * math.exp(rng.normal(0, 0.25))))
        elif "beta" in key or key in ("momentum", "alpha"):
            new[key] = round(1 - min(1.0, (1 - value) * math.exp(rng.normal(0, 0.4))), 4)
        else:
            new[key] = float(f"{value * math.exp(rng.normal(0, 0.25)):.3g}")
    return new


# ---------------------------------------------------------------------------------------------------- one run


def run(config: RunConfig, limit: int, every: int, sample: int | None, patience: int) -> dict[str, Any]:
    """Train up to `limit` steps; stop once the test accuracy stood at 99 % in `patience` steps' evaluations."""
    task = config.task.make(config.seed)
    if sample:
        some = generator(config.seed, "search sample").permutation(len(task.test.tokens))[:sample]
        task = _with_test(task, map_tree(lambda a: a[some], task.test))
    engine: Any = engines.get("numpy")(config, task)
    state, records, busy, stop = engine.start(), [], 0.0, config.stop
    stop = stop.model_copy(update={"sustained": max(1, patience // every)})
    status = "done"
    for step in range(0, limit, every):
        started = time.perf_counter()
        try:
            state, _ = engine.run(state, step, every)
        except Diverged as error:
            status = str(error)
            break
        busy += time.perf_counter() - started
        records.append({"step": step + every} | _accuracies(engine, state, bool(sample)))
        figures = fold(records, stop)
        if figures.step_sustained is not None:
            break
        if sample and records[-1]["test_accuracy"] < next(least for at, least in HOPELESS if step + every >= at):
            status = "hopeless"
            break
    figures = fold(records, stop)
    whole = next((r["step"] for r in records if r["test_accuracy"] == 1.0), None)
    return {
        "seed": config.seed,
        "memorised": figures.step_memorised,
        "crossed": figures.step_generalised,
        "sustained": figures.step_sustained,
        "whole": whole,
        "best": max((r["test_accuracy"] for r in records), default=0.0),
        "last": records[-1]["test_accuracy"] if records else 0.0,
        "steps": records[-1]["step"] if records else 0,
        "seconds": busy,
        "status": status,
    }


def _with_test(task: Any, test: Any) -> Any:
    from dataclasses import replace

    return replace(task, test=test, groups={})


def _accuracies(engine: Any, state: Any, only_test: bool) -> dict[str, float]:
    if not only_test:
        return engine.evaluate(state)
    return {"test_accuracy": float(np.mean(scores(state.params, engine.test, engine.objective)[2]))}


# ---------------------------------------------------------------------------------------------------- the search


def loss_of(trials: list[dict[str, Any]]) -> float:
    """What is ranked: the mean step to 99 % over the seeds; a failure is twice the limit, less for what it reached."""
    return float(np.mean([t["sustained"] or 2 * LIMIT * (1 - 0.3 * t["best"]) for t in trials]))


def search(trials: int, raw: Path, families: tuple[str, ...]) -> None:
    runs: dict[int, list[dict[str, Any]]] = {}
    for line in raw.read_text("utf-8").splitlines() if raw.exists() else []:
        runs.setdefault(json.loads(line)["trial"], []).append(json.loads(line))
    for trial in range(len(runs), trials):
        parents = sorted(runs, key=lambda n: loss_of(runs[n]) * (1.1 if len(runs[n]) == 1 else 1))[:PARENTS]
        family, settings = draw(trial, [(runs[n][0]["family"], runs[n][0]["settings"]) for n in parents], families)
        for seeds, rank in zip(SEEDS, RANKS, strict=True):
            done = runs.setdefault(trial, [])
            if sum(loss_of(others) < loss_of(done) for others in runs.values() if others) >= rank if done else False:
                break
            for seed in range(SEARCH_SEEDS + len(done), SEARCH_SEEDS + seeds):
                config = recipes.configure("default", settings, {"seed": seed})
                result = run(config, LIMIT, EVERY, SAMPLE, 20)
                done.append({"trial": trial, "family": family} | result | {"settings": settings})
                with raw.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[-1]) + "\n")
        print(
            f"{trial:4} {loss_of(runs[trial]):7.1f} on {len(runs[trial])}: {family} {json.dumps(settings)}", flush=True
        )


# ---------------------------------------------------------------------------------------------------- the scores


def score(recipe: str, changes: list[str], seeds: int, limit: int, every: int, raw: Path) -> None:
    """The recipe on seeds from 0 on, to `limit` steps whatever happens."""
    given = nest({name: parse_value(value) for name, value in (change.split("=", 1) for change in changes)})
    rows = json.loads(raw.read_text("utf-8")) if raw.exists() else []
    rows = [row for row in rows if (row["recipe"], row["changes"]) != (recipe, changes)]
    for seed in range(seeds):
        config = recipes.configure(recipe, given, {"seed": seed})
        about = {"recipe": recipe, "changes": changes, "every": every, "limit": limit}
        rows.append(about | scored(config, limit, every))
        raw.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(rows[-1]), flush=True)


def scored(config: RunConfig, limit: int, every: int) -> dict[str, Any]:
    engine: Any = engines.get(config.engine)(config, config.task.make(config.seed))
    state, records, status = engine.start(), [], "done"
    for step in range(0, limit + 1, every):
        records.append({"step": step} | engine.evaluate(state))
        if step == limit:
            break
        try:
            state, _ = engine.run(state, step, every)
        except Diverged as error:
            status = str(error)
            break
    stop = config.stop.model_copy(update={"sustained": max(2, SUSTAINED // every)})
    figures = fold(records, stop)
    whole = next((r["step"] for r in records if r["test_accuracy"] == 1.0), None)
    return {
        "seed": config.seed,
        "memorised": figures.step_memorised,
        "crossed": figures.step_generalised,
        "sustained": figures.step_sustained,
        "whole": whole,
        "lowest_after": figures.minimum_after,
        "last": records[-1]["test_accuracy"],
        "train_accuracy_last": records[-1]["train_accuracy"],
        "seconds": None,
        "status": status,
    }


def clock(recipe: str, raw: Path) -> None:
    """How long training alone takes, without a single evaluation, up to each run's sustained step."""
    rows = json.loads(raw.read_text("utf-8"))
    for row in rows:
        if row["recipe"] == recipe and row["sustained"] is not None:
            given = nest({name: parse_value(value) for name, value in (c.split("=", 1) for c in row["changes"])})
            config = recipes.configure(recipe, given, {"seed": row["seed"]})
            engine: Any = engines.get(config.engine)(config, config.task.make(config.seed))
            engine.run(engine.start(), 0, 2)  # the kernels are compiled
            state, started = engine.start(), time.perf_counter()
            engine.run(state, 0, row["sustained"])
            row["seconds"] = time.perf_counter() - started
            print(row["seed"], row["sustained"], f"{row['seconds']:.2f} s", flush=True)
            raw.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="The search behind the recipe `fastest`.")
    jobs = parser.add_subparsers(dest="job", required=True)
    job = jobs.add_parser("search", help="look for settings")
    job.add_argument("--trials", type=int, default=120)
    job.add_argument("--family", action="append", choices=list(FAMILIES), help="these alone; may be given again")
    job.add_argument("--raw", type=Path, default=Path("docs/experiments/fastest-search.jsonl"))
    job = jobs.add_parser("score", help="measure a recipe on fresh seeds")
    job.add_argument("--recipe", default="fastest")
    job.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field that is changed")
    job.add_argument("--seeds", type=int, default=20)
    job.add_argument("--limit", type=int, default=200, help="steps of each run")
    job.add_argument("--every", type=int, default=1, help="steps from one evaluation to the next")
    job.add_argument("--raw", type=Path, default=Path("docs/experiments/fastest-scores.json"))
    job = jobs.add_parser("time", help="time the training alone of what was scored")
    job.add_argument("--recipe", default="fastest")
    job.add_argument("--raw", type=Path, default=Path("docs/experiments/fastest-scores.json"))
    args = parser.parse_args()
    if args.job == "search":
        search(args.trials, args.raw, tuple(args.family or FAMILIES))
    elif args.job == "time":
        clock(args.recipe, args.raw)
    else:
        score(args.recipe, args.set, args.seeds, args.limit, args.every, args.raw)


if __name__ == "__main__":
    main()
