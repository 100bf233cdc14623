// SPDX-License-Identifier: MIT
// The forward pass of vitcore's ViT told a second time, with the same names and shapes, so that a
// page can run the models of chapters 6 and 7. Shapes: B images, C channels, H and W pixels, P
// pixels a patch, N tokens (with the class token, where there is one), D width, h heads, d = D/h,
// K classes. Every tensor is a Float32Array, the last axis running fastest.

import { Kernel } from "./kernel.mjs";
import { readSafetensors } from "./safetensors.mjs";

const NORM_EPS = 1e-6;
const CHUNK = 256; // rows that are multiplied at once
const ATTENTIONS = ["global", "locally_enhanced"];

/**
 * The thirteen mistakes of vitbook's BUGS, by name, each planted at the line that asks for it.
 * A bug is planted in a model trained without it; the weights stay as they are.
 */
export const BUGS = [
  "plain-reshape", "class-token-without-position", "one-position-row", "no-positions", "unscaled",
  "scaled-by-width", "softmax-over-queries", "unmerged-heads", "across-the-batch",
  "no-attention-residual", "post-norm", "no-final-norm", "wrong-readout",
];

/**
 * The model in a file that `save_weights` or `python -m vitcore export-web` wrote.
 * @param {ArrayBuffer} buffer
 * @throws {Error} one sentence for a file that is not of a ViT which this file can run
 */
export function readModel(buffer) {
  const { tensors, metadata } = readSafetensors(buffer);
  const lacking = ["config", "classes", "mean", "std"].filter((name) => !(name in metadata));
  if (lacking.length) throw new Error(`The file has no ${lacking.join(", ")} in its metadata.`);
  const told = (name) => JSON.parse(metadata[name]);
  const weights = Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, t.data]));
  return makeModel(told("config"), weights, {
    classes: told("classes"), mean: told("mean"), std: told("std"),
    extra: JSON.parse(metadata.extra ?? "{}"),
  });
}

/** A model from ViTConfig's values, weights by name, and what `LoadedModel` holds besides. */
export function makeModel(config, weights, { classes, mean, std, extra = {} }) {
  const refused = {
    registers: config.registers, layer_scale: config.layer_scale,
    pool_norm: config.pool_norm === "after", class_position: config.class_position === false,
    positions: config.positions === "sincos", attention: !ATTENTIONS.includes(config.attention),
    patch_embed: !(config.patch_embed in PATCH_EMBEDS),
  };
  for (const name of Object.keys(refused)) {
    if (refused[name]) throw new Error(`This page cannot run ${name} = ${config[name]}.`);
  }
  const [H, W] = [config.image_size, config.image_size].flat();
  const grid = [H / config.patch_size, W / config.patch_size];
  const prefix = config.class_token ? 1 : 0;
  const N = prefix + grid[0] * grid[1];
  const D = config.dim;
  const expected = { "head.weight": D * config.num_classes, "norm.weight": D };
  for (let l = 0; l < config.depth; l++) expected[`blocks.${l}.attn.qkv.weight`] = 3 * D * D;
  if (config.positions === "learned") expected.pos_embed = N * D;
  for (const [name, length] of Object.entries(expected)) {
    if (weights[name]?.length !== length) throw new Error(`${name} does not fit its config.`);
  }
  const d = D / config.heads;
  const bench = makeBench(weights, D, d, N);
  return { config, weights, classes, mean, std, extra, H, W, grid, prefix, N, D, d, bench };
}

/**
 * Run the model and keep every intermediate, as `ViT.forward_with` does.
 * @param {object} model
 * @param {Float32Array} images (B, C, H, W) in [0, 1]
 * @param {{bug?: string, zeroed?: Set<string>}} options one of BUGS; heads to silence, "layer.head"
 * @returns {object} logits (B, K), pooled (B, D), features and embedding (B, N, D), input
 *   (B, C, H, W) normalised, patches (B, N, C·P·P) of linear patches, content: the tokens before
 *   positions, positions (N, D) or null, and layers: see `block`
 */
