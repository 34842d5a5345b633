// The page: figures, the explorer of attention, the gallery.

const page = JSON.parse(document.getElementById("data").textContent);
const token = page.image_token;
const state = { example: 0, layer: "mean", head: "mean", instrument: "", pinned: null, filter: "all" };
if (page.pointing) Object.assign(state, { layer: page.pointing.layer, head: page.pointing.head });

const view = {};

// ---- what is shown for a word or a patch -------------------------------------------------------------------------

function show(focus) {
  const example = open(page.examples[state.example]);
  view.words.forEach((node, i) => {
    node.classList.toggle("chosen", focus.kind === "word" && focus.index === i);
    node.setAttribute("aria-pressed", String(state.pinned.kind === "word" && state.pinned.index === i));
    node.style.removeProperty("--share");
  });
  view.asked.classList.toggle("chosen", focus.kind === "answer");
  view.asked.setAttribute("aria-pressed", String(state.pinned.kind === "answer"));
  view.patches.forEach((node, i) => node.classList.toggle("chosen", focus.kind === "patch" && focus.index === i));
  view.frames.forEach((frame) => frame.querySelectorAll(".box").forEach((node) => node.remove()));
  if (focus.kind === "word") showWord(example, focus.index);
  else if (focus.kind === "answer") showAnswer(example);
  else showPatch(example, focus.index);
  drawHeads(example, focus);
}

// What a word asks of the picture: attention weights, or what the chosen instrument says.
function asks(example, word) {
  return state.instrument ? example.says[state.instrument](word) : example.toImage(word, state.layer, state.head);
}

function showMap(weights) {
  const best = strongest(weights), most = weights[best] || 1;
  view.patches.forEach((node, i) => {
    node.style.setProperty("--veil", (0.88 * (1 - weights[i] / most)).toFixed(3));
    node.classList.toggle("strongest", i === best);
  });
  return best;
}

function showAnswer(example) {
  const weights = asks(example, example.words.length), best = showMap(weights);
  view.saying.textContent = `What counted for “${example.predicted}” in the picture (${where()}); ` +
    `${percent(weights[best] / (total(weights) || 1), 0)} of it at the strongest ${token}.`;
}

function showWord(example, index) {
  const word = example.words[index], weights = asks(example, index), best = showMap(weights), sum = total(weights);
  for (const box of word.boxes) view.frames[box[0]].append(place(element("div", { class: "box" }), box));
  const target = word.boxes.length ? (word.boxes.some((box) => covers(box, example.patches[best])) ?
    ` Its strongest ${token} lies inside the true box.` : ` Its strongest ${token} lies outside the true box.`) : "";
  view.saying.textContent = (state.instrument
    ? `What “${word.text}” asks of the picture (${where()}); ${percent(weights[best] / (sum || 1), 0)} of it at the strongest ${token}.`
    : `“${word.text}” gives ${percent(sum, 0)} of its attention to the picture (${where()}), ${percent(weights[best], 0)} to the strongest ${token}.`) + target;
}

function showPatch(example, index) {
  const reads = example.toText !== null && !state.instrument;
  let shares = reads ? example.toText(index, state.layer, state.head) : Float32Array.from(example.words, (_, w) => asks(example, w)[index]);
  if (state.instrument) shares = shares.map((share) => share / (total(shares) || 1));
  const most = Math.max(...shares) || 1;
  view.words.forEach((node, i) => node.style.setProperty("--share", (0.6 * shares[i] / most).toFixed(3)));
  view.patches.forEach((node, i) => {
    node.style.setProperty("--veil", i === index ? 0 : 0.5);
    node.classList.remove("strongest");
  });
  const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 3);
  const list = order.map((i) => `“${example.words[i].text}” ${percent(shares[i], 0)}`).join(", ");
  view.saying.textContent = state.instrument ? `The words that ask most of this ${token} (${where()}), as shares of all: ${list}.`
    : reads ? `This ${token} gives ${percent(total(shares), 0)} of its attention to words (${where()}): ${list}.`
    : `In this model the picture reads no words. The words that look at this ${token} most (${where()}): ${list}.`;
}

function where() {
  if (state.instrument) return state.instrument;
  const layer = state.layer === "mean" ? "mean of the layers" : `layer ${state.layer + 1}`;
  return layer + (state.head === "mean" ? ", mean of the heads" : `, head ${state.head + 1}`);
}

// ---- every head at a glance ---------------------------------------------------------------------------------------

