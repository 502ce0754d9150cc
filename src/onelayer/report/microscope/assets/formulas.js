// What a cell is made of: for every kind of rule its formula, with the numbers that stand in it now.
//
// explain(numbers, name, side, index) -> {value, formula, live, rows, left}
//   rows   {label, value, factors, from}: a term (or, where `adds` is false, an operand) and the cell it is read from
//   left   {label, value}: what the rows shown leave of a sum

export function explain(numbers, name, side, index) {
  const view = numbers.views.get(name);
  const rule = view[side];
  const value = numbers.read(name, side, index);
  const found = KINDS[rule.kind]({ numbers, view, rule, side, index, value });
  const told = { live: "", rows: [], left: [], adds: false, ...found, value };
  return told.adds ? summed(told, rule.rest) : told;
}

// ------------------------------------------------------------------------------------------------ numbers as text

export function format(x, digits = 4) {
  if (x === 0) return "0";
  if (!Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  const text = size < 1e-3 || size >= 1e5 ? x.toExponential(digits - 1) : x.toPrecision(digits);
  return text.replaceAll("-", "−");
}

const factor = (x) => (x < 0 ? `(${format(x)})` : format(x));
const minus = (x, digits) => (x < 0 ? `+ ${format(-x, digits)}` : `− ${format(x, digits)}`);

// a − b with as many more digits as cancel; float32 has seven.
function difference(a, b) {
  const lost = a === b ? 0 : Math.log10(Math.max(Math.abs(a), Math.abs(b)) / Math.abs(a - b));
  const digits = Math.min(7, 4 + Math.max(0, Math.floor(lost)));
  return `${format(a, digits)} ${minus(b, digits)}`;
}
const plus = (x) => (x < 0 ? `− ${format(-x)}` : `+ ${format(x)}`);
const sum = (list) => list.reduce((total, x) => total + x, 0);
const mean = (list) => sum(list) / list.length;

const SHOWN = 6;

// The largest terms, the others as one, and what is left of the value where that is more than rounding.
function summed(told, rest) {
  const all = told.rows.toSorted((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const rows = all.length > SHOWN + 1 ? all.slice(0, SHOWN) : all;
  const shown = sum(rows.map((row) => row.value));
  const known = told.count ? told.value : sum(all.map((row) => row.value));
  const hidden = (told.count ?? all.length) - rows.length;
  const left = [];
  if (hidden) left.push({ label: `${hidden} more`, value: known - shown });
  const size = Math.max(Math.abs(told.value), ...all.map((row) => Math.abs(row.value)));
  if (Math.abs(told.value - known) > 1e-4 * size) left.push({ label: rest || "the rest", value: told.value - known });
  const terms = [...rows, ...left].map((row) => row.value);
  const live = terms.length <= 4 ? terms.map((x, i) => (i ? plus(x) : format(x))).join(" ") : "";
  return { ...told, rows, left, live };
}

// ------------------------------------------------------------------------------------------------ kinds

const KINDS = {
  lookup: () => ({ formula: "a number of the table W_E, in the row of this token" }),

  given: () => ({ formula: "not taken apart here; `onelayer explain` does" }),

  same: ({ numbers, rule, index, value }) => {
    const [name, side] = rule.of;
    const row = operand(numbers, name, side, index, symbol(numbers, name, side));
    return { formula: rule.loose ? `${row.label}, ${rule.why}` : `= ${row.label}: ${rule.why}`, rows: [row], value };
  },

  sum: ({ numbers, rule, index }) => {
    const rows = rule.of.map(([name, side], i) =>
      operand(numbers, name, side, index, rule.names?.[i] ?? symbol(numbers, name, side)),
    );
    const others = rule.rest ? ` + ${rule.rest}` : "";
    return { formula: `= ${rows.map((row) => row.label).join(" + ")}${others}`, rows, adds: true };
  },

  terms: ({ numbers, view, rule, index, value }) => {
    const flat = numbers.flat(view, index);
    const starts = numbers.start(rule, rule.terms);
    const rows = starts.map((at, i) => ({ label: rule.labels[i], value: numbers.number(at + flat) }));
    rows.push({ label: rule.labels.at(-1), value: value - sum(rows.map((row) => row.value)) });
    return { formula: rule.text, rows, adds: true };
  },

  top: ({ numbers, view, rule, index }) => {
    const [name, side] = rule.left;
    const last = numbers.views.get(name).axes.at(-1);
    const flat = numbers.flat(view, index) * rule.keep;
    const [indices, weights] = numbers.start(rule, rule.top);
    const rows = Array.from({ length: rule.keep }, (_, i) => {
      const from = { name, side, index: { ...index, [last]: numbers.index(indices + flat + i) } };
      const x = numbers.read(name, side, from.index);
      const w = numbers.number(weights + flat + i);
      return product([x, w], from, `${symbol(numbers, name, side)}[${where(numbers, last, from.index)}] · ${rule.weight}`);
    });
    const term = `${symbol(numbers, name, side)} ${rule.weight}${side === "gradient" ? "ᵀ" : ""}`;
    return { formula: `= Σ over ${rule.length} of ${term}`, rows, adds: true, count: rule.length };
  },

  scores: ({ numbers, rule, index: { h, t, s } }) => {
    const K = numbers.about.model.head_width;
    const rows = numbers.row(rule.q, "value", { h, t }).map((q, k) => {
      const from = { name: rule.q, side: "value", index: { h, t, k } };
      return product([q, numbers.read(rule.k, "value", { h, s, k }), 1 / Math.sqrt(K)], from, `q[${k}] · k[${k}]`, {
        name: rule.k, side: "value", index: { h, s, k },
      });
    });
    return { formula: `scores = q · k / √${K}${rule.rest ? ` + ${rule.rest}` : ""}`, rows, adds: true };
  },

  softmax: ({ numbers, rule, index: { h, t, s }, value, view }) => {
    const scores = numbers.row(rule.scores, "value", { h, t });
    const open = scores.map((_, i) => numbers.read(view.name, "value", { h, t, s: i }) > 0);
    const top = Math.max(...scores.filter((_, i) => open[i]));
    const total = sum(scores.map((x, i) => (open[i] ? Math.exp(x - top) : 0)));
    const rows = scores.map((_, i) => ({
      ...operand(numbers, rule.scores, "value", { h, t, s: i }, `score of ${where(numbers, "s", { s: i }, view.sources)}`),
      dimmed: !open[i],
    }));
    const live = value > 0 ? `e^(${difference(scores[s], top)}) / ${format(total)}` : "0: it may not be looked at, or far too small";
    return { formula: "A = e^(score − m) / Σ e^(score − m),   m the largest score", live, rows };
  },

  mix: ({ numbers, view, rule, index: { h, t, k } }) => {
    const rows = numbers.row(rule.pattern, "value", { h, t }).map((A, s) => {
      const from = { name: rule.v, side: "value", index: { h, s, k } };
      const label = `A · v of ${where(numbers, "s", { s }, view.sources)}`;
      return product([A, numbers.read(rule.v, "value", from.index)], from, label, { name: rule.pattern, side: "value", index: { h, t, s } });
    });
    return { formula: "z = Σ over sources of A v", rows, adds: true };
  },

  act: ({ numbers, rule, index }) => {
    const row = operand(numbers, rule.pre, "value", index, "pre");
    const relu = rule.activation === "relu";
    return {
      formula: relu ? "neuron = max(0, pre)" : `neuron = ${rule.activation}(pre)`,
      live: relu ? `max(0, ${format(row.value)})` : `${rule.activation}(${format(row.value)})`,
      rows: [row],
    };
  },

  loss: ({ numbers, index, view, value }) => {
    const { shares, wanted, growth, weight, read } = judged(numbers, index, view);
    const tau = numbers.about.loss.temperature;
    const target = read.target === index.v;
    const stable = numbers.about.loss.variant === "stablemax";
    const rows = [
      operand(numbers, "logits", "value", index, "logit"),
      { label: stable ? "P = s(logit) / Σ s" : "P = e^logit / Σ e^logit", value: shares },
      { label: target ? "q: this is the answer" : "q: this is not the answer", value: wanted },
      ...(weight === 1 ? [] : [{ label: "w, this position's share of the loss", value: weight }]),
      ...(stable ? [{ label: "s′/s", value: growth }] : []),
    ];
    const factors = [...(weight === 1 ? [] : [format(weight)]), ...(stable ? [format(growth)] : [])];
    const live = value === 0 && !read.counted ? "0: this position is not judged here"
      : `${factors.map((x) => `${x} × `).join("")}(${difference(shares, wanted)})${tau === 1 ? "" : ` / ${tau}`}`;
    return { formula: `∂logit = ${weight === 1 ? "" : "w "}${stable ? "s′/s " : ""}(P − q)${tau === 1 ? "" : " / τ"}`, live, rows };
  },

  dscores: ({ numbers, rule, index: { h, t, s } }) => {
    const A = numbers.row(rule.pattern, "value", { h, t });
    const dA = numbers.row(rule.pattern, "gradient", { h, t });
    const average = sum(A.map((a, i) => a * dA[i]));
    const rows = [
      operand(numbers, rule.pattern, "value", { h, t, s }, "A"),
      operand(numbers, rule.pattern, "gradient", { h, t, s }, "∂A"),
      { label: "Σ A ∂A over the row", value: average },
    ];
    return { formula: "∂scores = A (∂A − Σ A ∂A)", live: `${format(A[s])} × (${difference(dA[s], average)})`, rows };
  },

  dpattern: ({ numbers, rule, index: { h, t, s } }) => {
    const rows = numbers.row(rule.z, "gradient", { h, t }).map((dz, k) => {
      const from = { name: rule.z, side: "gradient", index: { h, t, k } };
      return product([dz, numbers.read(rule.v, "value", { h, s, k })], from, `∂z[${k}] · v[${k}]`);
    });
    return { formula: "∂A = Σ over features of ∂z v", rows, adds: true };
  },

  dq: ({ numbers, rule, index: { h, t, k } }) => {
    const K = numbers.about.model.head_width;
    const sources = numbers.views.get(rule.scores).sources;
    const rows = numbers.row(rule.scores, "gradient", { h, t }).map((d, s) => {
      const from = { name: rule.scores, side: "gradient", index: { h, t, s } };
      const label = `∂score · k of ${where(numbers, "s", { s }, sources)}`;
      return product([d, numbers.read(rule.k, "value", { h, s, k }), 1 / Math.sqrt(K)], from, label);
    });
    return { formula: `∂q = Σ over sources of ∂scores k / √${K}`, rows, adds: true };
  },

  dk: ({ numbers, rule, index: { h, s, k } }) => {
    const K = numbers.about.model.head_width;
    const rows = numbers.positions(rule.scores).map((t) => {
      const from = { name: rule.scores, side: "gradient", index: { h, t, s } };
      const label = `∂score · q of ${where(numbers, "t", { t }, numbers.views.get(rule.scores).stack)}`;
      return product([numbers.read(from.name, "gradient", from.index), numbers.read(rule.q, "value", { h, t, k }), 1 / Math.sqrt(K)], from, label);
    });
    return { formula: `∂k = Σ over queries of ∂scores q / √${K}`, rows, adds: true };
  },

  dv: ({ numbers, rule, index: { h, s, k } }) => {
    const rows = numbers.positions(rule.z).map((t) => {
      const from = { name: rule.z, side: "gradient", index: { h, t, k } };
      const label = `A · ∂z of ${where(numbers, "t", { t }, numbers.views.get(rule.z).stack)}`;
      return product([numbers.read(rule.pattern, "value", { h, t, s }), numbers.read(from.name, "gradient", from.index)], from, label);
    });
    return { formula: "∂v = Σ over queries of A ∂z", rows, adds: true };
  },

  act_back: ({ numbers, rule, index, value }) => {
    const pre = operand(numbers, rule.pre, "value", index, "pre");
    const row = operand(numbers, rule.post, "gradient", index, "∂neuron");
    const relu = rule.activation === "relu";
    const slope = relu ? Number(pre.value > 0) : row.value ? value / row.value : NaN;
    const named = relu ? "[pre > 0]" : `${rule.activation}′(pre)`;
    return { formula: `∂pre = ${named} ∂neuron`, live: `${format(slope)} × ${factor(row.value)}`, rows: [row, pre] };
  },

  norm: ({ numbers, rule, index }) => {
    const { centre, x, r, average } = normed(numbers, rule, index.t);
    const g = numbers.number(rule.weights.gain + index.d);
    const b = centre ? numbers.number(rule.weights.bias + index.d) : 0;
    const rows = [
      ...rule.of.map((name) => operand(numbers, name, "value", index, `${rule.of.length > 1 ? "of x: " : "x: "}${symbol(numbers, name, "value")}`)),
      ...(centre ? [{ label: "mean x", value: average }] : []),
      { label: centre ? "r = 1 / standard deviation" : "r = 1 / root mean square", value: r },
      { label: "gain g", value: g },
      ...(centre ? [{ label: "bias b", value: b }] : []),
    ];
    const inner = centre ? `(${difference(x[index.d], average)}) ${plus(b)}` : factor(x[index.d]);
    return { formula: centre ? "y = g r (x − mean x) + b" : "y = g r x", live: `${format(g)} × ${format(r)} × ${inner}`, rows };
  },

  norm_back: ({ numbers, rule, index }) => {
    const { centre, x, r, average } = normed(numbers, rule, index.t);
    const hat = x.map((v) => r * (v - average));
    const dhat = numbers.row(rule.dy, "gradient", index).map((dy, d) => dy * numbers.number(rule.weights.gain + d));
    const shift = centre ? mean(dhat) : 0;
    const stretch = mean(dhat.map((d, i) => d * hat[i]));
    const d = index.d;
    const rows = [
      operand(numbers, rule.dy, "gradient", index, "∂y"),
      { label: "∂x̂ = g ∂y", value: dhat[d] },
      ...(centre ? [{ label: "mean ∂x̂", value: shift }] : []),
      { label: "x̂", value: hat[d] },
      { label: "mean (x̂ ∂x̂)", value: stretch },
      { label: "r", value: r },
    ];
    return {
      formula: centre ? "∂x = r (∂x̂ − mean ∂x̂ − x̂ mean(x̂ ∂x̂))" : "∂x = r (∂x̂ − x̂ mean(x̂ ∂x̂))",
      live: `${format(r)} × (${format(dhat[d])}${centre ? ` ${minus(shift)}` : ""} − ${factor(hat[d])} × ${factor(stretch)})`,
      rows,
    };
  },
};

// ------------------------------------------------------------------------------------------------ parts of kinds

const operand = (numbers, name, side, index, label) => ({
  label, value: numbers.read(name, side, index), from: { name, side, index },
});

// A term that is a product; factors of 1/√K are not spelt out.
function product(factors, from, label, also) {
  return { label, value: factors.reduce((a, b) => a * b, 1), factors: factors.slice(0, 2).map(factor).join(" × "), from, also };
}

function normed(numbers, rule, t) {
  const centre = numbers.about.model.norm_kind === "layer";
  const columns = rule.of.map((name) => numbers.row(name, "value", { t }));
  const x = columns[0].map((_, d) => sum(columns.map((column) => column[d])));
  const average = centre ? mean(x) : 0;
  const r = 1 / Math.sqrt(mean(x.map((v) => (v - average) ** 2)) + numbers.about.model.norm_eps);
  return { centre, x, average, r };
}

// P, q, w and s′/s of one logit.
function judged(numbers, index, view) {
  const { variant, smoothing, never, temperature } = numbers.about.loss;
  const z = numbers.row("logits", "value", { t: index.t }).map((x) => x / temperature);
  const top = Math.max(...z);
  const s = variant === "stablemax" ? z.map((x) => (x >= 0 ? x + 1 : 1 / (1 - x))) : z.map((x) => Math.exp(x - top));
  const example = numbers.about.examples[numbers.example];
  const r = index.t - view.first;
  const target = example.targets[r];
  const allowed = z.length - (never === null ? 0 : 1);
  const spread = smoothing && index.v !== never ? smoothing / allowed : 0;
  const counted = numbers.token === 0 || numbers.token === 1 + r;
  return {
    shares: s[index.v] / sum(s),
    wanted: (1 - smoothing) * Number(target === index.v) + spread,
    growth: z[index.v] >= 0 ? 1 / s[index.v] : s[index.v],
    weight: example.weights[r],
    read: { target, counted },
  };
}

// ------------------------------------------------------------------------------------------------ names

const SYMBOLS = {
  hook_embed: "W_E[token]", hook_resid_pre: "x", hook_attn_out: "attention", hook_resid_mid: "mid",
  hook_cross_out: "cross-attention", hook_resid_cross: "met", hook_mlp_out: "feed-forward", hook_resid_post: "post",
  hook_q: "q", hook_k: "k", hook_v: "v", hook_z: "z", hook_rot_q: "q′", hook_rot_k: "k′",
  hook_attn_scores: "scores", hook_pattern: "A", hook_pre: "pre", hook_post: "neuron",
  hook_normalized: "norm(x)", logits: "logit", route_mlp: "mid, by the feed-forward", route_cross: "mid, by cross-attention",
};

export function symbol(numbers, name, side) {
  const plain = SYMBOLS[name.split(".").at(-1)] ?? name;
  return side === "gradient" ? `∂${plain}` : plain;
}

// An index in words: a token at its position, a word of the vocabulary, a number.
export function where(numbers, letter, index, stack = "") {
  const i = index[letter];
  if (letter === "v") return `“${numbers.about.vocabulary[i]}”`;
  if (letter !== "t" && letter !== "s") return letter === "h" ? `head ${i}` : String(i);
  const tokens = numbers.tokens(stack);
  const repeated = tokens.filter((token) => token === tokens[i]).length > 1;
  return `“${tokens[i]}”${repeated ? ` at ${i}` : ""}`;
}

export function title(numbers, name, side, index) {
  const view = numbers.views.get(name);
  const words = [...view.axes].map((letter) => {
    if (letter === "s" && view.axes.includes("t")) return `looking at ${where(numbers, "s", index, view.sources)}`;
    if (letter === "t" || letter === "s") return `at ${where(numbers, letter, index, view.stack)}`;
    return letter === "h" ? `head ${index.h}` : letter === "v" ? `for ${where(numbers, "v", index)}` : `${letter} = ${index[letter]}`;
  });
  return `${symbol(numbers, name, side)}, ${words.join(", ")}`;
}
