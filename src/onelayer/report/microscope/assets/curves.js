// The losses over training, above the slider: where in the run the checkpoint stands that is shown.

import { shape } from "microscope/ribbons";

const HEIGHT = 116;
const LEFT = 44;

export class Curves {
  constructor(about, act) {
    Object.assign(this, { about, act });
    this.element = shape("svg", { class: "curves", role: "img", "aria-label": "Loss over training, with the checkpoints that can be shown" });
    this.element.addEventListener("pointerdown", (event) => {
      const x = event.clientX - this.element.getBoundingClientRect().left;
      const gaps = this.about.steps.map(({ step }) => Math.abs(this.x(step) - x));
      act.step(gaps.indexOf(Math.min(...gaps)));
    });
  }

  draw(now) {
    const { curves, steps } = this.about;
    const width = this.element.parentElement.clientWidth;
    const last = Math.max(...curves.step, ...steps.map(({ step }) => step), 1);
    const lines = ["train_loss", "test_loss"].filter((name) => curves[name]);
    const found = lines.flatMap((name) => curves[name]).filter((y) => y > 0);
    this.element.parentElement.hidden = !found.length;
    if (!found.length || !width) return;
    const [low, high] = [Math.log10(Math.min(...found)), Math.log10(Math.max(...found))];
    const right = width - 78;
    this.x = (step) => LEFT + ((right - LEFT) * Math.log1p(step)) / Math.log1p(last);
    const y = (loss) => HEIGHT - 28 - ((HEIGHT - 38) * (Math.log10(loss) - low)) / Math.max(high - low, 1e-9);
    this.element.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.element.style.height = `${HEIGHT}px`;
    const drawn = [];
    for (let power = Math.ceil(low); power <= high; power++) drawn.push(...tick(power, y(10 ** power), right));
    const ends = [];
    for (const name of lines) {
      const points = curves.step.map((step, i) => [step, curves[name][i]]).filter(([, loss]) => loss > 0);
      const d = points.map(([step, loss], i) => `${i ? "L" : "M"}${this.x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
      drawn.push(shape("path", { d, class: `line ${name}` }));
      ends.push([name, y(points.at(-1)[1])]);
    }
    if (ends.length === 2 && Math.abs(ends[0][1] - ends[1][1]) < 15) {
      const middle = (ends[0][1] + ends[1][1]) / 2;
      const above = ends[0][1] < ends[1][1] ? -8 : 8;
      [ends[0][1], ends[1][1]] = [middle + above, middle - above];
    }
    for (const [name, height] of ends) drawn.push(words(right + 6, height + 4, name.replace("_", " "), name));
    steps.forEach(({ step }, i) => drawn.push(shape("circle", { cx: this.x(step), cy: HEIGHT - 20, r: i === now ? 6 : 3, class: i === now ? "dot now" : "dot" })));
    drawn.push(shape("line", { x1: this.x(steps[now].step), x2: this.x(steps[now].step), y1: 4, y2: HEIGHT - 26, class: "now" }));
    drawn.push(words(LEFT - 4, HEIGHT - 3, "0"), words(right, HEIGHT - 3, `step ${last}`, "end"));
    this.element.replaceChildren(...drawn);
  }
}

function tick(power, y, right) {
  const label = power < -3 || power > 3 ? `1e${power}`.replace("-", "−") : String(10 ** power);
  return [shape("line", { x1: LEFT, x2: right, y1: y, y2: y, class: "grid" }), words(LEFT - 6, y + 4, label, "end")];
}

function words(x, y, label, kind = "") {
  const element = shape("text", { x, y, class: kind });
  element.textContent = label;
  return element;
}
