// SPDX-License-Identifier: MIT
// Trains a small ViT on digits, in a page, in a worker or in Node: the model, its loss, AdamW and the
// schedule of chapters 5 and 6, without a library. The layers stand in layers.mjs.

import { CLASSES, MEAN, PIXELS, SIDE, STD, normalise } from "./digits.mjs";
import { Block, Identity, LayerNorm, Linear } from "./layers.mjs";
import { Kernel } from "./kernel.mjs";
import { Random } from "./random.mjs";
import { writeSafetensors } from "./safetensors.mjs";

/** All that decides a run. The first names are vitcore's, and so is what they mean. */
export const DEFAULTS = {
  patch_size: 7, // P, in pixels; divides 28
  dim: 32, // D, the width
  depth: 2, // L, the number of blocks
  heads: 4, // h, which divides D
  mlp_ratio: 2, // the MLP's hidden width as a multiple of D
  class_token: false, // a token of its own is read out, else the mean of the patches
  positions: "learned", // or "none"
  init_std: 0.15, // of the first weights
  // What no ViT of vitcore leaves out; false here does.
  residuals: true,
  norms: true,
  scaled: true, // q kᵀ divided by √d
  // Training, as chapter 6 has it.
  lr: 0.01,
  min_lr: 1e-5,
  weight_decay: 0.05,
  betas: [0.9, 0.99],
  clip_norm: 1,
  batch_size: 32,
  epochs: 12,
  warmup_epochs: 0.5,
  shift: 1, // training digits are moved by up to so many pixels
  seed: 0,
};

/** A ViT with its gradients, for batches of at most `batch_size` images. */
export class ViT {
  constructor(options = {}, vectors = undefined, kernel = undefined) {
    const c = (this.config = checked({ ...DEFAULTS, ...options }));
    this.kernel = kernel ?? new Kernel(countNumbers(c), vectors);
    this.random = new Random(c.seed);
    this.parameters = {}; // by vitcore's name: {shape, value, grad}
    const side = SIDE / c.patch_size;
    this.patches = side * side; // N
    this.prefix = c.class_token ? 1 : 0;
    this.tokens = this.patches + this.prefix; // T
    const rows = c.batch_size * this.tokens;
    const area = c.patch_size ** 2;
    const sizes = { ...c, hidden: c.dim * c.mlp_ratio, std: c.init_std };
    const shape = [c.dim, 1, c.patch_size, c.patch_size];
    this.cut = this.array(c.batch_size * PIXELS); // (B, N, P P)
    this.x = this.array(rows * c.dim); // (B, T, D), what enters the first block
    if (c.class_token) this.cls_token = this.parameter("cls_token", [1, 1, c.dim], 0.02);
    if (c.positions === "learned") {
      this.pos_embed = this.parameter("pos_embed", [1, this.tokens, c.dim], 0.02);
    }
    const name = "patch_embed.proj";
    this.proj = new Linear(this, name, area, c.dim, c.batch_size * this.patches, c.init_std, { shape });
    this.blocks = Array.from(
      { length: c.depth },
      (_, layer) => new Block(this, `blocks.${layer}`, sizes, c.batch_size, this.tokens),
    );
    this.norm = c.norms ? new LayerNorm(this, "norm", c.dim, rows) : new Identity();
    this.pooled = this.array(c.batch_size * c.dim);
    // A head of large weights would start with opinions.
    this.head = new Linear(this, "head", c.dim, CLASSES, c.batch_size, 0.02);
    this.dLogits = this.array(c.batch_size * CLASSES);
    this.dFeatures = this.array(rows * c.dim);
    this.dPatches = this.array(c.batch_size * this.patches * c.dim);
  }

  /** Zeros for `count` numbers. */
  array(count) {
    return this.kernel.array(count);
  }

  /** A parameter that starts at `mean`, or around it with the deviation `std`. */
  parameter(name, shape, std, mean = 0) {
    const count = shape.reduce((product, side) => product * side, 1);
    const [value, grad] = [this.array(count), this.array(count)];
    for (let i = 0; i < value.length; i++) value[i] = std ? mean + std * this.random.normal() : mean;
    return (this.parameters[name] = { shape, value, grad });
  }

