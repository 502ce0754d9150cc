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
    const beside = Math.abs(point.y - to.y) <= to.half.y; // then it goes in an arch over what is between
    const [leave, arrive] = beside ? [-1, 1] : [Math.sign(to.y - point.y), Math.sign(to.y - point.y)];
    const [x0, y0] = [point.x - frame.left, point.y - frame.top + leave * point.half.y];
    const [x1, y1] = [to.x - frame.left, to.y - frame.top - arrive * to.half.y];
    const bend = beside ? 28 : Math.max(30, Math.abs(y1 - y0) / 3);
    const d = `M${x0} ${y0}C${x0} ${y0 + leave * bend} ${x1} ${y1 - arrive * bend} ${x1} ${y1}`;
    group.append(shape("path", { d, class: `arrow ${side}`, "marker-end": "url(#tip)" }));
  }
}