export function forward(model, images, { bug = null, zeroed = new Set() } = {}) {
  const { config, N, D, weights } = model;
  const B = images.length / (config.in_channels * model.H * model.W);
  const input = normalise(model, images);
  const { tokens, patches } = PATCH_EMBEDS[config.patch_embed](model, input, B, bug);
  const content = new Float32Array(B * N * D); // (B, N, D)
  for (let b = 0; b < B; b++) {
    if (model.prefix) content.set(weights.cls_token, b * N * D);
    const count = (N - model.prefix) * D;
    content.set(tokens.subarray(b * count, (b + 1) * count), (b * N + model.prefix) * D);
  }
  const positions = positionTable(model, bug);
  const embedding = content.slice();
  if (positions) for (let i = 0; i < embedding.length; i++) embedding[i] += positions[i % (N * D)];
  const layers = [];
  let x = embedding;
  for (let l = 0; l < config.depth; l++) {
    layers.push(block(model, l, x, B, bug, zeroed));
    x = layers[l].tokens;
  }
  return { B, input, patches, content, positions, embedding, layers, ...answer(model, x, B, bug) };
}

/** Images in [0, 1] -> what the model reads: mean 0, deviation 1 per channel. */
function normalise({ mean, std, H, W }, images) {
  const channel = (i) => Math.floor(i / (H * W)) % mean.length;
  return images.map((value, i) => (value - mean[channel(i)]) / std[channel(i)]);
}

/** Chapter 1: images (B, C, H, W) -> patches (B, N, C·P·P) in the order channel, row, column. */
export function patchify(images, { config, grid, H, W }, B) {
  const { patch_size: P, in_channels: C } = config;
  const out = new Float32Array(images.length);
  let i = 0;
  for (let b = 0; b < B; b++)
    for (let row = 0; row < grid[0]; row++)
      for (let col = 0; col < grid[1]; col++)
        for (let c = 0; c < C; c++)
          for (let y = 0; y < P; y++)
            for (let x = 0; x < P; x++)
              out[i++] = images[((b * C + c) * H + row * P + y) * W + col * P + x];
  return out;
}

const PATCH_EMBEDS = {
  /** Chapter 1: patchify and one linear map. */
  linear(model, images, B, bug) {
    const { patch_size: P, in_channels: C } = model.config;
    const count = B * model.grid[0] * model.grid[1];
    const patches = bug === "plain-reshape" ? images : patchify(images, model, B);
    const tokens = linear(model, "patch_embed.proj", patches, count, C * P * P); // (B, N, D)
    return { tokens, patches };
  },
  /** Chapter 7: convolutions of 3x3, each followed by pooling over 3x3 that halves both sides. */
  conv_stem(model, images, B) {
    let [C, H, W] = [model.config.in_channels, model.H, model.W];
    let x = new Float32Array(images.length); // (B, H, W, C): the channels of a pixel side by side
    for (let b = 0, i = 0; b < B; b++)
      for (let p = 0; p < H * W; p++)
        for (let c = 0; c < C; c++) x[i++] = images[(b * C + c) * H * W + p];
    for (let l = 0; `patch_embed.convs.${l}.weight` in model.weights; l++) {
      const seen = windows(x, B, H, W, C); // (B·H·W, C·3·3)
      const wide = linear(model, `patch_embed.convs.${l}`, seen, B * H * W, 9 * C);
      C = wide.length / (B * H * W);
      x = poolAndRelu(wide, B, H, W, C);
      [H, W] = [Math.ceil(H / 2), Math.ceil(W / 2)];
    }
    return { tokens: x, patches: null }; // (B, N, D)
  },
};

/** What a 3x3 kernel sees at each pixel, zeros around: (B, H, W, C) -> (B·H·W, C·3·3). */
function windows(x, B, H, W, C) {
  const out = new Float32Array(B * H * W * C * 9);
  for (let p = 0; p < B * H * W; p++) {
    const [col, row] = [p % W, Math.floor(p / W) % H];
    for (let dy = -1; dy <= 1; dy++)
      for (let dx = -1; dx <= 1; dx++) {
        if (row + dy < 0 || row + dy >= H || col + dx < 0 || col + dx >= W) continue;
        const from = (p + dy * W + dx) * C;
        const to = p * C * 9 + (dy + 1) * 3 + dx + 1;
        for (let c = 0; c < C; c++) out[to + c * 9] = x[from + c];
      }
  }
  return out;
}