  /** Normalised images (B, 28, 28) -> logits (B, 10), in an array that the next pass overwrites. */
  forward(images) {
    const { patches, prefix, tokens, cut, x, pooled } = this;
    const { dim, patch_size, class_token } = this.config;
    const batch = images.length / PIXELS;
    this.batch = batch;
    cutPatches(images, patch_size, cut);
    const embedded = this.proj.forward(cut, batch * patches);
    for (let image = 0; image < batch; image++) {
      const at = image * tokens * dim;
      if (class_token) x.set(this.cls_token.value, at);
      const row = embedded.subarray(image * patches * dim, (image + 1) * patches * dim);
      x.set(row, at + prefix * dim);
      if (this.pos_embed) {
        for (let i = 0; i < tokens * dim; i++) x[at + i] += this.pos_embed.value[i];
      }
    }
    let features = x;
    for (const block of this.blocks) features = block.forward(features, batch * tokens);
    features = this.norm.forward(features, batch * tokens);
    const read = class_token ? 1 : tokens; // how many tokens the head reads, the mean of them
    pooled.fill(0);
    for (let image = 0; image < batch; image++) {
      for (let t = 0; t < read; t++) {
        const at = (image * tokens + t) * dim;
        for (let c = 0; c < dim; c++) pooled[image * dim + c] += features[at + c] / read;
      }
    }
    return this.head.forward(pooled, batch);
  }

  /** Gradients of every parameter, from those of the logits (B, 10) of the last pass. */
  backward(dLogits) {
    const { patches, prefix, tokens, batch, dFeatures, dPatches } = this;
    const { dim, class_token } = this.config;
    const dPooled = this.head.backward(dLogits, batch);
    const read = class_token ? 1 : tokens;
    dFeatures.fill(0);
    for (let image = 0; image < batch; image++) {
      for (let t = 0; t < read; t++) {
        const at = (image * tokens + t) * dim;
        for (let c = 0; c < dim; c++) dFeatures[at + c] = dPooled[image * dim + c] / read;
      }
    }
    let dx = this.norm.backward(dFeatures, batch * tokens);
    for (const block of [...this.blocks].reverse()) dx = block.backward(dx, batch * tokens);
    this.pos_embed?.grad.fill(0);
    this.cls_token?.grad.fill(0);
    for (let image = 0; image < batch; image++) {
      const row = dx.subarray(image * tokens * dim, (image + 1) * tokens * dim);
      const dPositions = this.pos_embed?.grad ?? [];
      for (let i = 0; i < dPositions.length; i++) dPositions[i] += row[i];
      if (class_token) for (let c = 0; c < dim; c++) this.cls_token.grad[c] += row[c];
      dPatches.set(row.subarray(prefix * dim), image * patches * dim);
    }
    this.proj.gradients(dPatches, batch * patches);
  }

  /** Forward and backward: the mean cross-entropy of labels (B), and how many classes are right. */
  learn(images, labels) {
    const { dLogits } = this;
    const answer = crossEntropy(this.forward(images), labels, dLogits);
    this.backward(dLogits);
    return answer;
  }

  /** The attention weights of the last pass, layer by layer, each (B, h, T, T). */
  get attention() {
    return this.blocks.map((block) => block.attn.weights);
  }

  /** Why vitcore has no place for this model; empty where it has. */
  whyNotSaved() {
    const missing = [];
    if (!this.config.residuals) missing.push("without residual connections");
    if (!this.config.norms) missing.push("without norms");
    if (!this.config.scaled) missing.push("without the division by √d");
    return missing.join(" and ");
  }

  /** The weights as a file that vitcore.training.load_weights reads; `extra` goes with them. */
  save(extra = {}) {
    if (this.whyNotSaved()) throw new Error(`vitcore has no ViT ${this.whyNotSaved()}.`);
    const { patch_size, dim, depth, heads, mlp_ratio, class_token, positions, init_std } = this.config;
    const config = {
      image_size: SIDE, patch_size, in_channels: 1, num_classes: CLASSES, dim, depth, heads, mlp_ratio,
      qkv_bias: true, class_token, class_position: true, registers: 0, pool: class_token ? "cls" : "mean",
      pool_norm: "before", positions, patch_embed: "linear", attention: "global", init_std,
    };
    const classes = Array.from({ length: CLASSES }, (_, digit) => `${digit}`);
    const metadata = { config, classes, mean: [MEAN], std: [STD], extra };
    for (const key of Object.keys(metadata)) metadata[key] = JSON.stringify(metadata[key]);
    const tensors = {};
    for (const [name, { shape, value }] of Object.entries(this.parameters)) {
      tensors[name] = { shape, data: value };
    }
    return writeSafetensors(tensors, metadata);
  }
}

