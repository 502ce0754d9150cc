// Draws matrices cell by cell, tokens at their sides, and lets the matrices of an equation point at each other.

const darkness = matchMedia("(prefers-color-scheme: dark)");
const CIVIDIS = ["#00204d", "#31446b", "#666870", "#958f78", "#cbba69", "#ffea46"];
const SIGNED = {
  light: ["#002b49", "#0072b2", "#ffffff", "#e69f00", "#6b3a00"],
  dark: ["#b8e2ff", "#2f8fc9", "#16181c", "#c98b00", "#ffe9b0"],
};
const TOKEN = 19; // pixels for a row or a column that stands for a token, at least
const LARGE = [360, 32]; // of a map that stands alone: pixels for all its tokens, and for one, at most
const NOTHING = [128, 128, 128, 90];
const packed = JSON.parse(document.getElementById("numbers").textContent); // each array once, in base64
const drawn = []; // every matrix, for when the page turns dark or light

// ------------------------------------------------------------------------------------------------ numbers

function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

export function format(x) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  return (size < 1e-3 || size >= 1e5 ? x.toExponential(3) : x.toPrecision(4)).replaceAll("-", "−");
}

const graphemes = new Intl.Segmenter(); // what is read as one character

// ------------------------------------------------------------------------------------------------ colours

function scale(stops) {
  const parsed = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return (share) => {
    const at = Math.max(0, Math.min(1, share)) * (parsed.length - 1);
    const below = Math.min(Math.floor(at), parsed.length - 2);
    return parsed[below].map((from, c) => from + (at - below) * (parsed[below + 1][c] - from));
  };
}

// ------------------------------------------------------------------------------------------------ one matrix

export class Matrix {
  constructor(about) {
    Object.assign(this, about);
    [this.height, this.width] = about.shape;
    this.values = numbers(packed[about.values]);
    this.largest = this.values.reduce((most, x) => (Math.abs(x) > most ? Math.abs(x) : most), 0); // NaN: nothing is there
    this.element = make("div", "cells");
    this.canvas = make("canvas");
    this.bands = ["row", "column"].map((way) => Object.assign(make("i", `band ${way}`), { hidden: true }));
    const frame = make("div", "frame");
    frame.append(this.canvas, ...this.bands);
    this.element.append(this.labels("columns"), this.labels("rows"), frame);
    this.canvas.setAttribute("role", "img");
    const range = this.amounts ? "shares from 0 to 1" : `values up to ${format(this.largest)} in size`;
    this.canvas.setAttribute("aria-label", `${this.name}: ${this.height} × ${this.width}, ${range}`);
    drawn.push(this);
  }

  labels(side) {
    const words = this[side];
    const list = make("div", `tokens ${side}`);
    if (!words) return list;
    list.append(
      ...words.map((word, i) => {
        const label = make("span", this.mark[side === "rows" ? 0 : 1] === i ? "marked" : "");
        label.classList.toggle("turned", side === "columns" && [...graphemes.segment(word)].length > 1);
        const inner = make("bdi");
        inner.textContent = word;
        label.append(inner);
        return label;
      }),
    );
    return list;
  }

  // As large as it may be in `room` pixels; what stands for tokens is never smaller than its labels.
  draw(room) {
    const { canvas, height, width } = this;
    const token = this.large ? Math.max(TOKEN, Math.min(LARGE[1], Math.floor(LARGE[0] / Math.max(height, width)))) : TOKEN;
    this.element.style.setProperty("--token", `${token}px`);
    this.down = this.rows ? token : this.small ? pitch(width) : pitch(height) * (height > 8 ? 0.6 : 1);
    this.across = this.columns ? token : Math.min(pitch(width), Math.max(0.5, (room - (this.rows ? 90 : 2)) / width));
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * this.across), Math.round(height * this.down)];
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    canvas.style.width = `${w}px`;
    canvas.style.height = `${h}px`;
    const small = new OffscreenCanvas(width, height);
    const image = new ImageData(width, height);
    const of = this.amounts ? scale(CIVIDIS) : scale(SIGNED[darkness.matches ? "dark" : "light"]);
    this.values.forEach((x, i) => {
      const share = this.amounts ? x : (1 + x / (this.largest || 1)) / 2;
      image.data.set(Number.isNaN(x) ? NOTHING : [...of(share), 255], 4 * i);
    });
    small.getContext("2d").putImageData(image, 0, 0);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = this.across * ratio < 1; // narrower than a pixel: neighbours are averaged
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    pen.lineWidth = 1.5 * ratio;
    const [row, column] = this.mark;
    const [a, d] = [this.across * ratio, this.down * ratio];
    if (row !== null && column !== null) pen.strokeRect(column * a + 1, row * d + 1, a - 2, d - 2);
    else if (row !== null && height > 1) pen.strokeRect(1, row * d + 1, canvas.width - 2, d - 2);
    else if (column !== null && width > 1) pen.strokeRect(column * a + 1, 1, a - 2, canvas.height - 2);
  }

  // The cell under a pointer.
  cell(event) {
    const frame = this.canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - frame.top) / this.down);
    const column = Math.floor((event.clientX - frame.left) / this.across);
    return row >= 0 && column >= 0 && row < this.height && column < this.width ? [row, column] : null;
  }

  // Show which row and which column are meant; null for none.
  band(row, column) {
    const [across, down] = this.bands;
    across.hidden = row === null;
    down.hidden = column === null;
    Object.assign(across.style, { top: `${row * this.down}px`, height: `${Math.max(this.down, 2)}px` });
    Object.assign(down.style, { left: `${column * this.across}px`, width: `${Math.max(this.across, 2)}px` });
  }

  said([row, column]) {
    const word = (labels, i) => (labels ? `“${labels[i]}”` : i);
    const at = [this.height > 1 ? word(this.rows, row) : null, word(this.columns, column)].filter((x) => x !== null);
    const x = this.values[row * this.width + column];
    return `${this.name}[${at.join(", ")}]${Number.isNaN(x) ? ": not allowed" : ` = ${format(x)}`}`;
  }
}

