// The page: one selection (checkpoint, example, part of the loss, block, head, position, route, cell), and all views of it.

import { readTheme } from "microscope/colours";
import { Curves } from "microscope/curves";
import { explain, title } from "microscope/formulas";
import { HeatMap, text } from "microscope/map";
import { Numbers, position } from "microscope/numbers";
import { arrows, show } from "microscope/readout";
import { Ribbons } from "microscope/ribbons";

const about = JSON.parse(document.getElementById("about").textContent);
const numbers = new Numbers(about);
const panel = document.getElementById("readout");
const layer = document.getElementById("arrows");
const hint = panel.innerHTML;
const blocks = [...new Set(about.views.map((view) => view.name.match(/^(\w+\.)?blocks\.\d+/)?.[0]).filter(Boolean))];
const state = {
  step: about.steps.length - 1, head: 0, block: blocks.at(-1), place: {}, route: null,
  map: null, index: null, held: false, reads: [],
};

// ------------------------------------------------------------------------------------------------ what is pointed at

const act = {
  point(map, index, hold) {
    if (state.held && !hold) return;
    const again = state.held && hold && state.map === map && JSON.stringify(state.index) === JSON.stringify(index);
    select(map, index, hold && !again);
  },
  route(link, hold, told) {
    if (state.held && !hold) return;
    forget();
    state.held = hold;
    state.route = link;
    const end = /^([QKV])(\d+)$/.exec(link.to) ?? /^([QKV])(\d+)$/.exec(link.from);
    if (end) state.head = Number(end[2]);
    if (link.to.startsWith("@")) state.place[ribbons.block.stack] = Number(link.to.slice(1));
    show(panel, ribbons.words(link), told, hold);
    draw();
  },
  leave() {},
  free() {
    state.held = false;
  },
  step(i) {
    slider.value = i;
    slider.dispatchEvent(new Event("input"));
  },
};

function select(map, index, held) {
  forget();
  Object.assign(state, { map, index, held, route: null });
  map.pointed = index;
  if ("h" in index) state.head = index.h;
  const { view } = map;
  state.place[view.stack] = index[position(view)];
  if ("s" in index && "t" in index) state.place[view.sources] = index.s;
  tell();
  draw();
}

function forget() {
  if (state.map) state.map.pointed = null;
  Object.assign(state, { map: null, index: null, reads: [], held: false });
}

// What the cell is made of, with the numbers of now.
function tell() {
  const { map, index } = state;
  if (!map) return;
  const told = explain(numbers, map.name, map.side, index);
  state.reads = told.rows.flatMap((row) => [row.from, row.also]).filter(Boolean);
  show(panel, title(numbers, map.name, map.side, index), told, state.held, go);
}

function go(from) {
  const map = maps.find((one) => one.name === from.name && one.side === from.side);
  if (!map) return;
  if ("h" in from.index) state.head = from.index.h;
  map.draw(state);
  select(map, from.index, true);
  map.canvas.scrollIntoView({ block: "nearest" });
}

// ------------------------------------------------------------------------------------------------ views

const PARTS = {
  attention: ["Where it looks, and where the loss wants it to look", "One row a head (and a position that asks); one column a token that is looked at. Beside the pattern stands the gradient of the scores: orange, the loss falls if this place is looked at less; blue, if more."],
  head: ["Inside the head", "Queries, keys, values and their mixture z, of the head that is chosen; a row of cells for each token."],
  stream: ["The residual stream", "What each position carries from sublayer to sublayer, and what the loss asks of it."],
  "feed-forward": ["The feed-forward network", "A cell a neuron."],
  output: ["The output", "A cell a word of the vocabulary: what is said, and how the loss would have it changed."],
};
const main = document.getElementById("views");
const maps = about.views.flatMap((view) => ["value", "gradient"].filter((side) => view[side]).map((side) => new HeatMap(numbers, view.name, side, act)));
const ribbons = new Ribbons(numbers, act);
document.getElementById("routes").append(ribbons.element);
const curves = new Curves(about, act);
document.getElementById("curves").append(curves.element);

function lay() {
  main.replaceChildren();
  for (const [part, [heading, words]] of Object.entries(PARTS)) {
    const own = maps.filter((map) => map.view.part === part && shown(map));
    if (!own.length) continue;
    const section = text("section", "", { id: `part-${part}` });
    const grid = text("div", "", { class: "maps" });
    grid.append(...ordered(own, part).map((map) => map.element));
    section.append(text("h2", heading), text("p", words), grid);
    main.append(section);
  }
  measure();
}

// What is in the block that is chosen, and what is in none: its stack's embedding, and the output.
function shown(map) {
  const stack = state.block.slice(0, state.block.indexOf("blocks."));
  if (/blocks\.\d/.test(map.name)) return map.name.startsWith(`${state.block}.`);
  return map.name === "logits" || map.view.stack === stack;
}

