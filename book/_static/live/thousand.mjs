// SPDX-License-Identifier: MIT
// A worker that counts how many of the 1,000 test digits a model reads, with a mistake planted, heads
// silenced or positions taken away, so that the page itself stays free.

import { loadDigits } from "./digits.mjs";
import { forward, readModel } from "./vit.mjs";

const BATCH = 50; // images
let digits = null;

onmessage = async ({ data: { id, buffer, options } }) => {
  try {
    digits ??= loadDigits().then(({ test }) => test);
    const { images, labels } = await digits;
    const model = readModel(buffer);
    if (!options.positions) delete model.weights.pos_embed;
    const { bug, zeroed } = options;
    const wrong = [];
    const K = model.classes.length;
    for (let first = 0; first < labels.length; first += BATCH) {
      const grey = images.subarray(first * 784, (first + BATCH) * 784);
      const scaled = Float32Array.from(grey, (value) => value / 255);
      const { logits } = forward(model, scaled, { bug, zeroed: new Set(zeroed) });
      for (let b = 0; b < BATCH; b++) {
        const row = logits.subarray(b * K, (b + 1) * K);
        if (row.indexOf(Math.max(...row)) !== labels[first + b]) wrong.push(first + b);
      }
      postMessage({ id, done: first + BATCH });
    }
    postMessage({ id, wrong, correct: labels.length - wrong.length, count: labels.length });
  } catch (error) {
    digits = null;
    postMessage({ id, error: error.message });
  }
};