const pitch = (n) => (n <= 8 ? 14 : n <= 16 ? 11 : n <= 32 ? 7 : n <= 64 ? 4.5 : n <= 160 ? 3 : n <= 320 ? 2 : 1);

// ------------------------------------------------------------------------------------------------ equations

function equation(place) {
  const output = place.querySelector("output");
  const matrices = [...place.querySelectorAll("figure.matrix")].map((figure) => {
    const matrix = new Matrix(JSON.parse(figure.querySelector("script").textContent));
    figure.append(matrix.element);
    return matrix;
  });
  listen(matrices, output);
  return matrices;
}

// Pointing at a cell of one marks, in all, the rows and columns whose axis has the same letter.
function listen(matrices, output) {
  for (const matrix of matrices) {
    const show = (event) => {
      const at = matrix.cell(event);
      if (!at) return hide();
      output.textContent = matrix.said(at);
      const where = { [matrix.axes[1]]: at[1], [matrix.axes[0]]: at[0] };
      for (const other of matrices) {
        const [row, column] = [...other.axes].map((axis) => where[axis] ?? null);
        other.band(other.height > 1 ? row : null, column);
      }
    };
    const hide = () => {
      output.textContent = "";
      matrices.forEach((other) => other.band(null, null));
    };
    matrix.canvas.addEventListener("pointermove", show);
    matrix.canvas.addEventListener("pointerdown", show);
    matrix.canvas.addEventListener("pointerleave", hide);
    hide();
  }
}

// ------------------------------------------------------------------------------------------------ galleries

// Small pictures to choose from; the chosen one large, with its tokens.
function gallery(place) {
  const matrices = JSON.parse(place.querySelector("script").textContent);
  const list = make("div", "choices");
  const large = make("div", "large");
  const output = make("output");
  const buttons = Object.entries(matrices).map(([name, about]) => {
    const small = new Matrix({ ...about, rows: null, columns: null, mark: [null, null], small: true });
    const button = make("button");
    button.type = "button";
    button.append(small.element, name);
    button.addEventListener("click", () => choose(button, name, about));
    list.append(button);
    return button;
  });
  place.append(list, large, output);
  let shown = null;
  const choose = (button, name, about) => {
    buttons.forEach((one) => one.setAttribute("aria-pressed", String(one === button)));
    if (shown) drawn.splice(drawn.indexOf(shown), 1);
    shown = new Matrix({ ...about, name, large: true });
    large.replaceChildren(shown.element);
    shown.draw(place.clientWidth);
    listen([shown], output);
  };
  choose(buttons[0], ...Object.entries(matrices)[0]);
}

// ------------------------------------------------------------------------------------------------ the page

function make(tag, name = "") {
  return Object.assign(document.createElement(tag), name ? { className: name } : {});
}

const room = () => document.querySelector("main").clientWidth;
for (const place of document.querySelectorAll(".equation")) equation(place);
for (const place of document.querySelectorAll(".gallery")) gallery(place);
const all = () => drawn.forEach((matrix) => matrix.draw(room()));
all();
darkness.addEventListener("change", all);
let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(all, 150);
});
document.documentElement.dataset.matrices = "drawn";
