// Maps over the pictures, and the words beside them. A map has one number an image token, at most 1 in size.

// Bright is much, grey is nothing, red speaks against the answer.
function paint(nodes, values) {
  const best = strongest(values);
  nodes.forEach((node, i) => {
    node.style.setProperty("--veil", (0.88 * (1 - Math.max(values[i], 0))).toFixed(3));
    node.style.setProperty("--against", Math.max(-values[i], 0).toFixed(3));
    node.classList.toggle("strongest", i === best && values[i] > 0);
  });
}

// The pictures with an empty map on them; `update` draws one.
function mapView(label) {
  const frames = page.images.map((image) => element("div", { class: "picture" },
    element("img", { src: image.src, width: image.width, height: image.height, alt: "" })));
  const nodes = page.patches.map((patch) => {
    const node = place(element("div", { class: "patch" }), patch);
    frames[patch[0]].append(node);
    return node;
  });
  const root = element("figure", { class: "map" }, element("div", { class: "frames" }, frames), element("figcaption", {}, label));
  return { root, update(values, text) {
    root.hidden = values === null;
    if (values === null) return;
    paint(nodes, values);
    if (text !== undefined) root.lastChild.textContent = text;
  } };
}

// The words, shaded by how much each counts; with `choose` they are buttons.
function wordsView(choose) {
  const nodes = page.words.map((word, i) => element(choose ? "button" : "span", {
    class: "word" + (/^\[[A-Z]+\]$/.test(word.text) ? " special" : ""), type: choose ? "button" : null, "data-word": choose ? i : null,
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
