// A heat map of one view's value or gradient: a strip of cells for each position (and head), folded to the width.
//
// Pointing at a cell, or moving to it with the arrow keys, tells `onPoint` which one it is; a click or Enter holds it.

import { colour, inkColour, scale, usual } from "microscope/colours";
import { format, symbol } from "microscope/formulas";
import { position } from "microscope/numbers";

const GUTTER = 64; // pixels for the labels of the strips
const GAP = 5; // between strips
const WIDTHS = [128, 64, 48, 32, 24, 16, 8];

export class HeatMap {
  constructor(numbers, name, side, act) {
    Object.assign(this, { numbers, name, side, act, view: numbers.views.get(name), pointed: null });
    this.element = document.createElement("figure");
    this.element.className = "map";
    this.element.dataset.view = name;
    this.element.dataset.side = side;
    this.element.classList.toggle("alone", !this.view.value);
    this.caption = document.createElement("figcaption");
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.element.append(this.caption, this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerdown", (event) => this.hover(event, true));
    this.canvas.addEventListener("pointerleave", () => act.leave());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("focus", () => this.pointed || this.canvas.matches(":focus-visible") && this.point(0, 0, false));
  }

  // What is shown: strips of cells; `fixed` is the part of the index that is the same along a strip.
  strips(head) {
    const { view } = this;
    const letter = position(view);
    const rows = Array.from({ length: view.shape[view.axes.indexOf(letter)] }, (_, i) => view.first + i);
    if (!view.axes.includes("h")) return rows.map((row) => ({ fixed: { [letter]: row } }));
    const heads = this.numbers.size(this.name, "h");
    const all = view.axes.endsWith("s") && heads * rows.length <= 12;
    const shown = all ? Array.from({ length: heads }, (_, h) => h) : [head];
    return shown.flatMap((h) => rows.map((row) => ({ fixed: { h, [letter]: row } })));
  }

  // Read apart from all drawing, which would make the browser lay out the page again for each map.
  measure() {
    this.width = this.element.clientWidth;
    this.drawn = null;
  }

  // What the picture hangs on: as long as it is the same, nothing is drawn again.
  signature(state) {
    const { view } = this;
    const reads = state.reads.filter((from) => from.name === this.name && from.side === this.side).map((from) => from.index);
    const head = view.axes.includes("h") ? state.head : 0;
    const places = [state.place[view.stack], view.sources === undefined ? 0 : state.place[view.sources]];
    return JSON.stringify([state.step, this.numbers.example, this.numbers.token, head, places, this.pointed, reads]);
  }

  draw(state) {
    const { view, canvas, width } = this;
    const signature = this.signature(state);
    if (!width || this.drawn === signature) return;
    this.drawn = signature;
    this.state = state;
    const last = view.axes.at(-1);
    const cells = view.shape.at(-1);
    const room = width - GUTTER - 2;
    this.columns = cells * 8 <= room ? cells : WIDTHS.find((n) => n * 8 <= room && n < cells) ?? 8;
    const named = last === "s";
    this.cell = Math.min(Math.floor(room / this.columns), named ? 88 : 14);
    this.tall = named ? 24 : Math.min(this.cell, 12);
    this.folds = Math.ceil(cells / this.columns);
    this.top = named ? 20 : 2;
    this.shown = this.strips(state.head);
    const each = this.folds * this.tall + (named ? 2 : GAP);
    const height = this.top + this.shown.length * each + 2;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
    }
    const values = this.shown.map((strip) => this.numbers.row(this.name, this.side, strip.fixed));
    const flat = values.flat();
    const here = this.pointed ? this.numbers.read(this.name, this.side, this.pointed) : usual(flat);
    const { largest, of } = scale(flat, here);
    this.describe(largest);

    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    this.shown.forEach((strip, i) => {
      strip.y = this.top + i * each;
      this.label(pen, strip, i);
      values[i].forEach((x, j) => {
        const { x: left, y } = this.place(strip, j);
        pen.fillStyle = colour(of(x));
        pen.fillRect(left, y, this.cell - 1, this.tall - 1);
        const number = named && this.cell >= 44 ? format(x) : "";
        if (number && pen.measureText(number).width <= this.cell - 4) {
          pen.fillStyle = Math.abs(of(x)) > 0.6 && x < 0 ? "#ffffff" : Math.abs(of(x)) > 0.6 ? "#111111" : inkColour();
          pen.textAlign = "center";
          pen.fillText(number, left + this.cell / 2, y + this.tall / 2);
        }
      });
      pen.strokeStyle = inkColour();
      pen.globalAlpha = 0.25;
      pen.strokeRect(GUTTER - 0.5, strip.y - 0.5, this.columns * this.cell, this.folds * this.tall);
      pen.globalAlpha = 1;
    });
    if (named) this.heading(pen, cells);
    this.mark(pen, state);
  }

  describe(largest) {
    const word = symbol(this.numbers, this.name, this.side);
    const gradient = this.side === "gradient";
    const label = gradient ? `gradient of: ${this.view.label}` : this.view.label;
    const across = this.name.includes("cross_attn") ? " (cross-attention)" : "";
    const short = (gradient && this.view.value ? "gradient" : this.view.label) + across;
    const told = `${word} ${largest}`;
    if (told === this.described) return;
    this.described = told;
    this.caption.replaceChildren(text("strong", word), text("span", short), text("small", `largest ${format(largest)}`));
    this.caption.title = this.name;
    this.canvas.setAttribute("aria-label", `${label} (${this.name}). Arrow keys move from cell to cell, Enter holds one.`);
  }