/** How many numbers all arrays of a model hold: one is made whose arrays are counted and empty. */
function countNumbers(options) {
  let total = 0;
  const array = (count) => {
    total += count;
    return new Float32Array(0);
  };
  new ViT(options, undefined, { array });
  return total;
}

/** The options of a run, or one sentence on the first that does not fit. */
function checked(options) {
  const unknown = Object.keys(options).find((name) => !(name in DEFAULTS));
  if (unknown) throw new Error(`There is no option ${unknown}; give some of ${Object.keys(DEFAULTS)}.`);
  for (const name of ["patch_size", "dim", "depth", "heads", "batch_size", "epochs"]) {
    if (!Number.isInteger(options[name]) || options[name] < 1) {
      throw new Error(`${name} is ${options[name]}; give a whole number above 0.`);
    }
  }
  const { patch_size, dim, heads, positions } = options;
  if (SIDE % patch_size) {
    throw new Error(`Patches of ${patch_size} pixels do not divide ${SIDE}; give 4, 7 or 14.`);
  }
  if (dim % heads) throw new Error(`dim ${dim} does not divide into ${heads} heads.`);
  if (!["learned", "none"].includes(positions)) {
    throw new Error(`positions is ${positions}; give "learned" or "none".`);
  }
  return options;
}

/** Images (B, 28, 28) -> patches (B, N, P P), row by row (chapter 1). */
function cutPatches(images, size, out) {
  const side = SIDE / size;
  let at = 0;
  for (let image = 0; image < images.length; image += PIXELS) {
    for (let patch = 0; patch < side * side; patch++) {
      const corner = image + Math.floor(patch / side) * size * SIDE + (patch % side) * size;
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) out[at++] = images[corner + y * SIDE + x];
      }
    }
  }
}

/**
 * The mean of -log softmax(logits)[label] over the batch, and how many classes are right; its
 * gradient, (softmax(logits) - one-hot) / B, goes into `dLogits`.
 */
export function crossEntropy(logits, labels, dLogits) {
  const batch = labels.length;
  let [loss, right] = [0, 0];
  for (let image = 0; image < batch; image++) {
    const row = logits.subarray(image * CLASSES, (image + 1) * CLASSES);
    const largest = Math.max(...row);
    let sum = 0;
    for (let c = 0; c < CLASSES; c++) sum += Math.exp(row[c] - largest);
    const label = labels[image];
    loss += (Math.log(sum) + largest - row[label]) / batch;
    if (row[label] === largest) right += 1;
    for (let c = 0; c < CLASSES; c++) {
      const share = Math.exp(row[c] - largest) / sum;
      dLogits[image * CLASSES + c] = (share - (c === label ? 1 : 0)) / batch;
    }
  }
  return { loss, right };
}

/** Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as torch.optim.AdamW computes it. */
export class AdamW {
  constructor(parameters, { betas, weight_decay, eps = 1e-8 }) {
    Object.assign(this, { betas, eps, steps: 0 });
    this.entries = Object.entries(parameters).map(([name, { shape, value, grad }]) => {
      // Weight decay is for matrices: not for biases, norms, positions and tokens (chapter 6).
      const exempt = shape.length === 1 || name === "pos_embed" || name === "cls_token";
      const [m, v] = [new Float32Array(value.length), new Float32Array(value.length)];
      return { value, grad, m, v, decay: exempt ? 0 : weight_decay };
    });
  }

  /** Shorten all gradients together to at most `norm`; returns their length before. */
  clip(norm) {
    let square = 0;
    for (const { grad } of this.entries) for (const d of grad) square += d * d;
    const length = Math.sqrt(square);
    if (length > norm) {
      for (const { grad } of this.entries) {
        for (let i = 0; i < grad.length; i++) grad[i] *= norm / length;
      }
    }
    return length;
  }

