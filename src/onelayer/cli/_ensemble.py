"""`onelayer grok --seeds 64`: many runs as one program, and what became of them."""

import json
import sys
from pathlib import Path

from ..errors import BadInput, WorkFailed
from ..training import RunConfig, ensemble
from ..training.files import replace_file
from ..training.run_directory import default_path
from ._common import answer, plain

__all__ = ["grok_many"]


def grok_many(config: RunConfig, seeds: int, out: Path | None, no_report: bool, as_json: bool) -> None:
    """Train the ensemble; ensemble.json and ensemble.html in its directory say what became of each member."""
    if config.engine != "jax":
        config = config.model_copy(update={"engine": "jax"})
    path = out or default_path(config).with_name(default_path(config).name + f"-{seeds}-seeds")
    if path.exists() and any(path.iterdir()):
        raise BadInput(f"{path} is not empty; give --out another directory, or leave it out")

    def say(progress: ensemble.Progress) -> None:
        line = f"step {progress.step}: {progress.running} running, {progress.finished} done, {progress.seconds:.0f} s"
        print(line, file=sys.stderr, flush=True)

    result = ensemble.train(ensemble.members(config, seeds), say)
    from ..report import ensemble as report

    path.mkdir(parents=True, exist_ok=True)
    facts = report.facts(result) | {"config": config.as_dict(), "run": str(path)}
    replace_file(path / "ensemble.json", (json.dumps(plain(facts), indent=1) + "\n").encode())
    text = "\n".join([*report.sentences(result), f"kept    {path / 'ensemble.json'}"])
    if not no_report:
        text += f"\nreport  {report.write(result, path / 'ensemble.html')}"
    answer(facts, text, as_json=as_json)
    if all(member.diverged for member in result.members):
        raise WorkFailed("every member diverged; lower the learning rate, the decay or the initial scale")