  // Names in front of a strip, and, in maps of sources, above the columns.
  label(pen, strip, i) {
    const { view } = this;
    const letter = position(view);
    const tokens = this.numbers.tokens(view.stack);
    const token = tokens[strip.fixed[letter]];
    const several = new Set(this.shown.map((one) => one.fixed[letter])).size > 1;
    const headed = "h" in strip.fixed && view.axes.endsWith("s");
    const words = headed ? (several ? `${strip.fixed.h} · ${token}` : `head ${strip.fixed.h}`) : token;
    const chosen = strip.fixed[letter] === this.state.place[view.stack] || (headed && strip.fixed.h === this.state.head);
    pen.fillStyle = inkColour();
    pen.textAlign = "right";
    pen.font = `${chosen ? "bold " : ""}12px system-ui, sans-serif`;
    pen.fillText(fitted(pen, words, GUTTER - 10), GUTTER - 7, strip.y + Math.min(this.folds * this.tall, 24) / 2);
    pen.font = "12px system-ui, sans-serif";
  }

  heading(pen, cells) {
    const tokens = this.numbers.tokens(this.view.sources);
    pen.textAlign = "center";
    pen.fillStyle = inkColour();
    for (let s = 0; s < cells; s++) {
      if (this.cell < 18 && s % Math.ceil(18 / this.cell)) continue;
      pen.font = `${s === this.state.place[this.view.sources] ? "bold " : ""}12px system-ui, sans-serif`;
      pen.fillText(fitted(pen, tokens[s], Math.max(this.cell - 4, 16)), GUTTER + (s + 0.5) * this.cell, 10);
    }
  }

  // Outlines: the cell pointed at, and those that its formula reads.
  mark(pen, state) {
    pen.strokeStyle = inkColour();
    const outline = (index, width, dash) => {
      const box = this.box(index);
      if (!box) return;
      pen.lineWidth = width;
      pen.setLineDash(dash);
      pen.strokeRect(box.x - 0.5, box.y - 0.5, this.cell, this.tall);
      pen.setLineDash([]);
    };
    for (const from of state.reads) if (from.name === this.name && from.side === this.side) outline(from.index, 1.5, [3, 2]);
    if (this.pointed) outline(this.pointed, 2, []);
  }

  place(strip, j) {
    return { x: GUTTER + (j % this.columns) * this.cell, y: strip.y + Math.floor(j / this.columns) * this.tall };
  }

  // Where a cell lies on the canvas; null where its head is not shown.
  box(index) {
    const strip = this.shown?.find(({ fixed }) => Object.entries(fixed).every(([letter, i]) => index[letter] === i));
    return strip ? this.place(strip, index[this.view.axes.at(-1)]) : null;
  }

  // The middle of a cell on the screen, and half its size.
  centre(index) {
    const box = this.box(index);
    if (!box || !this.canvas.offsetParent) return null;
    const frame = this.canvas.getBoundingClientRect();
    return { x: frame.left + box.x + this.cell / 2, y: frame.top + box.y + this.tall / 2, half: { x: this.cell / 2, y: this.tall / 2 } };
  }

  hover(event, hold = false) {
    const frame = this.canvas.getBoundingClientRect();
    const x = event.clientX - frame.left - GUTTER;
    const y = event.clientY - frame.top;
    const i = this.shown.findLastIndex((strip) => y >= strip.y);
    if (i < 0 || x < 0 || x >= this.columns * this.cell) return;
    const fold = Math.floor((y - this.shown[i].y) / this.tall);
    if (fold >= this.folds) return;
    const j = fold * this.columns + Math.floor(x / this.cell);
    if (j < this.view.shape.at(-1)) this.point(i, j, hold);
  }

  point(i, j, hold) {
    const index = { ...this.shown[i].fixed, [this.view.axes.at(-1)]: j };
    this.act.point(this, index, hold);
  }

  key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (this.pointed) this.act.point(this, this.pointed, true);
    }
    if (!step || !this.shown) return;
    event.preventDefault();
    const cells = this.view.shape.at(-1);
    const index = this.pointed ?? { ...this.shown[0].fixed, [this.view.axes.at(-1)]: 0 };
    let i = Math.max(0, this.shown.findIndex(({ fixed }) => Object.entries(fixed).every(([letter, k]) => index[letter] === k)));
    let j = index[this.view.axes.at(-1)] + step[1] + step[0] * this.columns;
    if (step[0] && (j < 0 || j >= cells)) {
      i += step[0];
      j = ((j + this.folds * this.columns) % this.columns) + (step[0] < 0 ? (this.folds - 1) * this.columns : 0);
    }
    if (i < 0 || i >= this.shown.length || j < 0) return;
    this.act.free();
    this.point(i, Math.min(j, cells - 1), false);
  }
}

export function text(tag, words, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = words;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function fitted(pen, words, width) {
  let short = words;
  while (short.length > 1 && pen.measureText(short).width > width) short = `${short.slice(0, -2)}…`;
  return short;
}
