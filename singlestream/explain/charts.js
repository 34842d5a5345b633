"use strict";
// Elements, numbers and the diagrams. All text goes in as text nodes.

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function vector(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function percent(value, digits = 1) {
  return (100 * value).toFixed(digits) + "%";
}

function interval(share) {
  return (100 * share.low).toFixed(1) + " – " + percent(share.high);
}

const SERIES = [
  { key: "model", name: "the model", colour: "var(--model)", shape: "dot" },
  { key: "no_image", name: "the model, picture taken away", colour: "var(--nopicture)", shape: "diamond" },
  { key: "no_audio", name: "the model, sound taken away", colour: "var(--right)", shape: "diamond" },
  { key: "blind", name: "the question’s words only", colour: "var(--blind)", shape: "tick" },
  { key: "majority", name: "always the commonest answer", colour: "var(--majority)", shape: "ring" },
];

function mark(shape, x, y, colour) {
  if (shape === "dot") return vector("circle", { cx: x, cy: y, r: 5, fill: colour });
  if (shape === "ring") return vector("circle", { cx: x, cy: y, r: 4, fill: "none", stroke: colour, "stroke-width": 2 });
  if (shape === "tick") return vector("path", { d: `M${x} ${y - 7}v14`, stroke: colour, "stroke-width": 3 });
  return vector("path", { d: `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z`, fill: colour });
}

function resultPlot(row) {
  const at = (value) => 6 + 288 * value;
  const lines = [0, 0.25, 0.5, 0.75, 1].map((v) => vector("path", { d: `M${at(v)} 0v26`, stroke: "var(--faint)" }));
  const whisker = vector("path", { d: `M${at(row.model.low)} 13H${at(row.model.high)}`, stroke: "var(--model)", "stroke-width": 3 });
  const marks = [...SERIES].reverse().filter((s) => row[s.key]).map((s) => mark(s.shape, at(row[s.key].value), 13, s.colour));
  return vector("svg", { viewBox: "0 0 300 26", preserveAspectRatio: "none", "aria-hidden": "true" }, lines, whisker, marks);
}

function resultTable(rows) {
  const present = SERIES.filter((s) => rows.some((row) => row[s.key]));
  const heads = { model: "Accuracy", no_image: "No picture", no_audio: "No sound", blind: "Question only", majority: "Majority" };
  const cell = (row, s) => {
    if (!row[s.key]) return element("td", {}, "–");
    const value = percent(row[s.key].value);
    if (s.key !== "model") return element("td", {}, value);
    return element("td", {}, value, " ", element("small", {}, interval(row.model)));
  };
  const head = element("tr", {},
    element("th", { scope: "col" }, "Kind"), element("th", { scope: "col", class: "count" }, "Asked"),
    present.map((s) => element("th", { scope: "col" }, heads[s.key])),
    element("th", { scope: "col", class: "plot" }, element("span", {}, "0"), element("span", {}, "50"), element("span", {}, "100%")));
  const body = rows.map((row, i) => element("tr", { class: i === 0 ? "all" : "" },
    element("th", { scope: "row" }, row.kind), element("td", { class: "count" }, row.count.toLocaleString("en")),
    present.map((s) => cell(row, s)), element("td", { class: "plot" }, resultPlot(row))));
  const key = element("div", { class: "key", "aria-hidden": "true" }, present.map((s) =>
    element("span", {}, vector("svg", { viewBox: "0 0 14 14" }, mark(s.shape, 7, 7, s.colour)), s.name)));
  return element("div", { class: "card results" },
    element("table", {}, element("thead", {}, head), element("tbody", {}, body)), key);
}

function calibrationChart(bins, error) {
  const at = (v) => 40 + 270 * v, up = (v) => 290 - 270 * v;
  const most = Math.max(...bins.map((bin) => bin.count));
  const readout = element("p", { class: "readout" }, "Each dot is a tenth of the scale; its area is how many answers fall there.");
  const say = (bin) => () => {
    readout.textContent = `${bin.count.toLocaleString("en")} answers given with ${percent(bin.confidence)} on average: ${percent(bin.accuracy)} are right.`;
  };
  const grid = [0, 0.5, 1].map((v) => [
    vector("path", { class: "grid", d: `M${at(v)} ${up(0)}V${up(1)}M${at(0)} ${up(v)}H${at(1)}` }),
    vector("text", { x: at(v), y: up(0) + 18, "text-anchor": "middle" }, percent(v, 0)),
    vector("text", { x: at(0) - 6, y: up(v) + 4, "text-anchor": "end" }, percent(v, 0))]);
  const dots = bins.map((bin) => vector("circle", {
    cx: at(bin.confidence), cy: up(bin.accuracy), r: 4 + 10 * Math.sqrt(bin.count / most), fill: "var(--model)",
    "fill-opacity": 0.75, tabindex: 0, "aria-label": `probability ${percent(bin.confidence)}, right ${percent(bin.accuracy)}, ${bin.count} answers`,
    onmouseenter: say(bin), onfocus: say(bin) }));
  return element("div", { class: "card chart" }, element("h3", {}, `Calibration: expected error ${percent(error, 2)}`),
    vector("svg", { viewBox: "0 0 325 336", role: "group", "aria-label": "How often answers of a given probability are right" }, grid,
      vector("path", { d: `M${at(0)} ${up(0)}L${at(1)} ${up(1)}`, stroke: "var(--majority)", "stroke-dasharray": "4 4" }), dots,
      vector("text", { x: at(0.5), y: 332, "text-anchor": "middle" }, "probability of its answer → share that is right ↑")),
    readout);
}

const LINES = ["var(--model)", "var(--nopicture)", "var(--blind)", "var(--right)", "var(--majority)", "var(--wrong)"];

function niceTicks(low, high, count) {
  const raw = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) ticks.push(v);
  return ticks;
}

