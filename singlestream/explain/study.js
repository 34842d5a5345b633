// The page of one answer: instruments side by side, one head looked at closely, tables of all heads.

const page = JSON.parse(document.getElementById("data").textContent);
const token = page.image_token;
const state = { word: firstSpoken(), layer: "mean", head: "mean" };
const views = [];  // functions that draw again what depends on the state

function firstSpoken() {
  const maps = page.instruments.find((each) => each.words);
  const peaks = page.words.map((word, i) => /^\[[A-Z]+\]$/.test(word.text) || !maps ? -1 : page.instruments.reduce((sum, each) => sum + Math.max(each.text[i], 0), 0));
  return Math.max(strongest(peaks), 0);
}

function redraw() {
  views.forEach((draw) => draw());
}

function section(title, note, ...children) {
  return element("section", {}, element("h2", {}, title), note ? element("p", { class: "soft" }, note) : null, children);
}

// ---- the answer and the instruments ------------------------------------------------------------------------------

function answerCard() {
  const words = wordsView((i) => { state.word = i; redraw(); });
  views.push(() => words.nodes.forEach((node, i) => {
    node.classList.toggle("chosen", i === state.word);
    node.setAttribute("aria-pressed", String(i === state.word));
  }));
  const bars = page.probabilities.flatMap(([answer, p]) => {
    const chosen = answer === page.answer, bar = element("span", { class: "bar" + (chosen ? " true" : ""), "aria-hidden": "true" }, element("i"));
    bar.firstChild.style.width = percent(p);
    return [element("span", { class: chosen ? "true" : "" }, answer), bar, element("span", { class: "number" }, percent(p))];
  });
  const pictures = page.images.map((image) => element("div", { class: "picture" },
    element("img", { src: image.src, width: image.width, height: image.height, alt: "the picture asked about" })));
  const verdict = page.answer === page.predicted ? `The model answers “${page.answer}”.` : `The model answers “${page.predicted}”; what speaks for “${page.answer}” is shown.`;
  return element("div", { class: "card explorer" + (pictures.length > 1 ? " several" : "") }, element("div", { class: "pictures asked" }, pictures),
    element("div", { class: "side" }, element("h3", {}, "Choose a word"), words.root, element("p", { class: "verdict" }, verdict),
      element("div", { class: "bars" }, bars)));
}

function instrumentCard(instrument) {
  const answer = mapView(`for “${page.answer}”`), word = mapView(""), words = wordsView();
  words.update(instrument.text);
  answer.update(instrument.image);
  views.push(() => word.update(instrument.words ? instrument.words[state.word] : null, `of “${page.words[state.word].text}”`));
  const alone = instrument.words ? null : element("p", { class: "soft alone" }, "Knows of the answer alone.");
  return element("div", { class: "card instrument", "data-instrument": instrument.name },
    element("h3", {}, instrument.name), element("div", { class: "pair" }, answer.root, word.root, alone), words.root);
}

// ---- one layer and head ------------------------------------------------------------------------------------------

function closer(heads) {
  const example = open({ words: page.words, patches: page.patches, to_image: heads.to_image, to_text: heads.to_text });
  const own = mapView(""), received = mapView("coverage: what it and the words before it have read, all heads");
  const all = mapView("fertility: what all words read, all heads");
  all.update(heads.fertility);
  const title = element("h3", { class: "where" });
  const reset = element("button", { type: "button", class: "filter", onclick: () => choose("mean", "mean") }, "mean of all heads");
  views.push(() => {
    title.textContent = state.layer === "mean" ? "Mean of all layers and heads" : `Layer ${state.layer + 1}, head ${state.head + 1}`;
    const weights = Array.from(example.toImage(state.word, state.layer, state.head)), name = `“${page.words[state.word].text}”`;
    own.update(scaled(weights), `${name} gives ${percent(total(weights), 0)} to the picture`);
    received.update(heads.coverage[state.word]);
    document.querySelectorAll(".cell").forEach((cell) => cell.classList.toggle("on",
      Number(cell.dataset.layer) === state.layer && Number(cell.dataset.head) === state.head));
  });
  return element("div", { class: "card close" }, element("div", { class: "controls" }, title, reset),
    element("div", { class: "triple" }, own.root, received.root, all.root), element("h3", {}, "Singular modes"), modesView(heads));
}

function modesView({ modes, mean_modes }) {
  const rows = mean_modes.strength.map(() => ({ map: mapView(""), words: wordsView() }));
  views.push(() => rows.forEach(({ map, words }, m) => {
    const of = (name) => state.layer === "mean" ? mean_modes[name][m] : modes[name][state.layer][state.head][m];
    map.update(scaled(of("patches")), `mode ${m + 1}, strength ${short(of("strength"))}`);
    words.update(scaled(of("words")));
  }));
  return element("div", { class: "triple modes" }, rows.map(({ map, words }) => element("div", { class: "mode" }, map.root, words.root)));
}

function choose(layer, head) {
  Object.assign(state, { layer, head });
  redraw();
}

// ---- the whole page ----------------------------------------------------------------------------------------------

function headSections(heads) {
  const { layers, heads: count } = heads.to_image;
  const fits = (values) => values.length === layers && values[0].length === count;
  const tables = heads.tables.map(({ name, values }) => heatTable(name, values, fits(values) ? choose : null));
  const alike = heads.similarity.map(({ name, values, heads: number }) => similarityMatrix(name, values, number));
  return [
    section("Every layer and head", "Rows are layers, columns heads; a cell chooses its head. Entropy in nats is how spread the weights are; share is what goes to the other modality; " +
      `coverage is the share of ${token === "patch" ? "patches" : "regions"} that the words read evenly; fertility is the most that one ${token} receives, in words; mutual attention is how far a word and a ${token} read each other, the most of any pair.`,
    element("div", { class: "card tables" }, tables)),
    section("One head", `Modes take its map apart into pairs: words and the ${token === "patch" ? "patches" : "regions"} that go together. Red words and places belong to each other as blue and bright ones do.`, closer(heads)),
    section("How alike heads are", "1 less the Jensen-Shannon divergence of their weights; dark is alike.", element("div", { class: "card tables" }, alike)),
  ];
}

function build() {
  const help = `Bright ${token === "patch" ? "patches" : "regions"} and blue words count most, red ones speak against the answer; each map by its own largest number. Left for the answer, right what the chosen word asks of the picture.`;
  document.getElementById("page").replaceChildren(
    element("header", {}, element("h1", {}, page.text), element("p", { class: "soft" }, page.title)),
    element("section", {}, answerCard()),
    section("What counted", help, element("div", { class: "instruments" }, page.instruments.map(instrumentCard))),
    ...(page.heads ? headSections(page.heads) : [section("Every layer and head", "Text and image meet in no layer of this model: there is no attention to show.")]),
    element("footer", {}, "Written by singlestream; this file stands alone."));
  redraw();
}

build();
