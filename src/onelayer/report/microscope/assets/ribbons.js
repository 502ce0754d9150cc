// The routes by which gradient comes to a block's input, as ribbons from the loss to the tokens.
//
// A ribbon is as wide as its part's length ‖part‖ (a share of the sum of all lengths); orange where it points along the
// whole gradient at its token, blue where against, pale where across.

import { colour } from "microscope/colours";
import { format } from "microscope/formulas";

const SVG = "http://www.w3.org/2000/svg";
const NODE = 12; // pixels, the width of a node
const GAP = 4; // between nodes of a column
const LINE = 13; // between names of nodes

export class Ribbons {
  constructor(numbers, act) {
    Object.assign(this, { numbers, act, at: -1 });
    this.element = shape("svg", { role: "application", tabindex: 0, class: "ribbons" });
    this.element.setAttribute("aria-label", "Routes of the gradient. Arrow keys go from ribbon to ribbon, the widest first.");
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("pointerleave", () => act.leave());
  }

  // One number for each route and position: its length, and its product with the whole gradient there.
  flows(block) {
    const [norms, products] = block.at[block.at.length > 1 ? this.numbers.token : 0];
    const count = block.positions;
    const square = Array.from({ length: count }, () => 0);
    const flows = block.labels.flatMap((stages, r) =>
      Array.from({ length: count }, (_, s) => {
        const flow = { path: ["loss", ...stages, `@${s}`], norm: this.numbers.number(norms + r * count + s),
                       product: this.numbers.number(products + r * count + s), s };
        square[s] += flow.product; // the products of all routes add up to ‖gradient‖²
        return flow;
      }),
    );
    return { flows, whole: square.map((x) => Math.sqrt(Math.max(0, x))) };
  }

  measure() {
    this.width = this.element.parentElement.clientWidth;
    this.drawnFor = null;
  }

  draw(state, block) {
    const { width } = this;
    const { step, head, place, route } = state;
    const words = route ? `${route.c}${route.from}${route.to}` : "";
    const signature = JSON.stringify([block?.scope, step, this.numbers.example, this.numbers.token, head, place, words]);
    if (!width || !block || this.drawnFor === signature) return;
    this.drawnFor = signature;
    this.state = state;
    this.block = block;
    const { flows, whole } = this.flows(block);
    const total = flows.reduce((sum, flow) => sum + flow.norm, 0);
    const columns = flows[0].path.map((_, c) => [...new Set(flows.map((flow) => flow.path[c]))]);
    const most = Math.max(...columns.map((names) => names.length));
    const height = Math.max(280, most * 24);
    const unit = total ? (height - 24 - GAP * (most - 1)) / total : 0;
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.element.style.height = `${height}px`;

    const margin = { left: 4, right: 58 };
    const across = (width - margin.left - margin.right - NODE) / (columns.length - 1);
    const nodes = columns.map((names, c) => {
      const sizes = names.map((name) => sumOf(flows.filter((flow) => flow.path[c] === name)));
      const used = sizes.reduce((a, b) => a + b, 0) * unit;
      const gap = names.length > 1 ? Math.min(GAP * 6, (height - 24 - used) / (names.length - 1)) : 0;
      let y = 12 + (height - 24 - used - gap * (names.length - 1)) / 2;
      return new Map(names.map((name, i) => {
        const node = { x: margin.left + c * across, y, height: sizes[i] * unit, share: total ? sizes[i] / total : 0, out: y, into: y };
        y += node.height + gap;
        return [name, node];
      }));
    });

    for (const column of nodes) spaced([...column.values()], height);
    this.wide = across > 120;

    this.links = [];
    for (let c = 0; c + 1 < columns.length; c++)
      for (const from of columns[c])
        for (const to of columns[c + 1]) {
          const part = flows.filter((flow) => flow.path[c] === from && flow.path[c + 1] === to);
          const norm = sumOf(part);
          if (!norm) continue;
          const product = part.reduce((sum, flow) => sum + flow.product, 0);
          const most = part.reduce((sum, flow) => sum + flow.norm * whole[flow.s], 0);
          const [a, b] = [nodes[c].get(from), nodes[c + 1].get(to)];
          const thick = norm * unit;
          const path = ribbon(a.x + NODE, a.out, b.x, b.into, thick);
          a.out += thick;
          b.into += thick;
          this.links.push({ c, from, to, norm, product, cosine: most ? product / most : 0, path, share: norm / total, part });
        }
    this.whole = whole;
    this.element.classList.toggle("picked", Boolean(state.route));
    this.element.replaceChildren(...this.links.map((link) => this.drawn(link)), ...columns.flatMap((names, c) =>
      names.flatMap((name) => this.node(nodes[c].get(name), name, c, columns.length))));
  }

