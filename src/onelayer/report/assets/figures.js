// Draws every figure of the page, in the light or the dark template, and lets figures over the same axis zoom together.

import { load } from "onelayer/plotly";

const templates = JSON.parse(document.getElementById("templates").textContent);
const darkness = matchMedia("(prefers-color-scheme: dark)");
const template = () => (darkness.matches ? templates.dark : templates.light);
const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
const config = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover" };
let following = false; // a zoom is being handed on
const plots = [...document.querySelectorAll(".plot")];

const Plotly = await load();
for (const plot of plots) {
  const { data, layout } = JSON.parse(plot.querySelector("script").textContent);
  if (touch) layout.dragmode = false;
  await Plotly.newPlot(plot, data, { ...layout, template: template() }, config);
  plot.style.minHeight = "";
  if (layout.meta?.axis) plot.on("plotly_relayout", (change) => follow(plot, change));
  await new Promise((resume) => setTimeout(resume)); // let the page paint between two figures
}
darkness.addEventListener("change", () => plots.forEach((plot) => Plotly.relayout(plot, { template: template() })));
document.documentElement.dataset.figures = "drawn";

// The horizontal range of `plot` has changed: give it to every figure whose layout.meta.axis says the same.
async function follow(plot, change) {
  const range = Object.fromEntries(Object.entries(change).filter(([key]) => key.startsWith("xaxis.")));
  if (following || !Object.keys(range).length) return;
  following = true;
  const others = plots.filter((other) => other !== plot && other.layout?.meta?.axis === plot.layout.meta.axis);
  await Promise.all(others.map((other) => Plotly.relayout(other, range)));
  following = false;
}