  step(lr) {
    const [beta1, beta2] = this.betas;
    this.steps += 1;
    const unbias1 = 1 / (1 - beta1 ** this.steps);
    const unbias2 = 1 / (1 - beta2 ** this.steps);
    for (const { value, grad, m, v, decay } of this.entries) {
      for (let i = 0; i < value.length; i++) {
        m[i] += (1 - beta1) * (grad[i] - m[i]);
        v[i] += (1 - beta2) * (grad[i] * grad[i] - v[i]);
        const size = Math.sqrt(v[i] * unbias2) + this.eps;
        value[i] -= lr * (decay * value[i] + (m[i] * unbias1) / size);
      }
    }
  }
}

/** A run: digits in random order, step after step, until its epochs are done. */
export class Trainer {
  /** @param {{images: Uint8Array, labels: Uint8Array}} digits those to train on */
  constructor(digits, options = {}) {
    this.digits = digits;
    this.model = new ViT(options);
    const c = (this.config = this.model.config);
    this.optimizer = new AdamW(this.model.parameters, c);
    this.random = new Random(c.seed + 1); // weights and batches draw apart
    this.perEpoch = Math.floor(digits.labels.length / c.batch_size);
    this.steps = this.perEpoch * c.epochs;
    this.step = 0;
    this.images = new Float32Array(c.batch_size * PIXELS);
    this.labels = new Uint8Array(c.batch_size);
    this.black = (0 - MEAN) / STD;
    this.levels = normalise(Float32Array.from({ length: 256 }, (_, grey) => grey)); // of each grey
  }

  get done() {
    return this.step >= this.steps;
  }

  /** The learning rate of step `step`: a rise, then half a cosine down to min_lr (chapter 6). */
  rate(step = this.step) {
    const { lr, min_lr, warmup_epochs } = this.config;
    const half = Math.floor(this.steps / 2);
    const warmup = Math.min(Math.round(warmup_epochs * this.perEpoch), half);
    if (step < warmup) return (lr * (step + 1)) / warmup;
    const share = Math.min(1, (step - warmup + 1) / Math.max(1, this.steps - warmup));
    return min_lr + 0.5 * (lr - min_lr) * (1 + Math.cos(Math.PI * share));
  }

  /** One step: {step, loss, accuracy, norm, lr}, of the batch before the step. */
  train() {
    const { model, optimizer, config } = this;
    this.drawBatch();
    const { loss, right } = model.learn(this.images, this.labels);
    const norm = optimizer.clip(config.clip_norm);
    const lr = this.rate();
    optimizer.step(lr);
    this.step += 1;
    return { step: this.step, loss, accuracy: right / this.labels.length, norm, lr };
  }

  /** Fill images and labels with the next digits, each moved a little. */
  drawBatch() {
    const { digits, random, images, labels } = this;
    const { batch_size, shift } = this.config;
    const place = (this.step % this.perEpoch) * batch_size;
    if (place === 0) this.order = random.permutation(digits.labels.length);
    images.fill(this.black);
    for (let i = 0; i < batch_size; i++) {
      const digit = this.order[place + i];
      labels[i] = digits.labels[digit];
      const right = random.below(2 * shift + 1) - shift;
      const down = random.below(2 * shift + 1) - shift;
      for (let y = Math.max(0, down); y < Math.min(SIDE, SIDE + down); y++) {
        for (let x = Math.max(0, right); x < Math.min(SIDE, SIDE + right); x++) {
          const from = digit * PIXELS + (y - down) * SIDE + (x - right);
          images[i * PIXELS + y * SIDE + x] = this.levels[digits.images[from]];
        }
      }
    }
  }
}

/** The share of digits whose class `model` gets right. */
export function accuracy(model, { images, labels }) {
  const size = model.config.batch_size;
  const ignored = new Float32Array(size * CLASSES);
  let right = 0;
  for (let from = 0; from < labels.length; from += size) {
    const some = labels.subarray(from, from + size);
    const pixels = images.subarray(from * PIXELS, (from + some.length) * PIXELS);
    right += crossEntropy(model.forward(normalise(pixels)), some, ignored).right;
  }
  return right / labels.length;
}
