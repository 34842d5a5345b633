// Reading the packed attention of an example, and what it points at.

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// Attention as a function: (query) -> one weight a key, averaged over the layers and heads that are chosen.
function reader(packed, numQueries, numKeys) {
  if (!packed) return null;
  const levels = bytes(packed.levels), scale = new Float32Array(bytes(packed.scale).buffer);
  const range = (choice, count) => choice === "mean" || choice >= count ? [...Array(count).keys()] : [choice];
  return (query, layer, head) => {
    const layers = range(layer, packed.layers), heads = range(head, packed.heads);
    const weights = new Float32Array(numKeys);
    for (const l of layers) for (const h of heads) {
      const map = (l * packed.heads + h) * numQueries + query;
      const unit = scale[map] / 255 / (layers.length * heads.length);
      for (let key = 0; key < numKeys; key++) weights[key] += levels[map * numKeys + key] * unit;
    }
    return weights;
  };
}

function open(example) {
  const numWords = example.words.length, numPatches = example.patches.length;
  example.toImage ??= reader(example.to_image, numWords, numPatches);
  example.toText ??= reader(example.to_text, numPatches, numWords);
  example.says ??= Object.fromEntries((example.instruments ?? []).map(({ name, maps }) => {
    const read = reader(maps, numWords + 1, numPatches);  // the answer is one word more
    return [name, (query) => read(query, 0, 0)];
  }));
  return example;
}

function strongest(weights) {
  return weights.reduce((best, weight, i) => weight > weights[best] ? i : best, 0);
}

function covers(box, patch) {
  const x = (patch[1] + patch[3]) / 2, y = (patch[2] + patch[4]) / 2;
  return box[0] === patch[0] && box[1] <= x && x < box[3] && box[2] <= y && y < box[4];
}

function place(node, [, x0, y0, x1, y1]) {
  Object.assign(node.style, { left: 100 * x0 + "%", top: 100 * y0 + "%", width: 100 * (x1 - x0) + "%", height: 100 * (y1 - y0) + "%" });
  return node;
}

function firstNamed(example) {
  const named = example.words.findIndex((word) => word.boxes.length);
  return { kind: "word", index: Math.max(named, 0) };
}

function total(values) {
  return values.reduce((sum, value) => sum + value, 0);
}
