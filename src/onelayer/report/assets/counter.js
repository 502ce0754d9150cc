// A slider over positions; at each, every lamp is as bright as its row's number there (0 dark, 1 bright).

for (const counter of document.querySelectorAll(".counter")) {
  const rows = Object.entries(JSON.parse(counter.querySelector("script").textContent));
  const last = rows[0][1].length - 1;

  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: last, step: 1, value: 0 });
  const position = document.createElement("output");
  const label = document.createElement("label");
  label.append("position", slider, position);
  counter.append(label);

  const lit = rows.map(([name, table]) => {
    const row = element("div", "row");
    const lamps = element("div", "lamps");
    lamps.append(...table[0].map(() => element("span", "lamp")));
    row.append(name, lamps);
    counter.append(row);
    return { table, name, lamps };
  });

  const show = () => {
    const t = Number(slider.value);
    position.textContent = t;
    for (const { table, name, lamps } of lit) {
      table[t].forEach((light, i) => lamps.children[i].style.setProperty("--light", light));
      lamps.setAttribute("role", "img");
      lamps.setAttribute("aria-label", `${name} at position ${t}: ${table[t].join(", ")}`);
    }
  };
  slider.addEventListener("input", show);
  show();
}

function element(tag, name) {
  return Object.assign(document.createElement(tag), { className: name });
}
