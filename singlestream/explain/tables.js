// Small heat tables: one cell a layer and head, and how alike heads are.

// `values` [layers][heads]; darker is more. `choose(layer, head)` where a cell can be chosen.
function heatTable(name, values, choose) {
  const all = values.flat(), low = Math.min(...all), high = Math.max(...all);
  const cell = (value, layer, head) => {
    const share = (value - low) / (high - low || 1);
    const label = `${name}, layer ${layer + 1}, head ${head + 1}: ${value.toPrecision(3)}`;
    const node = element(choose ? "button" : "span", { class: "cell", title: label,
      type: choose ? "button" : null, "data-layer": layer, "data-head": head, "aria-label": label,
      onclick: () => choose && choose(layer, head) }, values[0].length > 6 ? "" : short(value));
    node.style.setProperty("--share", share.toFixed(3));
    return node;
  };
  const grid = element("div", { class: "heat" }, values.map((row, layer) =>
    [element("span", { class: "layer" }, `${layer + 1}`), row.map((value, head) => cell(value, layer, head))]));
  grid.style.gridTemplateColumns = `max-content repeat(${values[0].length}, minmax(0, 1fr))`;
  return element("div", { class: "table" }, element("h3", {}, name), grid, element("p", { class: "soft range" }, `${short(low)} to ${short(high)}`));
}

function short(value) {
  return Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}

// How alike any two heads attend; rows and columns go through the heads of a layer, layer by layer.
function similarityMatrix(name, values, heads) {
  const size = values.length, canvas = element("canvas", { width: size, height: size, role: "img", "aria-label": `how alike heads attend: ${name}` });
  const pen = canvas.getContext("2d"), readout = element("p", { class: "readout soft" });
  values.forEach((row, i) => row.forEach((value, j) => {
    pen.fillStyle = `rgb(31 95 214 / ${Math.max(value, 0).toFixed(3)})`;
    pen.fillRect(j, i, 1, 1);
  }));
  const said = (i) => `layer ${Math.floor(i / heads) + 1}, head ${i % heads + 1}`;
  const apart = values.flatMap((row, i) => row.slice(0, i).map((value, j) => ({ value, i, j })));
  const most = apart.reduce((a, b) => b.value > a.value ? b : a, { value: 0, i: 0, j: 0 });
  const calm = apart.length ? `Most alike: ${said(most.i)} and ${said(most.j)}, ${most.value.toFixed(2)}.` : "";
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (v, start, length) => Math.min(Math.max(Math.floor((v - start) / length * size), 0), size - 1);
    const i = at(event.clientY, box.top, box.height), j = at(event.clientX, box.left, box.width);
    readout.textContent = `${said(i)} and ${said(j)}: ${values[i][j].toFixed(2)}.`;
  });
  canvas.addEventListener("pointerleave", () => { readout.textContent = calm; });
  readout.textContent = calm;
  return element("div", { class: "table similarity" }, element("h3", {}, name === "self" ? "all heads" : `heads of ${name.replaceAll("_", " ")}`), canvas, readout);
}
