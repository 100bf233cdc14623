// SPDX-License-Identifier: MIT
// What "Try it" is about at any moment: the model, the image, what was changed in both, and the
// pass of the one through the other, with every number that the page shows.

import { loadDigits } from "./digits.mjs";
import { answer, forward, readModel, softmax } from "./vit.mjs";

const file = (name) => new URL(name, import.meta.url);

/** Fetch a file of this folder; throws with one sentence where it cannot be had. */
export async function fetchFile(name) {
  const response = await fetch(file(name)).catch(() => null);
  if (!response?.ok) throw new Error(`${name} could not be fetched: check the connection.`);
  return response.arrayBuffer();
}

export class Lab {
  constructor() {
    this.model = null;
    this.digit = null; // (28 * 28) in 0 to 255, before anything is erased or shuffled
    this.layer = 1;
    this.head = 2;
    this.query = 0; // a token
    this.key = 0;
    this.bug = null;
    this.changed = () => {};
    this.waiting = false;
    this.worker = null;
    this.measured = new Map();
    this.restore();
  }

  async load(buffer = null) {
    this.use(buffer ?? await fetchFile("mnist.safetensors"));
  }

  /** Run a model from the bytes of its file. */
  use(buffer) {
    const model = readModel(buffer);
    const { config, H, W, classes } = model;
    if (H !== 28 || W !== 28 || config.in_channels !== 1 || classes.length !== 10) {
      throw new Error("This model is not one of digits: 28 x 28 pixels in one channel, 10 classes.");
    }
    [this.model, this.buffer] = [model, buffer];
    this.measured.clear();
    this.layer = Math.min(this.layer, config.depth - 1);
    this.head = Math.min(this.head, config.heads - 1);
    this.restore();
    this.query = this.key = this.busiest();
    this.update();
  }

  /** Put the patches, the positions and the heads back. */
  restore() {
    this.erased = new Set();
    this.order = null; // what stands at each place of the grid, where patches were shuffled
    this.positions = true;
    this.zeroed = new Set();
  }

  /** How many patches the grid has. */
  get places() {
    return this.model.grid[0] * this.model.grid[1];
  }

  get across() {
    return this.bug === "across-the-batch";
  }

  async loadDigits() {
    this.test ??= loadDigits().then(({ test }) => test);
    try {
      return await this.test;
    } catch (error) {
      this.test = null;
      throw error;
    }
  }

  /** Run the model anew before the next frame. */
  update() {
    if (this.waiting || !this.model || !this.digit) return;
    this.waiting = true;
    const go = () => {
      if (!this.waiting) return;
      this.waiting = false;
      this.run();
      this.changed();
    };
    requestAnimationFrame(go);
    setTimeout(go, 100); // a hidden tab has no frames
  }

  run() {
    this.grey = this.arrange(this.digit);
    this.trace = this.pass(this.bug);
    const { logits } = this.trace;
    this.shares = softmax(logits.slice(0, this.model.classes.length));
    this.best = this.shares.indexOf(Math.max(...this.shares));
  }

  /** The digit with its patches shuffled and erased. */
  arrange(digit) {
    const { grid: [, cols], config: { patch_size: P } } = this.model;
    const out = new Uint8Array(digit.length);
    for (let place = 0; place < this.places; place++) {
      if (this.erased.has(place)) continue;
      const from = this.order ? this.order[place] : place;
      const corner = (n) => Math.floor(n / cols) * P * 28 + (n % cols) * P;
      for (let y = 0; y < P; y++)
        for (let x = 0; x < P; x++)
          out[corner(place) + y * 28 + x] = digit[corner(from) + y * 28 + x];
    }
    return out;
  }

  /** One pass of this image; where attention goes across the batch, with test digits beside it. */
  pass(bug) {
    const batch = [this.grey];
    if (bug === "across-the-batch" && this.others) batch.push(...this.others);
    const images = new Float32Array(batch.length * 784);
    batch.forEach((grey, b) => grey.forEach((value, i) => (images[b * 784 + i] = value / 255)));
    return forward(this.changedModel(), images, { bug, zeroed: this.zeroed });
  }

  changedModel() {
    if (this.positions) return this.model;
    return { ...this.model, weights: { ...this.model.weights, pos_embed: undefined } };
  }

  /** The shares of the classes with a bug planted: what it does to this digit. */
  withBug(bug) {
    return softmax(this.pass(bug).logits.slice(0, this.model.classes.length));
  }