function drawHeads(example, focus) {
  view.every.hidden = focus.kind === "answer";  // heads know of words alone
  for (const { canvas, layer, head } of view.heads) {
    const pen = canvas.getContext("2d"), { width, height } = canvas;
    const weights = focus.kind === "word" ? example.toImage(focus.index, layer, head)
      : Float32Array.from(example.patches, (_, i) => Number(i === focus.index));
    const most = Math.max(...weights) || 1, images = example.images.length;
    pen.fillStyle = "#0b0d14";
    pen.fillRect(0, 0, width, height);
    example.patches.forEach(([image, x0, y0, x1, y1], i) => {
      pen.fillStyle = `rgb(255 225 120 / ${(weights[i] / most).toFixed(3)})`;
      const left = Math.round((image + x0) / images * width), right = Math.round((image + x1) / images * width);
      pen.fillRect(left, Math.round(y0 * height), right - left, Math.round(y1 * height) - Math.round(y0 * height));
    });
  }
}

function buildHeads(example) {
  view.heads = [];
  const { layers, heads } = example.to_image, images = example.images.length;
  const shape = example.images[0], side = Math.max(30, Math.min(64, Math.floor(330 / heads)));
  const width = Math.min(side * images * shape.width / shape.height, Math.max(400 / heads, side));
  const scores = page.pointing && page.pointing.by_head.length === layers && page.pointing.by_head[0].length === heads ? page.pointing.by_head : null;
  view.grid.replaceChildren();
  view.grid.style.gridTemplateColumns = `max-content repeat(${heads}, ${width}px)`;
  for (let layer = 0; layer < layers; layer++) {
    view.grid.append(element("span", { class: "layer" }, `layer ${layer + 1}`));
    for (let head = 0; head < heads; head++) {
      const canvas = element("canvas", { width: Math.round(2 * width), height: Math.round(2 * width * shape.height / (images * shape.width)) });
      const score = scores ? percent(scores[layer][head], 0) : "";
      const button = element("button", { class: "head", type: "button", "data-layer": layer, "data-head": head,
        "aria-label": `layer ${layer + 1}, head ${head + 1}` + (score ? `, pointing ${score}` : ""),
        onclick: () => choose(layer, head) }, canvas, score && side > 40 ? element("span", {}, score) : null);
      view.heads.push({ canvas, layer, head, button });
      view.grid.append(button);
    }
  }
}

function choose(layer, head) {
  Object.assign(state, { layer, head });
  view.layer.value = String(layer);
  view.head.value = String(head);
  instrument("");
}

// Layer and head are of attention weights alone, the answer of the other instruments.
function instrument(name) {
  state.instrument = name;
  view.instrument.value = name;
  view.layer.disabled = view.head.disabled = name !== "";
  view.asked.hidden = name === "";
  if (name === "" && state.pinned.kind === "answer") state.pinned = firstNamed(page.examples[state.example]);
  markHeads();
  show(state.pinned);
}

function markHeads() {
  for (const { button, layer, head } of view.heads) {
    const on = !state.instrument && (state.layer === "mean" || state.layer === layer) && (state.head === "mean" || state.head === head);
    button.classList.toggle("on", on);
    button.setAttribute("aria-pressed", String(on));
  }
}

// ---- the chosen example ------------------------------------------------------------------------------------------

function pin(kind, index) {
  state.pinned = { kind, index };
  show(state.pinned);
}

function watch(node, kind, index) {
  const focus = { kind, index };
  node.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") show(focus); });
  node.addEventListener("focus", () => show(focus));
  node.addEventListener("click", () => pin(kind, index));
  return node;
}

function buildPictures(example) {
  view.frames = example.images.map((image, i) => element("div", { class: "picture" },
    element("img", { src: image.src, width: image.width, height: image.height, alt: example.images.length > 1 ? `picture ${i + 1}` : "the picture asked about" })));
  view.patches = example.patches.map((patch, i) => {
    const node = place(element("button", { class: "patch", type: "button", tabindex: i ? -1 : 0, "data-patch": i,
      "aria-label": `${token} at ${percent((patch[1] + patch[3]) / 2, 0)} from the left, ${percent((patch[2] + patch[4]) / 2, 0)} from the top`,
      onkeydown: (event) => walk(event, example, i) }), patch);
    view.frames[patch[0]].append(watch(node, "patch", i));
    return node;
  });
  view.pictures.replaceChildren(...view.frames);
  const root = view.pictures.parentElement.parentElement;
  root.classList.toggle("several", example.images.length > 1);
  root.classList.toggle("many", example.images.length > 3);
}

