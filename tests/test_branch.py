"""Guards the branches of a run, and the interventions that train nothing: what changed is what was asked."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_grokking import CHOSEN, P, by_hand, dft, subject
from tiny import fingerprint, tiny

from onelayer import cli, optimizers
from onelayer.arrays import flatten, map_tree
from onelayer.errors import BadInput
from onelayer.grokking import interventions, losses
from onelayer.grokking.subject import open_subject
from onelayer.models import decoder_only
from onelayer.training import Run, branch, ensemble, resume, train
from onelayer.training.config import resolve
from onelayer.training.events import Advanced, Checkpointed

STEPS = {"steps": 20, "checkpoint": {"pinned": "log"}}


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """20 steps, whole at 10 and 20, the model alone at 0 and some between."""
    return train(tiny(STEPS), tmp_path_factory.mktemp("parent") / "run").run


def weights(run: Path, step: int | None = None) -> dict[str, np.ndarray]:
    return Run(run).parameters(step)


# ---------------------------------------------------------------------------------------------------- the branch


EVERYTHING = {
    "optimizer": {"name": "muon", "weight_decay": 0.0}, "filters": ["grokfast_ema", "clip"],
    "projections": [{"name": "constant_norm", "scale": 0.8}],
}  # fmt: skip


@pytest.mark.parametrize(
    "change", [{}, {"batch_size": 7, "schedule": {"name": "cosine", "warmup": 5, "total": 40}}, EVERYTHING]
)
def test_a_branch_without_a_change_is_the_run_itself(change, tmp_path):
    whole = train(tiny(change), tmp_path / "whole").run
    part = train(tiny(change, {"steps": 20}), tmp_path / "part").run
    made = branch.branch(part, 20, {"steps": 40}, out=tmp_path / "branch").run
    assert Run(made).metrics[1:] == [record for record in Run(whole).metrics if record["step"] > 20]
    found, wanted = weights(made), weights(whole)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert Run(made).config.branch.optimizer == "kept"


def test_the_parent_is_only_read_and_named(parent, tmp_path):
    before = fingerprint(parent)
    made = branch.branch(parent, 10, {"optimizer.weight_decay": 0.0}, out=tmp_path / "branch").run
    assert fingerprint(parent) == before
    told = Run(made).config
    assert (told.branch.run, told.branch.step, told.branch.sha256) == (
        str(parent),
        10,
        branch.digest(weights(parent, 10)),
    )
    assert told.optimizer.settings["weight_decay"] == 0
    assert told.stop.on == "none"
    assert Run(made).manifest["config"]["branch"]["step"] == 10
    assert [record["step"] for record in Run(made).metrics] == [10, 15, 20]
    assert np.array_equal(weights(made, 10)["embed.W_E"], weights(parent, 10)["embed.W_E"])
    assert not np.array_equal(weights(made)["embed.W_E"], weights(parent)["embed.W_E"])


def test_a_branch_off_any_saved_step_and_off_step_0(parent, tmp_path):
    (snapshot,) = [step for step in Run(parent).snapshots if step not in (0, 10, 20)][:1]
    begin = branch.prepare(parent, snapshot)
    assert not begin.kept  # the model alone was saved there
    assert begin.config.first_step == snapshot
    bare = train(tiny({"steps": 20}), tmp_path / "bare").run
    assert Run(bare).snapshots == [10, 20]
    first = branch.prepare(bare, 0)
    fresh = train(tiny({"steps": 0}), tmp_path / "fresh").run
    assert branch.digest(flatten(first.state.params)) == branch.digest(weights(fresh, 0))


@pytest.mark.parametrize("engine", ["numpy", "jax"])
def test_frozen_tensors_stay_to_the_last_bit_and_the_others_go_as_they_must(engine, parent, tmp_path):
    made = branch.branch(parent, 10, {"engine": engine}, freeze=["embed", "blocks.*.mlp.W_*"], out=tmp_path / "b").run
    held = {"embed.W_E", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"}
    before, after = weights(made, 10), weights(made)
    assert {name for name in before if np.array_equal(before[name], after[name])} == held
    assert all(np.array_equal(before[name], weights(parent, 10)[name]) for name in before)


def test_freezing_undoes_an_update_and_nothing_else():
    """One step: what is not frozen moves as if nothing were."""
    params = map_tree(lambda x: x.astype(np.float32), decoder_only.init(subject().objective.model, 0))
    moved = map_tree(lambda x: x * np.float32(0.9) + np.float32(0.1), params)
    rule = optimizers.make("frozen", "projection", tensors="embed.*, *.W_[QK]")
    found = flatten(rule.project(moved, rule.init(params)))
    for name, x in found.items():
        frozen = name == "embed.W_E" or name.endswith(("W_Q", "W_K"))
        assert np.array_equal(x, flatten(params if frozen else moved)[name]), name
    with pytest.raises(BadInput, match=r"tensor to freeze 'embde.\*'.*embed.W_E"):
        rule_of_a_typo = optimizers.make("frozen", "projection", tensors="embde.*")
        rule_of_a_typo.init(params)
    with pytest.raises(BadInput, match="frozen needs the tensors"):
        optimizers.make("frozen", "projection", tensors=" ,").init(params)


def test_an_interrupted_branch_goes_on_as_if_nothing_had_been(parent, tmp_path):
    def leave(event):
        if isinstance(event, Advanced) and event.step >= 15:
            signal.raise_signal(signal.SIGTERM)

    how = {"step": 10, "changes": {"steps": 30, "optimizer.lr": 0.003}, "freeze": ["unembed"]}
    whole = branch.branch(parent, **how, out=tmp_path / "whole").run
    cut = branch.branch(parent, **how, out=tmp_path / "cut", callback=leave)
    assert cut.status == "interrupted"
    assert resume(cut.run).step == 30
    assert fingerprint(cut.run) == fingerprint(whole)


def test_a_branch_needs_no_parent_once_it_has_begun(parent, tmp_path):
    """Its first act is a checkpoint of its own; killed before that, it says so."""

    class Killed(BaseException): ...

    def kill(event):
        if isinstance(event, Checkpointed):
            raise Killed

    gone = train(tiny(STEPS), tmp_path / "gone").run
    with pytest.raises(Killed):
        branch.branch(gone, 20, {"steps": 30}, out=tmp_path / "cut", callback=kill)
    gone.rename(tmp_path / "elsewhere")
    assert resume(tmp_path / "cut").step == 30
    begun = branch.prepare(parent, 20, {"steps": 30})
    with pytest.raises(BadInput, match=r"branch of .* off step 20.*onelayer branch"):
        train(begun.config, tmp_path / "anew")
    assert not (tmp_path / "anew").exists()
    with pytest.raises(BadInput, match="off step 20"):
        ensemble.check([begun.config])
    assert resolve(json.loads(begun.config.to_json())) == begun.config


def test_less_data_is_a_part_of_what_there_was(parent, tmp_path):
    made = branch.branch(parent, 20, {"steps": 30, "task.train_fraction": 0.3}, out=tmp_path / "less").run
    old, new = (Run(run).config.task.make(0).facts for run in (parent, made))
    pairs = [{tuple(pair) for pair in facts["train_pairs"].tolist()} for facts in (old, new)]
    assert pairs[1] < pairs[0]
    found = branch.outcome(made)
    s = open_subject(made, 20)
    test = [tuple(pair) for pair in old["test_pairs"].tolist()]
    said = s.logits.argmax(axis=-1)
    assert found["before"]["unseen_accuracy"] == np.mean([said[a, b] == (a + b) % 7 for a, b in test])
    assert (found["from"], found["to"]) == (20, 30)


def test_a_transplant_and_a_scale(parent, tmp_path):
    donor = train(tiny(STEPS, {"seed": 1}), tmp_path / "donor").run
    edits = [branch.transplant(donor, "embed", 10), branch.scale(0.5)]
    begin = branch.prepare(parent, 0, edits=edits)
    state = flatten(begin.state.params)
    assert np.array_equal(state["embed.W_E"], 0.5 * weights(donor, 10)["embed.W_E"])
    assert np.array_equal(state["unembed.W_U"], 0.5 * weights(parent, 0)["unembed.W_U"])
    assert [text.split()[0] for text in begin.config.branch.edits] == ["transplant", "scale"]
    assert not begin.kept
    other = train(tiny({"steps": 0, "model": {"d_model": 16}}), tmp_path / "other").run
    with pytest.raises(BadInput, match=r"cannot transplant embed.W_E \[8, 16\].*\[8, 8\]"):
        branch.prepare(parent, 0, edits=[branch.transplant(other, "embed")])


def test_the_logit_scale_is_held_by_the_temperature(parent):
    begin = branch.prepare(parent, 20, {"steps": 30}, edits=[branch.scale(0.5)], hold_logit_scale=True)
    s = open_subject(parent, 20)

    def spoken(params):
        logits = decoder_only.forward(params, s.task.train.tokens, s.objective.model, read=1)[0]
        return np.sqrt(np.mean((logits - logits.mean(axis=-1, keepdims=True)) ** 2))

    ratio = spoken(map_tree(lambda w: 0.5 * w, s.params)) / spoken(s.params)
    assert begin.config.loss.temperature == pytest.approx(ratio, rel=1e-6)


def test_a_held_norm_is_that_of_the_edited_weights(tmp_path):
    held = {"projections": [{"name": "constant_norm", "scale": 0.8}], "optimizer": {"weight_decay": 0.0}}
    run = train(tiny(STEPS, held), tmp_path / "run").run
    made = branch.branch(run, 20, {"steps": 25}, edits=[branch.scale(0.5)], out=tmp_path / "branch").run
    before, after = Run(run).metrics[-1]["weight_norm"], Run(made).metrics[-1]["weight_norm"]
    assert after == pytest.approx(0.5 * before, rel=1e-6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--step", "11"], ["nothing at step 11", "step 0 is always at hand"]),
        ([], ["a later end", "20", "--steps 40"]),
        (["--steps", "30", "--model.d-model", "16"], ["embed.W_E [8, 16]", "keeps the model"]),
        (["--steps", "30", "--task.p", "11"], ["embed.W_E [12, 8]", "task.p"]),
        (
            ["--steps", "30", "--freeze", "embde"],
            ["part or tensor to freeze 'embde'; did you mean 'embed'", "embed.W_E"],
        ),
        (["--steps", "30", "--transplant", "runs/b"], ["DONOR:WHAT", "runs/b"]),
        (["--steps", "30", "--transplant", "nowhere:embed"], ["nowhere is not a run"]),
        (["--steps", "30", "--scale", "-1"], ["a number above 0"]),
        (["--steps", "30", "--optimiser.lr", "1"], ["unknown option", "--optimizer"]),
        (["--steps", "30", "--optimizer.lr", "-1"], ["optimizer.lr"]),
    ],
)
def test_what_cannot_be_branched_is_refused(words, says, parent, tmp_path, capsys):
    assert cli.run(["branch", str(parent), *words, "--out", str(tmp_path / "b")]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in says), told
    assert not (tmp_path / "b").exists()


def test_a_step_whose_optimizer_state_is_gone_is_no_continuation_and_says_so(tmp_path, capsys):
    """Only the last checkpoints keep the optimizer's state; a control off another step would be a silent change."""
    run = train(tiny({"checkpoint": {"keep": 1, "pinned": "all"}}), tmp_path / "run").run
    assert not (run / "checkpoints" / "step-10" / "optimizer.safetensors").exists()
    last = Run(run).snapshots[-1]
    for at, says in ((last, "nothing: it is the run's own continuation"), (10, "it is not the run's own continuation")):
        out = ["--no-report", "--out", str(tmp_path / f"off-{at}")]
        assert cli.run(["branch", str(run), "--step", str(at), "--steps", str(last + 2), *out]) == 0
        assert says in capsys.readouterr().out