function curveChart(curve) {
  const lines = Object.entries(curve.lines);
  const points = lines.flatMap(([, line]) => line);
  const last = Math.max(...points.map((p) => p[0])), top = curve.percent ? 1 : Math.max(...points.map((p) => p[1])) * 1.05;
  const low = Math.min(0, ...points.map((p) => p[1]));
  const at = (step) => 42 + 284 * step / (last || 1), up = (v) => 196 - 184 * (v - low) / ((top - low) || 1);
  const shown = (v) => curve.percent ? percent(v) : String(+v.toPrecision(3));
  const grid = niceTicks(low, top, 4).map((v) => [vector("path", { class: "grid", d: `M42 ${up(v)}H326` }),
    vector("text", { x: 36, y: up(v) + 4, "text-anchor": "end" }, curve.percent ? percent(v, 0) : String(+v.toPrecision(3)))]);
  const steps = niceTicks(0, last, 4).map((s) => vector("text", { x: at(s), y: 214, "text-anchor": "middle" }, s.toLocaleString("en")));
  const drawn = lines.map(([, line], i) => vector("path", { fill: "none", stroke: LINES[i % LINES.length], "stroke-width": 2,
    "stroke-linejoin": "round", d: line.map((p, j) => (j ? "L" : "M") + at(p[0]).toFixed(1) + " " + up(p[1]).toFixed(1)).join("") }));
  const final = lines.map(([name, line]) => `${name} ${shown(line[line.length - 1][1])}`).join(", ");
  const hair = vector("path", { class: "axis", d: "" }), readout = element("p", { class: "readout" }, `At the end: ${final}.`);
  const picture = vector("svg", { viewBox: "0 0 350 220", role: "img", "aria-label": `${curve.title} by step. At the end: ${final}` },
    grid, steps, hair, drawn);
  picture.addEventListener("pointermove", (event) => {
    const bounds = picture.getBoundingClientRect();
    const step = Math.min(Math.max(((event.clientX - bounds.left) / bounds.width * 350 - 42) / 284, 0), 1) * last;
    const nearest = (line) => line.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
    hair.setAttribute("d", `M${at(step)} ${up(low)}V12`);
    readout.textContent = `Step ${Math.round(step).toLocaleString("en")}: ` + lines.map(([name, line]) => `${name} ${shown(nearest(line)[1])}`).join(", ");
  });
  const key = element("div", { class: "key" }, lines.map(([name], i) => element("span", {}, vector("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" },
    vector("path", { d: "M0 7h14", stroke: LINES[i % LINES.length], "stroke-width": 3 })), name)));
  return element("div", { class: "card chart" }, element("h3", {}, curve.title), picture, key, readout);
}