  /** Plant a mistake, or none. */
  async plant(bug) {
    if (bug === "across-the-batch") await this.gatherBatch();
    this.bug = bug;
    this.update();
  }

  /** Test digits to stand beside this one in a batch: as many as there are tokens, with it. */
  async gatherBatch() {
    const { images } = await this.loadDigits();
    const count = Math.max(2, this.model.N);
    this.others = Array.from({ length: count - 1 }, (_, i) =>
      images.subarray((i + 30) * 784, (i + 31) * 784));
  }

  // --- numbers of this image, by token ------------------------------------------------------------

  /** Token i's numbers in a tensor (B, N, width). */
  token(tensor, i, width = this.model.D) {
    return tensor.subarray(i * width, (i + 1) * width);
  }

  /** Where the numbers of a layer's head stand: of token i, or across the batch of its image j. */
  place(head, i, j = 0) {
    const { N, config: { heads } } = this.model;
    return this.across ? (i * heads + head) * this.trace.B + j : head * N + i;
  }

  q(i, layer = this.layer, head = this.head) {
    return this.token(this.trace.layers[layer].q, this.place(head, i), this.model.d);
  }

  /** The key of what query i sees as number j: token j, or image j of the batch. */
  k(i, j, layer = this.layer, head = this.head) {
    const place = this.across ? this.place(head, i, j) : this.place(head, j);
    return this.token(this.trace.layers[layer].k, place, this.model.d);
  }

  /** How much query i takes from each: (N), or across the batch (B). */
  row(i, layer = this.layer, head = this.head) {
    const { attention } = this.trace.layers[layer];
    const count = this.across ? this.trace.B : this.model.N;
    return attention.subarray(this.place(head, i) * count, (this.place(head, i) + 1) * count);
  }

  scores(i) {
    const { scale } = this.trace.layers[this.layer];
    const q = this.q(i);
    return Float32Array.from({ length: this.row(i).length }, (_, j) =>
      this.k(i, j).reduce((sum, value, e) => sum + value * q[e], 0) * scale);
  }

  /** The answer read from the tokens before block 0, and after each: shares of the classes. */
  answers() {
    const { trace, model } = this;
    const states = [trace.embedding, ...trace.layers.map((layer) => layer.tokens)];
    return states.map((tokens) => {
      const { logits } = answer(model, tokens.subarray(0, model.N * model.D), 1, this.bug);
      return softmax(logits);
    });
  }

  /** The patch with the most ink, to begin with. */
  busiest() {
    if (!this.digit) return this.model.prefix;
    const { grid: [, cols], config: { patch_size: P }, prefix } = this.model;
    const ink = new Float64Array(this.places);
    this.digit.forEach((value, i) => {
      ink[Math.floor(i / (28 * P)) * cols + Math.floor((i % 28) / P)] += value;
    });
    return prefix + ink.indexOf(Math.max(...ink));
  }

  /** What a token is called. */
  name(i) {
    const { prefix, grid: [, cols] } = this.model;
    if (i < prefix) return "the class token";
    const place = i - prefix;
    return `patch ${place} (row ${Math.floor(place / cols) + 1}, column ${place % cols + 1})`;
  }

  /** What query i sees as number j. */
  keyName(j) {
    if (!this.across) return this.name(j);
    return j ? `test digit ${j} of the batch` : "this digit";
  }

  // --- accuracy -----------------------------------------------------------------------------------

  /**
   * The accuracy on the 1,000 test digits with a bug and with heads and positions as they are, by a
   * worker: {correct, wrong: indices}. `tell(done)` hears how many are done.
   */
  measure(bug, tell = () => {}) {
    const options = { bug, positions: this.positions, zeroed: [...this.zeroed].sort() };
    const key = JSON.stringify(options);
    if (!this.measured.has(key)) {
      if (!this.worker) {
        this.worker = new Worker(file("thousand.mjs"), { type: "module" });
        this.jobs = new Map();
        this.worker.onmessage = ({ data: { id, ...told } }) => this.jobs.get(id)?.(told);
      }
      const id = (this.lastJob = (this.lastJob ?? 0) + 1);
      const result = new Promise((resolve, reject) => {
        this.jobs.set(id, ({ done, error, ...told }) => {
          if (error) reject(new Error(error));
          else if (told.wrong) resolve(told);
          else tell(done);
        });
        this.worker.onerror = () => reject(new Error("The digits could not be counted here."));
      });
      this.worker.postMessage({ id, buffer: this.buffer, options });
      this.measured.set(key, result);
      result.catch(() => this.measured.delete(key));
    }
    return this.measured.get(key);
  }
}
