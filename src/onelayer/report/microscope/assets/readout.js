// The panel that says what a cell is made of, and the arrows from what it was made of.

import { format } from "microscope/formulas";
import { text } from "microscope/map";
import { shape } from "microscope/ribbons";

const ARROWS = 8;

// told: what `explain` answers; go: called with the cell that a row was read from.
export function show(panel, heading, told, held, go) {
  const number = text("output", `= ${format(told.value)}`, { "data-value": told.value, title: String(told.value) });
  const largest = Math.max(...told.rows.map((row) => Math.abs(row.value)), 1e-300);
  const body = [...told.rows.map((row) => line(row, told.adds, largest, go)), ...told.left.map((row) => line(row, true, largest))];
  const table = text("table", "");
  table.append(...body);
  const note = text("p", held ? "Held. Escape, or a click outside, lets go." : "A click holds it.", { class: "note" });
  panel.className = "";
  panel.replaceChildren(
    text("h2", heading), text("p", told.formula, { class: "formula" }),
    ...(told.live ? [text("p", `= ${told.live}`, { class: "live" })] : []),
    number, ...(body.length ? [table] : []), note,
  );
}

function line(row, adds, largest, go) {
  const line = text("tr", "");
  if (row.dimmed) line.className = "dimmed";
  const label = text("td", "");
  label.append(row.from && go ? button(row, go) : text("span", row.label));
  if (row.factors) label.append(text("small", row.factors));
  const value = text("td", format(row.value), { class: "number", title: String(row.value) });
  line.append(label, value);
  if (adds) {
    const bar = text("td", "", { class: "bar" });
    const fill = text("i", "", { class: row.value < 0 ? "negative" : "positive" });
    fill.style.width = `${Math.min(100, (100 * Math.abs(row.value)) / largest)}%`;
    bar.append(fill);
    line.append(bar);
  }
  return line;
}

function button(row, go) {
  const button = text("button", row.label, { type: "button", title: "Look at this one" });
  button.addEventListener("click", () => go(row.from));
  return button;
}

// From each cell that a formula reads to the cell that it makes: with the forward pass for values, against it for
// gradients, which are dashed.
export function arrows(layer, from, to, side) {
  const group = layer.querySelector("g");
  group.replaceChildren();
  if (!to) return;
  const frame = layer.getBoundingClientRect();
  for (const point of from.slice(0, ARROWS)) {
    const [x0, y0] = [point.x - frame.left, point.y - frame.top];
    const beside = Math.abs(point.y - to.y) <= to.half.y; // then it ends at the side, otherwise above or below
    const [across, down] = beside ? [Math.sign(to.x - point.x), 0] : [0, Math.sign(to.y - point.y)];
    const [x1, y1] = [to.x - frame.left - across * to.half.x, to.y - frame.top - down * to.half.y];
    const bend = Math.max(30, Math.abs(y1 - y0) / 3);
    const d = `M${x0} ${y0}C${x0 + across * bend} ${y0 + down * bend} ${x1 - across * bend} ${y1 - down * bend} ${x1} ${y1}`;
    group.append(shape("path", { d, class: `arrow ${side}`, "marker-end": "url(#tip)" }));
  }
}
