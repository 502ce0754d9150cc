"""The experiments on words: each task trained from its recipe, its answers decoded and scored, a line of JSON a run.

    python scripts/words.py reverse copy --seeds 3 --data ../shared/data --raw docs/experiments/words.jsonl
    python scripts/words.py --list
    python scripts/report_words.py         # docs/experiments/words.md

One layer of encoder and one of decoder (a language model: one layer), no dropout. Weights are chosen by the validation
split; the test split is decoded once, at the end. A run that stands in the raw file already is not made again.

seconds     of the whole training, evaluations and checkpoints included, by the clock
processor   the same in processor seconds of this process: what one thread of a machine without other work would need
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from onelayer.arrays import flatten
from onelayer.decoding.decode import Beam, How
from onelayer.training import configure, train
from onelayer.training.config import merge
from onelayer.training.opened import open_text
from onelayer.words.final import conclude


class Study(NamedTuple):
    task: dict[str, Any]  # settings; {data} stands for the folder of data
    changes: dict[str, Any]  # of the recipe that goes with the task
    how: How | None = None  # None: as `onelayer train` decodes


def rises_and_falls(steps: int, warmup: int = 100) -> dict[str, Any]:
    return {"steps": steps, "schedule": {"warmup": warmup, "total": steps},
            "evaluation": {"every": max(50, steps // 12)}, "checkpoint": {"every": steps // 4}}  # fmt: skip


def scan(split: str) -> dict[str, Any]:
    return {"name": "scan", "train": f"{{data}}/scan/tasks_train_{split}.txt.gz",
            "test": f"{{data}}/scan/tasks_test_{split}.txt.gz"}  # fmt: skip


def g2p(language: str) -> dict[str, Any]:
    paths = {split: f"{{data}}/g2p/{language}_{short}.tsv" for split, short in
             (("train", "train"), ("valid", "dev"), ("test", "test"))}  # fmt: skip
    return {"name": "pairs", **paths, "source_units": "characters", "target_units": "words"}


NARROW = {"model": {"d_model": 64, "d_mlp": 256}}
MULTI30K = {f"{split}{end}": f"{{data}}/multi30k/{name}.{tongue}.gz"
            for split, name in (("train", "train"), ("valid", "val"), ("test", "test_2016_flickr"))
            for end, tongue in (("", "de"), ("_target", "en"))}  # fmt: skip

STUDIES = {
    "copy": Study({"name": "copy"}, NARROW | rises_and_falls(600)),
    "reverse": Study({"name": "reverse"}, NARROW | rises_and_falls(1500)),
    "sort": Study({"name": "sort"}, rises_and_falls(800)),
    "dates": Study({"name": "dates"}, rises_and_falls(600)),
    "sums": Study({"name": "sums"}, rises_and_falls(1500)),
    "scan-simple": Study(scan("simple"), rises_and_falls(2000)),
    "scan-length": Study(scan("length"), rises_and_falls(1000)),
    "scan-jump": Study(scan("addprim_jump"), rises_and_falls(1000)),
    "g2p-geo": Study(g2p("geo"), {"loss": {"label_smoothing": 0.1}} | rises_and_falls(800)),
    "g2p-fre": Study(g2p("fre"), {"loss": {"label_smoothing": 0.1}} | rises_and_falls(2400)),
    "cmudict": Study(
        {"name": "phonemes"},
        {"model": {"d_model": 256, "d_mlp": 1024}, "loss": {"label_smoothing": 0.1}}
        | rises_and_falls(1600), Beam(5)),
    "shakespeare": Study(
        {"name": "language", "path": "{data}/tinyshakespeare/input.txt", "units": "characters", "context": 64},
        rises_and_falls(5000)),
    "multi30k": Study(
        {"name": "pairs", **MULTI30K, "source_units": "bpe", "target_units": "bpe", "bpe_size": 4000, "shared": True,
         "lower": True, "metrics": ("bleu", "chrf", "exact_match")},
        rises_and_falls(1600, 200), Beam(5, 1.0)),
}  # fmt: skip


def filled(settings: Mapping[str, Any], data: Path) -> dict[str, Any]:
    return {key: value.format(data=data) if isinstance(value, str) else value for key, value in settings.items()}


def one(name: str, seed: int, data: Path, out: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    study = STUDIES[name]
    task = {"task": filled(study.task, data)}
    config = configure(None, task, study.changes, changes, {"seed": seed})
    clock, processor = time.perf_counter(), time.process_time()
    result = train(config, out / f"{name}-{seed}", lambda event: tell(name, event))
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    if result.status != "finished":
        raise SystemExit(f"{name}, seed {seed}: {result.status}, {result.reason}")
    begun = time.process_time()
    final = conclude(result.run, how=study.how)
    return {
        "study": name, "seed": seed, "recipe": config.recipe, "changes": study.changes, "task": study.task,
        "steps": result.step, "seconds": round(clock, 1), "processor": round(processor, 1), "tokens": result.tokens,
        "busy": round(result.busy, 1), "weights": sum(w.size for w in flatten(open_text(result.run).params).values()),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"), "load": round(os.getloadavg()[0], 1),
        "decoding_processor": round(time.process_time() - begun, 1), **final.as_dict(),
    }  # fmt: skip


def tell(name: str, event: Any) -> None:
    record = getattr(event, "record", None)
    if record and hasattr(event, "step"):
        print(name, {k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The experiments on words.")
    parser.add_argument("names", nargs="*", metavar="STUDY", help=", ".join(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with the data")
    parser.add_argument("--raw", type=Path, default=Path("docs/experiments/words.jsonl"))
    parser.add_argument("--runs", type=Path, help="where the runs are kept; by default they are not")
    parser.add_argument("--set", action="append", default=[], metavar="JSON", help="changes, laid over a study's own")
    parser.add_argument("--list", action="store_true", help="list the studies")
    args = parser.parse_args()
    if args.list:
        print("\n".join(STUDIES))
        return
    changes: dict[str, Any] = {}
    for text in args.set:
        changes = merge(changes, json.loads(text))
    for seed in args.seeds:
        for name in args.names:
            known = [json.loads(line) for line in args.raw.read_text().splitlines()] if args.raw.exists() else []
            if any((row["study"], row["seed"]) == (name, seed) for row in known):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                row = one(name, seed, args.data.resolve(), args.runs or Path(scratch), changes)
            with args.raw.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
