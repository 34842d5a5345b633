// The page of one answer: instruments side by side, one head looked at closely, tables of all heads.

const page = JSON.parse(document.getElementById("data").textContent);
const token = page.image_token, REGIONS = token === "region";
const state = { word: firstSpoken(), layer: "mean", head: "mean" };
const views = [];  // functions that draw again what depends on the state

function firstSpoken() {
  const maps = page.instruments.find((each) => each.words);
  const peaks = page.words.map((word, i) => page.special[i] || !maps ? -1 : page.instruments.reduce((sum, each) => sum + Math.max(each.text[i], 0), 0));
  return Math.max(strongest(peaks), 0);
}

function redraw() {
  views.forEach((draw) => draw());
}

function many() {
  return (page.images.length > 1 ? " several" : "") + (page.images.length > 3 ? " many" : "");
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
  const pictures = page.located ? page.images.map((image, i) => element("div", { class: "picture" },
    element("img", { src: image.src, width: image.width, height: image.height,
      alt: page.images.length > 1 ? `picture ${i + 1} of those asked about` : "the picture asked about" })))
    : [element("p", { class: "soft" }, `The model reads ${page.patches.length} regions and knows no places of them; they are listed by their numbers.`)];
  if (REGIONS && page.located) page.patches.forEach((box) => pictures[box[0]].append(place(element("div", { class: "outline" }), box)));
  const verdict = !page.answer ? "This model gives no answer that could be explained; what its words look at is shown." : page.answer === page.predicted ? `The model answers “${page.answer}”.` : `The model answers “${page.predicted}”; what speaks for “${page.answer}” is shown.`;
  return element("div", { class: "card explorer" + many() }, element("div", { class: "pictures asked" }, pictures, soundView().root),
    element("div", { class: "side" }, element("h3", {}, "Choose a word"), words.root, element("p", { class: "verdict" }, verdict),
      element("div", { class: "bars" }, bars)));
}

function instrumentCard(instrument) {
  const answer = mapView(`for “${page.answer}”`), word = mapView(""), words = wordsView();
  const heard = soundView(), wordHeard = soundView();
  if (page.answer) words.update(instrument.text);
  answer.update(page.answer ? instrument.image : null);
  heard.update(page.answer ? instrument.audio : null);
  views.push(() => {
    word.update(instrument.words ? instrument.words[state.word] : null, `of “${page.words[state.word].text}”`);
    wordHeard.update(instrument.words_audio ? instrument.words_audio[state.word] : null);
  });
  const alone = instrument.words ? null : element("p", { class: "soft alone" }, "Knows of the answer alone.");
  return element("div", { class: "card instrument", "data-instrument": instrument.name },
    element("h3", {}, instrument.name), element("div", { class: "pair" }, element("div", {}, answer.root, heard.root), element("div", {}, word.root, wordHeard.root, alone)), page.answer ? words.root : null);
}

// ---- what a pruning dropped --------------------------------------------------------------------------------------

function prunedSection({ method, layers, gone_after }) {
  const all = gone_after.length, gone = { drop: "dropped", merge: "merged into others", mask: "hidden" }[method];
  const views = layers.map((layer) => {
    const kept = gone_after.map((after) => Number(after === 0 || after > layer)), now = gone_after.filter((after) => after === layer).length;
    return keptView(kept, `after layer ${layer}: ${total(kept)} of ${all} left, ${now} ${gone} here`);
  });
  const after = method === "merge" ? "in the maps above they share evenly what they receive as one from then on"
    : "the layers that follow do without them, and the maps above give them what earlier layers gave";
  return section("What a pruning dropped", `Grey ${tokens()} are ${gone}: ${after}.`,
    element("div", { class: "card" }, element("div", { class: "triple pruned" }, views)));
}

function tokens() {
  return REGIONS ? "regions" : "patches";
}

// ---- one layer and head ------------------------------------------------------------------------------------------

function closer(heads) {
  const example = open({ words: page.words, patches: page.patches, to_image: heads.to_image, to_text: heads.to_text });
  const own = mapView(""), received = mapView("coverage: what it and the words before it have read, [CLS] among them, all heads");
  const all = mapView("fertility: what all words read, special tokens among them, all heads");
  all.update(heads.fertility);
  const title = element("h3", { class: "where" });
  const reset = element("button", { type: "button", class: "filter", onclick: () => choose("mean", "mean") }, "mean of all heads");
  views.push(() => {
    title.textContent = state.layer === "mean" ? "Mean of all layers and heads" : `Layer ${state.layer + 1}, head ${state.head + 1}`;
    const weights = Array.from(example.toImage(state.word, state.layer, state.head)), name = `“${page.words[state.word].text}”`;
    own.update(scaled(weights), `${name} gives ${percent(total(weights), 0)} to the picture`);
    received.update(heads.coverage[state.word]);
    reset.setAttribute("aria-pressed", String(state.layer === "mean"));
    document.querySelectorAll("button.cell").forEach((cell) => {
      const on = Number(cell.dataset.layer) === state.layer && Number(cell.dataset.head) === state.head;
      cell.classList.toggle("on", on);
      cell.setAttribute("aria-pressed", String(on));
    });
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
      `fertility is the most that one ${token} receives of all words, [CLS] and [SEP] among them; evenness is how many ${tokens()} would receive as much if all received alike, as a share of them; mutual attention is how far a word and a ${token} read each other, the most of any pair.`
      + (page.answer ? ` Fall without it is what the logit of “${page.answer}” loses when the head reads nothing.` : ""),
    element("div", { class: "card tables" }, tables)),
    section("One head", `Modes take its map apart into pairs: words and the ${tokens()} that go together. Red words and places belong to each other as blue and bright ones do.`, closer(heads)),
    section("How alike heads are", "1 less the Jensen-Shannon divergence of their weights; dark is alike.", element("div", { class: "card tables" }, alike)),
  ];
}

function build() {
  const much = REGIONS ? page.located ? "Regions with the strongest outlines" : "Blue regions" : "Bright patches";
  const help = page.answer ? `${much} and blue words count most, red ones speak against the answer; each map, and the words that the text spells, by their own largest number, beyond which [CLS] and the like show no more. Left for the answer, right what the chosen word asks of the picture.`
    : `${much} are what the chosen word asks of the picture; each map by its own largest number.`;
  const below = page.sound ? " Below each map, on the same scale, the sound: time from left to right, high tones above." : "";
  document.getElementById("page").replaceChildren(
    element("header", {}, element("h1", {}, page.text), element("p", { class: "soft" }, page.title)),
    element("section", {}, answerCard()),
    section(page.answer ? "What counted" : "What words look at", help + below, element("div", { class: "instruments" + many() }, page.instruments.map(instrumentCard))),
    ...(page.pruned ? [prunedSection(page.pruned)] : []),
    ...(page.heads ? headSections(page.heads) : [section("Every layer and head", "Text and image meet in no layer of this model: there is no attention to show.")]),
    element("footer", {}, "Written by singlestream; this file stands alone."));
  redraw();
}

build();