// Arrow keys go to the nearest patch in their direction; one patch at a time is in the tab order.
function walk(event, example, from) {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!direction) return;
  event.preventDefault();
  const middle = (p) => [p[0] + (p[1] + p[3]) / 2, (p[2] + p[4]) / 2], start = middle(example.patches[from]);
  let best = -1, least = Infinity;
  example.patches.forEach((patch, i) => {
    const [dx, dy] = middle(patch).map((v, axis) => v - start[axis]);
    const ahead = dx * direction[0] + dy * direction[1], aside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
    if (ahead > 1e-6 && ahead + 3 * aside < least) [best, least] = [i, ahead + 3 * aside];
  });
  if (best < 0) return;
  view.patches[from].tabIndex = -1;
  view.patches[best].tabIndex = 0;
  view.patches[best].focus();
}

function buildWords(example) {
  view.words = example.words.map((word, i) => watch(element("button", {
    class: "word" + (/^\[[A-Z]+\]$/.test(word.text) ? " special" : "") + (word.boxes.length ? " named" : ""), type: "button", "data-word": i,
  }, word.text), "word", i));
  view.asked = watch(element("button", { class: "word asked", type: "button", hidden: !state.instrument }, "the answer"), "answer", 0);
  view.sentence.replaceChildren(...view.words, view.asked);
}

function buildAnswer(example) {
  const right = example.predicted === example.answer;
  view.verdict.replaceChildren(element("span", { class: "soft" }, example.kind), element("span", {}, "answered "),
    element("b", { class: right ? "right" : "wrong" }, `${right ? "✓" : "✗"} ${example.predicted}`),
    right ? "" : element("span", {}, "instead of ", element("b", {}, example.answer)));
  view.bars.replaceChildren(...example.probabilities.flatMap(([answer, p]) => {
    const bar = element("span", { class: "bar" + (answer === example.answer ? " true" : ""), "aria-hidden": "true" }, element("i"));
    bar.firstChild.style.width = percent(p);
    return [element("span", { class: answer === example.answer ? "true" : "" }, answer), bar, element("span", { class: "number" }, percent(p))];
  }));
}

function select(index) {
  state.example = index;
  const example = open(page.examples[index]);
  buildPictures(example);
  buildWords(example);
  buildAnswer(example);
  buildHeads(example);
  markHeads();
  view.thumbs.forEach((node, i) => {
    node.classList.toggle("on", i === index);
    node.setAttribute("aria-pressed", String(i === index));
  });
  if (state.pinned === null || state.pinned.kind !== "answer") state.pinned = firstNamed(example);
  show(state.pinned);
}

function instrumentChooser() {
  const names = (page.examples[0].instruments ?? []).map(({ name }) => name);
  if (!names.length) return (view.instrument = { value: "" }, null);
  view.instrument = element("select", { id: "choose-instrument", onchange: () => instrument(view.instrument.value) },
    element("option", { value: "" }, "attention weights"), names.map((name) => element("option", { value: name }, name)));
  return element("label", {}, "Instrument ", view.instrument);
}

function chooser(name, count, current) {
  const options = [element("option", { value: "mean" }, "mean of all"), ...Array.from({ length: count }, (_, i) => element("option", { value: i }, `${i + 1}`))];
  const node = element("select", { id: `choose-${name}`, onchange: () => {
    state[name] = node.value === "mean" ? "mean" : Number(node.value);
    markHeads();
    show(state.pinned);
  } }, options);
  node.value = String(current);
  return (view[name] = node);
}

function buildExplorer() {
  const { layers, heads } = page.examples[0].to_image;
  if (state.head !== "mean" && state.head >= heads) state.head = "mean";
  view.pictures = element("div", { class: "pictures" });
  view.saying = element("p", { class: "saying soft", "aria-live": "polite" });
  view.sentence = element("div", { class: "words", role: "group", "aria-label": "Words of the question" });
  view.verdict = element("p", { class: "verdict" });
  view.bars = element("div", { class: "bars" });
  view.grid = element("div", { class: "heads", role: "group", "aria-label": "Every layer and head" });
  const boxes = element("input", { type: "checkbox", checked: true, onchange: () => root.classList.toggle("nobox", !boxes.checked) });
  const controls = element("div", { class: "controls" }, instrumentChooser(),
    element("label", {}, "Layer ", chooser("layer", layers, state.layer)), element("label", {}, "Head ", chooser("head", heads, state.head)),
    page.examples.some((e) => e.words.some((word) => word.boxes.length)) ? element("label", {}, boxes, "true boxes") : null);
  const heading = page.pointing ? `Every head on this word; below each its pointing score on ${page.pointing.chosen_on}` : "Every head on this word";
  view.every = element("div", {}, element("h3", {}, heading), view.grid);
  const root = element("div", { class: "card explorer", onpointerleave: () => show(state.pinned) },
    element("div", { class: "look" }, view.pictures, view.saying),
    element("div", { class: "side" }, element("div", { class: "question" }, view.sentence),
      element("div", {}, view.verdict, view.bars), element("div", {}, controls, view.every)));
  return root;
}

