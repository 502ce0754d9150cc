"""What happened, in one paragraph whose numbers come from the run."""

from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.report.wording import delay, percent, step


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    return Section("What happened", " ".join(_sentences(run)), facts=_facts(run))


def _sentences(run: Run) -> list[str]:
    found, stop = run.figures, run.config.stop
    level, last, end = percent(stop.threshold), run.records[-1], f"{run.steps[-1]:,.0f}"
    told = [_what(run)]
    if found.step_memorised is None:
        told.append(f"In {end} steps it did not come to answer {level} of the training set.")
    else:
        told.append(f"It first answered at least {level} of the training set at step {found.step_memorised:,}.")
    if found.step_generalised is None:
        told.append(f"It never answered as much as {level} of the questions it was not trained on.")
    else:
        told.append(f"It first answered at least {level} of the unseen questions at step {found.step_generalised:,}")
        late = delay(run)
        told[-1] += (
            f": it memorised first, and generalised after {late:.1f} times as many steps." if late and late > 1 else "."
        )
        held = found.step_sustained
        told.append(
            f"It held that for {stop.sustained} evaluations in a row from step {held:,} on"
            if held is not None
            else f"It did not hold that for {stop.sustained} evaluations in a row"
        )
        told[-1] += f"; the lowest value after the first crossing was {percent(found.minimum_after or 0.0)}."
    if "test_accuracy" in last:
        told.append(f"At the end, step {end}, it answers {percent(last['test_accuracy'])} of the unseen questions")
        if "mirror_free_accuracy" in last:
            told[-1] += (
                f", and {percent(last['mirror_free_accuracy'])} of those (a, b) whose mirror (b, a) is unseen too"
            )
        told[-1] += "."
    if "majority_accuracy" in run.task.facts:
        majority = percent(run.task.facts["majority_accuracy"])
        told.append(f"Always giving the most frequent answer would be right for {majority} of them.")
    return told


def _what(run: Run) -> str:
    layers = run.model.n_layers
    model = f"A {run.model.architecture.replace('_', '-')} Transformer of {layers} layer{'s' if layers > 1 else ''}"
    train, test = (f"{len(split.targets):,}" for split in (run.task.train, run.task.test))
    return f"{model} was trained on {run.task.name} with {train} questions; {test} others test it."


def _facts(run: Run) -> dict[str, str]:
    found, late = run.figures, delay(run)
    facts = {
        "memorised at step": step(found.step_memorised),
        "generalised at step": step(found.step_generalised),
        "steps to generalise / to memorise": f"{late:.1f}" if late else "–",
        "generalised, and held, from step": step(found.step_sustained),
        "lowest test accuracy since": "–" if found.minimum_after is None else percent(found.minimum_after),
    }
    names = {
        "train_accuracy": "train accuracy at the end",
        "test_accuracy": "test accuracy at the end",
        "mirror_free_accuracy": "the same, mirror unseen",
    }
    facts |= {text: percent(run.records[-1][name]) for name, text in names.items() if name in run.records[-1]}
    if "majority_accuracy" in run.task.facts:
        facts["most frequent answer alone"] = percent(run.task.facts["majority_accuracy"])
    return facts