/** The largest of 3x3 pixels, or 0, at every second: (B, H, W, C) -> (B, H/2, W/2, C). */
function poolAndRelu(x, B, H, W, C) {
  const [high, wide] = [Math.ceil(H / 2), Math.ceil(W / 2)];
  const out = new Float32Array(B * high * wide * C); // zeros: what ReLU leaves at least
  for (let b = 0; b < B; b++)
    for (let row = 0; row < H; row++)
      for (let col = 0; col < W; col++) {
        const from = ((b * H + row) * W + col) * C;
        // An odd row lies in the windows above and below it, an even one in its own.
        for (let r = row >> 1; r <= (row + 1) >> 1 && r < high; r++)
          for (let s = col >> 1; s <= (col + 1) >> 1 && s < wide; s++) {
            const to = ((b * high + r) * wide + s) * C;
            for (let c = 0; c < C; c++) if (x[from + c] > out[to + c]) out[to + c] = x[from + c];
          }
      }
  return out;
}

/** Chapter 2: the table (N, D) that is added to the tokens, or null. */
function positionTable({ weights, D }, bug) {
  if (!weights.pos_embed || bug === "no-positions") return null;
  const table = weights.pos_embed.slice();
  if (bug === "one-position-row") for (let i = D; i < table.length; i++) table[i] = table[i % D];
  if (bug === "class-token-without-position") table.fill(0, 0, D);
  return table;
}

/**
 * Chapter 4: one block, x (B, N, D) -> tokens (B, N, D), with what happens inside: x itself, what
 * `attend` keeps, attn_out and mlp_out (what the branches add), middle = x + attn_out, and hidden
 * (B, N, 2D), the MLP's numbers after GELU.
 */
function block(model, l, x, B, bug, zeroed) {
  const name = `blocks.${l}`;
  const rows = x.length / model.D;
  const post = bug === "post-norm";
  const attention = attend(model, l, post ? x : norm(model, `${name}.norm1`, x), B, bug, zeroed);
  let middle = bug === "no-attention-residual" ? attention.attn_out : sum(x, attention.attn_out);
  if (post) middle = norm(model, `${name}.norm1`, middle);
  const read = post ? middle : norm(model, `${name}.norm2`, middle);
  const hidden = linear(model, `${name}.mlp.fc1`, read, rows, model.D).map(gelu);
  const mlp_out = linear(model, `${name}.mlp.fc2`, hidden, rows, hidden.length / rows);
  let tokens = sum(middle, mlp_out);
  if (post) tokens = norm(model, `${name}.norm2`, tokens);
  return { x, ...attention, middle, hidden, mlp_out, tokens };
}

/**
 * Chapter 3: multi-head self-attention. Keeps normed (B, N, D), q, k and v (B, h, N, d), scale,
 * attention (B, h, N, N), mixed (B, N, D) before the output projection, attn_out (B, N, D).
 * Where attention goes across the batch by mistake, B and N change places in all but attn_out.
 */