def test_the_command_says_what_was_changed_and_what_became_of_it(parent, tmp_path, capsys):
    words = ["branch", str(parent), "--step", "10", "--set", "optimizer.weight_decay=0", "--freeze", "embed"]
    assert cli.run([*words, "--no-report", "--out", str(tmp_path / "a"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["branch"]["step"] == 10
    assert facts["changed"]["optimizer.weight_decay"] == [1.0, 0.0]
    assert facts["before"].keys() == facts["after"].keys() >= {"test_loss", "train_accuracy"}
    assert cli.run(["report", str(tmp_path / "a")]) == 0
    assert f"began with the weights of {parent} at step 10" in (tmp_path / "a" / "report.html").read_text("utf-8")
    capsys.readouterr()
    assert cli.run(["runs", "compare", str(parent), str(tmp_path / "a"), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out.splitlines()[-1])["differences"]
    assert compared["optimizer.weight_decay"] == [1.0, 0.0]
    assert compared["branch"] == [None, facts["branch"]] or compared["branch.step"] == [None, 10]


# ---------------------------------------------------------------------------------------------------- ablations


def slow_embedding(s, kept) -> np.ndarray:
    """Each number's row as the sum of its waves, one at a time."""
    W = s.params.embed.W_E.copy()
    waves = [row for k in (0, *kept) for row in dft(P)[k]]
    for d in range(W.shape[1]):
        W[:P, d] = sum((row @ s.params.embed.W_E[:P, d]) * row for row in waves)
    p = s.params._replace(embed=s.params.embed._replace(W_E=W))
    found = np.zeros((P, P, P))
    for a in range(P):
        for b in range(P):
            found[a, b] = decoder_only.forward(p, np.array([[a, b, P]]), s.objective.model, read=1)[0][0, 0, :P]
    return found


def slow_neurons(s, kept) -> np.ndarray:
    """The products of waves of a and of b, one at a time, then the rest of the network."""
    N, made = s.neurons, np.zeros_like(s.neurons)
    waves = [row for k in (0, *kept) for row in dft(P)[k]]
    for u in waves:
        for v in waves:
            made += np.outer(u, v)[:, :, None] * np.einsum("a,b,abf->f", u, v, N)
    mlp = s.params.blocks[0].mlp
    out = s.seen["hook_resid_post"] - N @ mlp.W_out + made @ mlp.W_out
    logits = out @ s.params.unembed.W_U
    return (logits + (0 if s.params.unembed.b_U is None else s.params.unembed.b_U))[..., :P]


@pytest.mark.parametrize("keep", [True, False])
def test_ablations_against_loops(keep):
    s = subject()
    cut = [2, 5]
    kept = cut if keep else [1, 3, 4, 6]
    assert np.allclose(interventions.ablate(s, "embedding", cut, keep), slow_embedding(s, kept), atol=1e-10, rtol=0)
    assert np.allclose(interventions.ablate(s, "neurons", cut, keep), slow_neurons(s, kept), atol=1e-10, rtol=0)
    keyed = replace(s, keys=(2, 5))
    slow = losses.restricted_loss(keyed) if keep else losses.excluded_loss(keyed)
    chosen = np.ones((P, P), bool) if keep else s.train
    assert abs(losses.cross_entropy(interventions.ablate(s, "logits", cut, keep), s.right, chosen) - slow) < 1e-10


@pytest.mark.parametrize("place", interventions.ABLATED)
def test_a_network_built_by_hand_lives_by_its_frequencies(place):
    s = by_hand()
    rows = {row["what"]: row for row in interventions.ablations(s, where=[place], each=True)}
    assert rows["whole network"]["test_accuracy"] == 1
    assert rows["alone"]["test_accuracy"] == rows["2 others removed"]["test_accuracy"] == 1
    assert rows["alone"]["test_loss"] == pytest.approx(rows["whole network"]["test_loss"], abs=1e-9)
    assert rows["removed"]["test_loss"] == pytest.approx(np.log(P), abs=1e-9)
    assert rows["2 others alone"]["train_loss"] == pytest.approx(np.log(P), abs=1e-9)
    assert {f"{k} {what}" for k in CHOSEN for what in ("removed", "alone")} < rows.keys()


def test_rescaling_a_network_built_by_hand():
    """Its attention is a step and its neurons are of the second degree: a norm α makes logits of another size alone."""
    s = by_hand()
    found = interventions.rescale(s, norms=(0.9, 1.0, 1.2), scales=(0.001, 0.01, 0.05))
    assert found["share"]["test"]["scale"] == pytest.approx(1, abs=1e-9)
    assert sum(found["share"]["train"].values()) == pytest.approx(1)
    one = next(c for c in found["cells"] if (c["norm"], c["scale"]) == (1.0, 0.01))
    assert one["test_loss"] == pytest.approx(losses.cross_entropy(0.01 * s.logits, s.right, s.test), rel=1e-9)
    whole = {c["norm"]: c["unheld_scale"] for c in found["cells"]}
    # (embedding, W_V, W_O: α³; W_in: α⁴, squared α⁸; W_out α⁹, W_U α¹⁰)
    assert whole[1.2] == pytest.approx(1.2**10)


def test_the_shares_of_a_table_against_loops():
    T = np.random.default_rng(0).normal(size=(3, 4))
    mean = sum(T[i, j] for i in range(3) for j in range(4)) / 12
    total = sum((T[i, j] - mean) ** 2 for i in range(3) for j in range(4)) / 12
    scale = sum((sum(T[i, j] for i in range(3)) / 3 - mean) ** 2 for j in range(4)) / 4
    norm = sum((sum(T[i, j] for j in range(4)) / 4 - mean) ** 2 for i in range(3)) / 3
    found = interventions.shares(T)
    assert abs(found["scale"] - scale / total) < 1e-12
    assert abs(found["norm"] - norm / total) < 1e-12


def test_circles_are_the_key_waves_and_nothing_else(parent, monkeypatch):
    donor = by_hand()
    noise = np.random.default_rng(0).normal(size=(P, donor.params.embed.W_E.shape[1]))
    W = donor.params.embed.W_E.copy()
    W[:P] += 1e-3 * noise  # waves of every frequency
    donor = replace(donor, params=donor.params._replace(embed=donor.params.embed._replace(W_E=W)))
    monkeypatch.setattr(interventions, "open_subject", lambda path, step: donor)
    edit = interventions.circles("donor", 5)
    own = np.random.default_rng(1).normal(size=W.shape)
    given = edit.apply({"embed.W_E": own, "x": own}, None)
    waves = np.concatenate([dft(P)[k] for k in (0, *CHOSEN)])
    assert np.allclose(given["embed.W_E"][:P], waves.T @ (waves @ W[:P]), atol=1e-12)
    assert np.array_equal(given["embed.W_E"][P], own[P])
    assert given["x"] is own
    assert "circles 2, 6" in edit.text


def test_the_commands_that_train_nothing(parent, tmp_path, capsys):
    assert cli.run(["ablate", str(parent), "--frequencies", "1,3", "--where", "logits", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["what"] for row in rows] == ["whole network", "removed", "alone", "1 other removed", "1 other alone"]
    assert cli.run(["rescale", str(parent), "--norm", "1", "--norm", "2", "--scale", "1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [c["norm"] for c in facts["cells"]] == [1, 2]
    assert cli.run(["ablate", str(parent), "--frequencies", "2", "--each"]) == 0
    assert cli.run(["rescale", str(parent)]) == 0
    capsys.readouterr()
    for words, says in (
        (["ablate", parent, "--frequencies", "1,4"], "its frequencies are 1 to 3"),
        (["ablate", parent, "--frequencies", "x"], "no frequency x; its frequencies are 1 to 3"),
        (["rescale", parent, "--norm", "0"], "above 0"),
        (["ablate", parent, "--step", "11", "--frequencies", "1"], "nearest saved steps"),
    ):
        assert cli.run(list(map(str, words))) == 2
        assert says in capsys.readouterr().err
    squares = train(tiny({"steps": 1, "task": {"operation": "x**2 + y**2"}}), tmp_path / "squares").run
    assert cli.run(["ablate", str(squares)]) == 2
    assert "no Fourier basis" in capsys.readouterr().err
    assert cli.run(["rescale", str(squares), "--norm", "1", "--scale", "1"]) == 0
