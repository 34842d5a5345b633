// Maps over the pictures, and the words beside them. A map has one number an image token, at most 1 in size.

const NUMBERED = 3;  // regions of a map that are drawn with their number

// Patches: bright is much, grey is nothing, red speaks against the answer. Regions overlap: the more, the stronger its
// outline. Regions whose places are not known are a list of their numbers.
function paint(nodes, values, regions = REGIONS) {
  const best = strongest(values), order = [...values.keys()].sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
  const rank = new Map(order.map((i, place) => [i, place]));
  nodes.forEach((node, i) => {
    const much = Math.max(values[i], 0), against = Math.max(-values[i], 0);
    node.style.setProperty("--veil", (0.88 * (1 - much)).toFixed(3));
    node.style.setProperty("--share", (0.6 * much).toFixed(3));
    node.style.setProperty("--against", (page.located ? against : 0.6 * against).toFixed(3));
    node.classList.toggle("strongest", i === best && values[i] > 0);
    if (!regions) return;
    node.title = `region ${i + 1}: ${values[i].toFixed(2)} of the largest`;
    if (!page.located) return;
    node.style.setProperty("--much", (much + against).toFixed(3));
    node.style.zIndex = nodes.length - rank.get(i);
    node.textContent = rank.get(i) < NUMBERED && values[i] ? i + 1 : "";
  });
}

// The pictures with an empty map on them; `update` draws one.
function mapView(label) {
  const frames = page.located ? page.images.map((image) => element("div", { class: "picture" },
    element("img", { src: image.src, width: image.width, height: image.height, alt: "" })))
    : page.images.map((_, i) => element("div", { class: "chips", "aria-label": page.images.length > 1 ? `regions of picture ${i + 1}` : "regions" }));
  const nodes = page.patches.map((patch, i) => {
    const node = page.located ? place(element("div", { class: REGIONS ? "patch region" : "patch" }), patch) : element("span", { class: "chip" }, i + 1);
    frames[patch[0]].append(node);
    return node;
  });
  const root = element("figure", { class: "map" }, element("div", { class: "frames" }, frames), element("figcaption", {}, label));
  root.firstChild.style.gridTemplateColumns = `repeat(${Math.min(frames.length, 4)}, minmax(0, 1fr))`;
  return { root, nodes, update(values, text) {
    root.hidden = values === null;
    if (values === null) return;
    paint(nodes, values);
    if (text !== undefined) root.lastChild.textContent = text;
  } };
}

// The spectrogram of what was heard, low tones below, with an empty map on its windows; nothing where nothing was heard.
function soundView() {
  if (!page.sound) return { root: null, update: () => {} };
  const { src, width, height } = page.sound, count = page.instruments[0].audio.length;
  const frame = element("div", { class: "picture sound" }, element("img", { src, width, height, alt: "spectrogram of the sound" }));
  const nodes = Array.from({ length: count }, (_, i) => place(element("div", { class: "patch" }), [0, i / count, 0, (i + 1) / count, 1]));
  frame.append(...nodes);
  return { root: frame, update(values) {
    frame.hidden = values === null;
    if (values !== null) paint(nodes, values, false);
  } };
}

// The image tokens that are still there (1) and those that are gone (0).
function keptView(kept, label) {
  const view = mapView(label);
  view.update(kept);
  view.nodes.forEach((node, i) => {
    node.classList.remove("strongest");
    node.classList.toggle("gone", !kept[i]);
    if (REGIONS) node.title = `region ${i + 1}: ${kept[i] ? "still there" : "gone"}`;
  });
  return view.root;
}

// The words, shaded by how much each counts; with `choose` they are buttons.
function wordsView(choose) {
  const nodes = page.words.map((word, i) => element(choose ? "button" : "span", {
    class: "word" + (page.special[i] ? " special" : ""), type: choose ? "button" : null, "data-word": choose ? i : null,
    onclick: () => choose && choose(i) }, word.text));
  const root = element("div", { class: "words" }, nodes);
  return { root, nodes, update: (values) => nodes.forEach((node, i) => {
    node.style.setProperty("--share", (0.6 * Math.max(values[i], 0)).toFixed(3));
    node.style.setProperty("--against", (0.6 * Math.max(-values[i], 0)).toFixed(3));
  }) };
}

function scaled(values) {
  const most = Math.max(...values.map(Math.abs)) || 1;
  return Array.from(values, (value) => value / most);
}
