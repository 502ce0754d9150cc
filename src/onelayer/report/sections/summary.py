"""What happened, in one paragraph whose numbers come from the run."""

import math

from onelayer.report.run import Run
from onelayer.report.section import Section
from onelayer.report.wording import delay, percent, step


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    if run.task.text is not None:
        return Section("What happened", " ".join(_in_words(run)), facts=_facts_in_words(run))
    return Section("What happened", " ".join(_sentences(run)), facts=_facts(run))


# ---------------------------------------------------------------------------------------------------- words

UNITS = {"characters": "character by character", "words": "word by word", "bpe": "in byte-pair pieces"}
DECODED = {  # names of decoding/metrics.py: in words, and whether it is a share
    "exact_match": ("decoded exactly right", True),
    "word_error_rate": ("word error rate", True),
    "phone_error_rate": ("phone error rate", True),
    "bleu": ("BLEU", False),
    "chrf": ("chrF", False),
    "bits_per_character": ("bits per character", False),
}


def _in_words(run: Run) -> list[str]:
    text, last = run.task.text, run.records[-1]
    assert text is not None
    if text.source is None:
        told = [f"{_model(run)} was trained to go on with {run.task.name}, read {UNITS[text.target.kind]}."]
    else:
        sizes = [f"{len(pairs):,} {split}" for split, pairs in text.pairs.items()]
        told = [
            f"{_model(run)} was trained on {run.task.name} ({', '.join(sizes)}): what it reads is cut "
            f"{UNITS[text.source.kind]}, {len(run.source_vocabulary)} symbols, and it answers "
            f"{UNITS[text.target.kind]}, {len(run.task.vocabulary)} symbols."
        ]
    split = next((name for name in ("valid", "test", "train") if f"{name}_loss" in last), None)
    if split is not None:
        loss = last[f"{split}_loss"]
        told.append(
            f"At the end, step {run.steps[-1]:,.0f}, the surprise on {split} is {loss:.3g} nats per token (perplexity "
            f"{math.exp(min(loss, 700)):.3g}); a uniform guess over the vocabulary has "
            f"{math.log(len(run.task.vocabulary)):.3g}."
        )
        forced = last.get(f"{split}_teacher_forced_accuracy")
        if forced is not None:
            told.append(f"Given all before it, {percent(forced)} of the tokens there get the largest logit.")
    if run.step_best is not None:
        best = run.config.stop.best or ""
        value = next(r[best] for r in run.records if r["step"] == run.step_best)
        told.append(
            f"The weights chosen, and shown on this page, are those of step {run.step_best:,}, where "
            f"{best.replace('_', ' ')} was best: {value:.4g}."
        )
    for name, decoded in run.decoded.items():
        known = [f"{DECODED[key][0]} {_decoded(key, value)}" for key, value in decoded.items() if key in DECODED]
        if known:
            told.append(f"Decoded {_how(run)}, the {name} split gives: {', '.join(known)}.")
    if not run.decoded and text.source is not None:
        told.append(f"How it does on whole answers is said by decoding: onelayer decode {run.directory.path}.")
    return told


def _how(run: Run) -> str:
    """How, and with which weights: "(greedy, with the average weights)"."""
    return f"({run.scores['decoding']}, with the {run.scores['weights']} weights)"


def _facts_in_words(run: Run) -> dict[str, str]:
    facts = {
        f"{DECODED[key][0]}, {split}": _decoded(key, value)
        for split, decoded in run.decoded.items()
        for key, value in decoded.items()
        if key in DECODED
    }
    last = run.records[-1]
    for split in ("train", "valid", "test"):
        if f"{split}_loss" in last:
            facts[f"{split} loss at the end"] = f"{last[f'{split}_loss']:.4g} nats"
    for split in ("train", "valid", "test"):
        if f"{split}_teacher_forced_accuracy" in last:
            facts[f"{split} tokens right, teacher-forced"] = percent(last[f"{split}_teacher_forced_accuracy"])
    return facts


def _decoded(key: str, value: float) -> str:
    return percent(value) if DECODED[key][1] else f"{value:.4g}"


# ---------------------------------------------------------------------------------------------------- questions


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
    train, test = (f"{len(split.targets):,}" for split in (run.task.train, run.task.test))
    origin = run.config.branch
    begun = f" It is a branch: it began with the weights of {origin.run} at step {origin.step:,}." if origin else ""
    return f"{_model(run)} was trained on {run.task.name} with {train} questions; {test} others test it.{begun}"


def _model(run: Run) -> str:
    layers = run.model.n_layers
    if run.reads:
        below = run.model.n_encoder_layers or layers
        reads, writes = (f"{verb}{'' if n > 1 else 's'}" for verb, n in (("read", below), ("write", layers)))
        return f"A Transformer of {_layers(below)} that {reads} and {layers} that {writes}"
    return f"A decoder-only Transformer of {_layers(layers)}"


def _layers(n: int) -> str:
    return f"{n} layer{'s' if n > 1 else ''}"


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