  drawn(link) {
    const path = shape("path", { d: link.path, fill: colour(strong(link.cosine)), class: "ribbon" });
    path.classList.toggle("chosen", this.same(link));
    path.dataset.route = `${link.from}>${link.to}`;
    path.dataset.norm = link.norm;
    path.append(named(`${this.words(link)}: ${format(100 * link.share)} % of all lengths`));
    path.addEventListener("pointerenter", () => this.point(link, false));
    path.addEventListener("pointerdown", () => this.point(link, true));
    return path;
  }

  node(node, name, c, columns) {
    const bar = shape("rect", { x: node.x, y: node.y, width: NODE, height: Math.max(node.height, 1), class: "node" });
    const words = this.label(name);
    const share = this.wide && c > 0 && c < columns - 2 ? ` ${Math.round(100 * node.share)} %` : "";
    const chosen = name.slice(1) === String(this.state.head) && /^[QKV]/.test(name) || name === `@${this.state.place[this.block.stack]}`;
    const label = shape("text", { x: node.x + NODE + 4, y: node.label, class: chosen ? "chosen" : "" });
    label.textContent = c === columns - 1 && words.length > 7 ? `${words.slice(0, 6)}…` : words + share;
    label.append(named(words));
    return [bar, label];
  }

  label(name) {
    if (!name.startsWith("@")) return { mlp: "feed-forward" }[name] ?? name;
    return this.numbers.tokens(this.block.stack)[Number(name.slice(1))];
  }

  words(link) {
    return `${this.label(link.from)} → ${this.label(link.to)}`;
  }

  same(link) {
    const route = this.state.route;
    return Boolean(route && route.c === link.c && route.from === link.from && route.to === link.to);
  }

  point(link, hold) {
    this.at = this.links.indexOf(link);
    this.act.route(link, hold, this.explained(link));
  }

  // The same shape as a cell's explanation.
  explained(link) {
    const square = this.whole.reduce((sum, x) => sum + x * x, 0);
    const rows = [
      { label: "share of all lengths", value: link.share },
      { label: "alignment: cosine with the whole gradient", value: link.cosine },
      { label: "share of the gradient: ⟨part, ∂x⟩ / ‖∂x‖²", value: square ? link.product / square : 0 },
    ];
    if (link.part.length > 1 && link.part.length <= 12)
      rows.push(...link.part.toSorted((a, b) => b.norm - a.norm).map((flow) => ({
        label: `of it: ${flow.path.slice(1).map((name) => this.label(name)).join(" → ")}`, value: flow.norm,
      })));
    return {
      value: link.norm, formula: "Σ ‖part‖ over the routes and tokens in this ribbon", live: "", rows, left: [], adds: false,
    };
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !this.links.length) return;
    event.preventDefault();
    const order = this.links.toSorted((a, b) => a.c - b.c || b.norm - a.norm);
    const now = order.indexOf(this.links[this.at]);
    this.act.free();
    this.point(order[(now + step + order.length) % order.length], false);
  }
}

const sumOf = (flows) => flows.reduce((sum, flow) => sum + flow.norm, 0);

// Pale colours are hard to tell: a cosine of 0.3 is already clearly coloured; zero stays grey by its outline.
const strong = (cosine) => Math.sign(cosine) * Math.sqrt(Math.abs(cosine));

// Where the names of a column's nodes stand: at their middles, but never closer than a line of text.
function spaced(nodes, height) {
  let last = -Infinity;
  for (const node of nodes) last = node.label = Math.max(node.y + node.height / 2, last + LINE);
  let next = height + LINE / 2;
  for (const node of nodes.toReversed()) next = node.label = Math.min(node.label, next - LINE);
}

function ribbon(x0, y0, x1, y1, thick) {
  const middle = (x0 + x1) / 2;
  return `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}V${y1 + thick}C${middle} ${y1 + thick} ${middle} ${y0 + thick} ${x0} ${y0 + thick}Z`;
}

function named(words) {
  const title = shape("title");
  title.textContent = words;
  return title;
}

export function shape(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