function measure() {
  document.getElementById("routes").parentElement.hidden = !about.routes.some((routes) => routes.scope === state.block);
  for (const part of [ribbons, ...maps]) part.measure();
}

// The pattern beside the gradient of the scores, for those look at each other; otherwise a value beside its gradient.
function ordered(own, part) {
  if (part !== "attention") return own;
  const rank = (map) => (map.name.endsWith("pattern") ? { value: 0, gradient: 3 } : { value: 2, gradient: 1 })[map.side];
  const attention = (map) => map.name.slice(0, map.name.lastIndexOf("."));
  return own.toSorted((a, b) => attention(a).localeCompare(attention(b)) || rank(a) - rank(b));
}

function draw() {
  const block = about.routes.find((routes) => routes.scope === state.block);
  ribbons.draw(state, block);
  for (const map of maps) if (map.element.isConnected) map.draw(state);
  for (const [name, control] of Object.entries(controls)) control.value = { example: numbers.example, loss: numbers.token, block: state.block, head: state.head }[name];
  point();
}

function point() {
  const { map, index } = state;
  const from = state.reads.map((one) => maps.find((other) => other.name === one.name && other.side === one.side && other.element.isConnected)?.centre(one.index)).filter(Boolean);
  arrows(layer, from, map?.centre(index), map?.side);
}

// ------------------------------------------------------------------------------------------------ controls

const controls = {};
const slider = document.getElementById("step");
const said = document.getElementById("said");

function choice(name, options, change) {
  const select = document.getElementById(name);
  select.replaceChildren(...options.map(([value, words]) => text("option", words, { value })));
  select.closest("label").hidden = options.length < 2;
  select.addEventListener("change", () => {
    change(select.value);
    tell();
    draw();
  });
  controls[name] = select;
}

const question = (example) => (example.source ? `${example.source.join(" ")} → ` : "") + example.tokens.join(" ");
choice("example", about.examples.map((example, i) => [i, `${question(example)} · ${example.split} ${example.index}`]), (value) => {
  numbers.example = Number(value);
  report();
});
const first = about.views.at(-1).first;
const losses = about.read === 1 ? [[0, "all"]] : [[0, "all positions"], ...Array.from({ length: about.read }, (_, r) => [r + 1, `position ${first + r}`])];
choice("loss", losses, (value) => (numbers.token = Number(value)));
choice("block", blocks.map((name) => [name, name]), (value) => {
  state.block = value;
  forget();
  idle();
  lay();
});
choice("head", Array.from({ length: about.model.n_heads }, (_, h) => [h, String(h)]), (value) => {
  state.head = Number(value);
  if (state.map && "h" in state.index) state.index = state.map.pointed = { ...state.index, h: state.head };
});

slider.max = about.steps.length - 1;
slider.value = state.step;
slider.addEventListener("input", () => showStep(Number(slider.value)));

async function showStep(step) {
  if (!(await numbers.show(step))) return;
  state.step = step;
  slider.setAttribute("aria-valuetext", `step ${about.steps[step].step}`);
  document.getElementById("at").textContent = about.steps[step].step;
  curves.draw(step);
  report();
  tell();
  draw();
  document.documentElement.dataset.step = about.steps[step].step;
}

// What the model says to the example, and what that costs.
function report() {
  const example = about.examples[numbers.example];
  const view = numbers.views.get("logits");
  const answers = example.targets.map((target, r) => {
    const logits = numbers.row("logits", "value", { t: view.first + r });
    const top = logits.indexOf(Math.max(...logits));
    return { right: top === target, word: about.vocabulary[top], wanted: about.vocabulary[target] };
  });
  const loss = about.steps[state.step].loss[numbers.example];
  const words = answers.every((answer) => answer.right)
    ? `right: ${answers.map((answer) => answer.word).join(" ")}`
    : `wrong: ${answers.map((answer) => answer.word).join(" ")}, not ${answers.map((answer) => answer.wanted).join(" ")}`;
  said.textContent = `${words} · loss ${loss.toPrecision(3)}`;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") release();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest("canvas, .ribbon, aside, header, select, input")) release();
});

function idle() {
  panel.innerHTML = hint;
  panel.className = "idle";
}

function release() {
  forget();
  state.route = null;
  idle();
  draw();
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
darkness.addEventListener("change", () => {
  readTheme();
  measure();
  draw();
});
let waiting = 0;
new ResizeObserver(() => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => {
    if (!numbers.block) return;
    measure();
    curves.draw(state.step);
    draw();
  });
}).observe(main);

readTheme();
lay();
await showStep(state.step);
document.documentElement.dataset.drawn = "yes";