function attend(model, l, normed, B, bug, zeroed) {
  const { D, d, config, bench } = model;
  const h = config.heads;
  const name = `blocks.${l}.attn`;
  let N = normed.length / (B * D);
  const across = bug === "across-the-batch";
  let input = normed;
  if (across) [input, B, N] = [transpose(normed, B, N, D), N, B];
  const qkv = linear(model, `${name}.qkv`, input, B * N, D); // (B, N, 3·h·d)
  const [q, k, v] = [0, 1, 2].map((part) => {
    const out = new Float32Array(B * N * D); // (B, h, N, d)
    for (let b = 0, i = 0; b < B; b++)
      for (let head = 0; head < h; head++)
        for (let n = 0; n < N; n++) {
          const from = (b * N + n) * 3 * D + part * D + head * d;
          for (let e = 0; e < d; e++) out[i++] = qkv[from + e];
        }
    return out;
  });
  const scale = { unscaled: 1, "scaled-by-width": 1 / D }[bug] ?? 1 / Math.sqrt(d);
  const attention = new Float32Array(B * h * N * N);
  const gathered = new Float32Array(B * N * D); // (B, h, N, d)
  for (let s = 0; s < B * h; s++) { // one image's head after another
    const own = (tensor) => tensor.subarray(s * N * d, (s + 1) * N * d); // (N, d)
    const turned = transpose(own(k), N, d, 1); // (d, N)
    const map = product(bench, own(q), turned, N, d, N).map((score) => score * scale); // (N, N)
    for (let i = 0; i < N; i++) // along the keys of query i
      bug === "softmax-over-queries" ? softmax(map, i, N, N) : softmax(map, i * N, 1, N);
    attention.set(map, s * N * N);
    if (zeroed.has(`${l}.${s % h}`)) continue;
    gathered.set(product(bench, map, own(v), N, N, d), s * N * d);
  }
  // Heads side by side: (B, h, N, d) -> (B, N, h·d).
  let mixed = bug === "unmerged-heads" ? gathered : new Float32Array(B * N * D);
  if (mixed !== gathered)
    for (let b = 0, i = 0; b < B; b++)
      for (let n = 0; n < N; n++)
        for (let head = 0; head < h; head++)
          for (let e = 0; e < d; e++) mixed[i++] = gathered[((b * h + head) * N + n) * d + e];
  if (config.attention === "locally_enhanced") addLocal(model, `${name}.local`, v, B, mixed);
  let attn_out = linear(model, `${name}.proj`, mixed, B * N, D);
  if (across) attn_out = transpose(attn_out, B, N, D);
  return { normed, q, k, v, scale, attention, mixed, attn_out };
}

/**
 * Chapter 7: add a convolution of the values to mixed (B, N, D), one small kernel for each of the D
 * numbers, over the grid of patches (vitcore/attentions.py).
 */
function addLocal({ weights, grid: [rows, cols], prefix, N, D, d }, name, v, B, mixed) {
  const [kernel, bias] = [weights[`${name}.weight`], weights[`${name}.bias`]]; // (D, 1, w, w)
  const w = Math.sqrt(kernel.length / D);
  const half = (w - 1) / 2;
  for (let b = 0; b < B; b++)
    for (let row = 0; row < rows; row++)
      for (let col = 0; col < cols; col++)
        for (let e = 0; e < D; e++) {
          const own = (b * D / d + Math.floor(e / d)) * N + prefix; // of this head in v
          let total = bias[e];
          for (let y = Math.max(0, row - half); y <= Math.min(rows - 1, row + half); y++)
            for (let x = Math.max(0, col - half); x <= Math.min(cols - 1, col + half); x++)
              total += kernel[(e * w + y - row + half) * w + x - col + half]
                * v[(own + y * cols + x) * d + e % d];
          mixed[(b * N + prefix + row * cols + col) * D + e] += total;
        }
}

/** Chapter 5: the head's answer, read from tokens (B, N, D) of any layer. */
export function answer(model, tokens, B, bug = null) {
  const { N, D, config } = model;
  const features = bug === "no-final-norm" ? tokens : norm(model, "norm", tokens);
  const pooled = new Float32Array(B * D);
  let [first, last] = config.pool === "cls" ? [0, 1] : [model.prefix, N]; // the tokens to average
  if (bug === "wrong-readout") [first, last] = [N - 1, N];
  for (let b = 0; b < B; b++)
    for (let n = first; n < last; n++)
      for (let e = 0; e < D; e++)
        pooled[b * D + e] += features[(b * N + n) * D + e] / (last - first);
  return { features, pooled, logits: linear(model, "head", pooled, B, D) };
}

/** A linear map by name: x (rows, width) Wᵀ + bias, for the weight (size, width): (rows, size). */
function linear({ weights, bench }, name, x, rows, width) {
  const [W, bias] = [weights[`${name}.weight`], weights[`${name}.bias`]];
  const size = W.length / width;
  if (!bench.turned.has(name)) {
    const turned = bench.kernel.array(W.length); // Wᵀ (width, size), for good
    turned.set(transpose(W, size, width, 1));
    bench.turned.set(name, turned);
  }
  const y = product(bench, x, bench.turned.get(name), rows, width, size);
  if (bias) for (let i = 0; i < y.length; i++) y[i] += bias[i % size];
  return y;
}