function buildGallery() {
  view.thumbs = page.examples.map((example, i) => {
    const right = example.predicted === example.answer;
    return element("button", { class: "thumb", type: "button", "data-example": i, onclick: () => {
      select(i);
      view.explorer.scrollIntoView({ block: "nearest" });
    } }, element("span", { class: "mini" }, example.images.map((image) => element("img", { src: image.src, alt: "", loading: "lazy" }))),
    element("span", {}, example.text),
    element("span", { class: "answer" }, element("span", { class: right ? "right" : "wrong" }, `${right ? "✓" : "✗"} ${example.predicted}`),
      right ? "" : ` not ${example.answer}`));
  });
  const kinds = [...new Set(page.examples.map((e) => e.kind))];
  const filters = [["all", () => true], ["wrong", (e) => e.predicted !== e.answer], ["right", (e) => e.predicted === e.answer],
    ...(kinds.length > 1 ? kinds.map((kind) => [kind, (e) => e.kind === kind]) : [])];
  const buttons = filters.filter(([, test]) => page.examples.some(test)).map(([name, test]) => {
    const count = page.examples.filter(test).length;
    return element("button", { class: "filter", type: "button", "aria-pressed": String(name === "all"), onclick: (event) => {
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === event.currentTarget)));
      view.thumbs.forEach((node, i) => { node.hidden = !test(page.examples[i]); node.style.display = node.hidden ? "none" : ""; });
    } }, `${name} ${count}`);
  });
  return [element("div", { class: "filters", role: "group", "aria-label": "Which examples to list" }, buttons), element("div", { class: "gallery" }, view.thumbs)];
}

// ---- the whole page ----------------------------------------------------------------------------------------------

function kpi(value, name, note) {
  return element("div", { class: "card kpi" }, element("b", {}, value), element("span", {}, name), element("span", {}, note));
}

function buildKpis() {
  const all = page.table[0], cards = [];
  if (all) cards.push(kpi(percent(all.model.value), "accuracy", `95%: ${interval(all.model)}`));
  if (all && all.blind) cards.push(kpi(percent(all.blind.value), "from the question alone", all.majority ? `majority ${percent(all.majority.value)}` : ""));
  if (page.pointing) cards.push(kpi(percent(page.pointing.score.value), "pointing of its attention", `chance ${percent(page.pointing.chance)}`));
  if (page.calibration_error !== null) cards.push(kpi(percent(page.calibration_error, 2), "calibration error", "of its probabilities"));
  return cards.length ? element("div", { class: "kpis" }, cards) : null;
}

function section(title, note, ...children) {
  return element("section", {}, element("h2", {}, title), note ? element("p", { class: "soft" }, note) : null, children);
}

function pointingNote() {
  const p = page.pointing;
  const help = `Point at a word to see where it looks, at a ${token} to see which words it reads; click to hold. `;
  if (!p) return help + "Bright is where the weight goes.";
  return help + `Of ${p.words.toLocaleString("en")} words that name something, ${percent(p.score.value)} (95%: ${interval(p.score)}) have their strongest ${token} ` +
    `in the true box; by chance ${percent(p.chance)}. Layer ${p.layer + 1}, head ${p.head + 1}, chosen on ${p.chosen_on}.`;
}

function build() {
  const main = document.getElementById("page");
  main.replaceChildren(...[element("header", {}, element("h1", {}, page.title), element("p", { class: "soft" }, page.subtitle)), buildKpis()].filter(Boolean));
  if (page.notes.length) main.append(element("div", { class: "card notes" }, page.notes.map((note) => element("p", {}, note))));
  if (page.table.length) {
    main.append(section("Results", "Accuracy with its 95% interval by kind of question, beside what is reached without looking.", resultTable(page.table)));
  }
  if (page.examples.length) {
    view.explorer = buildExplorer();
    const hint = page.hint ? element("p", { class: "soft hint" }, "Every instrument and head, of a picture and a question of your own: ", element("code", {}, page.hint)) : null;
    main.append(section("Where it looks", pointingNote(), view.explorer, buildGallery(), hint ?? []));
  }
  const charts = page.curves.map(curveChart);
  if (page.bins.length) charts.push(calibrationChart(page.bins, page.calibration_error));
  if (charts.length) main.append(section("How it learned, and how sure it is", "", element("div", { class: "charts" }, charts)));
  const facts = [...page.facts, ...page.other.map(([name, value]) => [name, String(+value.toPrecision(4))])];
  if (facts.length) main.append(section("The run", "", element("div", { class: "card" }, element("dl", {}, facts.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])))));
  main.append(element("footer", {}, "Written by singlestream; this file stands alone."));
  if (page.examples.length) select(0);
}

build();