/** The memory in which kernel.mjs multiplies: turned weights, and room for the three matrices. */
function makeBench(weights, D, d, N) {
  let [most, total] = [Math.max(N, CHUNK), 0];
  for (const [name, { length }] of Object.entries(weights)) {
    if (!name.endsWith(".weight") || length <= D) continue;
    const size = weights[name.replace(".weight", ".bias")]?.length ?? 3 * D;
    most = Math.max(most, size, length / size);
    total += length;
  }
  const kernel = new Kernel(total + 2 * CHUNK * most + most * d);
  const [a, b, c] = [CHUNK * most, most * d, CHUNK * most].map((count) => kernel.array(count));
  return { kernel, a, b, c, turned: new Map() };
}

/** x (rows, width) times B (width, size), which lies on the bench or is laid there: (rows, size). */
function product({ kernel, a, b, c }, x, B, rows, width, size) {
  if (B.buffer !== b.buffer) {
    if (B.length > b.length) throw new Error(`${rows} images are too many for one batch.`);
    b.set(B);
    B = b;
  }
  const y = new Float32Array(rows * size);
  for (let first = 0; first < rows; first += CHUNK) {
    const count = Math.min(CHUNK, rows - first);
    a.set(x.subarray(first * width, (first + count) * width));
    kernel.multiply(c, a, B, count, size, width);
    y.set(c.subarray(0, count * size), first * size);
  }
  return y;
}

/** LayerNorm of every token: mean 0 and deviation 1 over the D channels, then weight and bias. */
function norm({ weights, D }, name, x) {
  const [weight, bias] = [weights[`${name}.weight`], weights[`${name}.bias`]];
  const y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += D) {
    let mean = 0, variance = 0;
    for (let i = 0; i < D; i++) mean += x[at + i] / D;
    for (let i = 0; i < D; i++) variance += (x[at + i] - mean) ** 2 / D;
    const scale = 1 / Math.sqrt(variance + NORM_EPS);
    for (let i = 0; i < D; i++) y[at + i] = (x[at + i] - mean) * scale * weight[i] + bias[i];
  }
  return y;
}

/** Softmax in place over `count` numbers, `step` apart; returns the numbers. */
export function softmax(x, start = 0, step = 1, count = x.length) {
  let top = -Infinity, total = 0;
  for (let i = 0; i < count; i++) top = Math.max(top, x[start + i * step]);
  for (let i = 0, at = start; i < count; i++, at += step) total += x[at] = Math.exp(x[at] - top);
  for (let i = 0, at = start; i < count; i++, at += step) x[at] /= total;
  return x;
}

/** The exact GELU; the error function by Abramowitz and Stegun, 7.1.26, to 1.5e-7. */
function gelu(x) {
  const z = Math.abs(x) * Math.SQRT1_2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
    + t * (-1.453152027 + t * 1.061405429))));
  const tail = 0.5 * series * Math.exp(-z * z); // the share of a normal distribution beyond |x|
  return x * (x < 0 ? tail : 1 - tail);
}

const sum = (x, y) => x.map((value, i) => value + y[i]);

/** (B, N, D) -> (N, B, D). */
function transpose(x, B, N, D) {
  const out = new Float32Array(x.length);
  for (let b = 0; b < B; b++)
    for (let n = 0; n < N; n++)
      for (let e = 0; e < D; e++) out[(n * B + b) * D + e] = x[(b * N + n) * D + e];
  return out;
}

/**
 * Chapter 8: attention rollout of one image (Abnar and Zuidema, 2020): the heads' mean, the
 * identity added and rows divided by two, layer by layer. Row i: where token i comes from, (N, N).
 */
export function rollout({ layers }, { N, config: { heads } }) {
  let rolled = Float32Array.from({ length: N * N }, (_, i) => Number(i % (N + 1) === 0));
  for (const { attention } of layers) {
    const next = new Float32Array(N * N);
    for (let i = 0; i < N; i++)
      for (let j = 0; j < N; j++) {
        let weight = Number(i === j) / 2;
        for (let head = 0; head < heads; head++)
          weight += attention[(head * N + i) * N + j] / (2 * heads);
        for (let m = 0; m < N; m++) next[i * N + m] += weight * rolled[j * N + m];
      }
    rolled = next;
  }
  return rolled;
}
