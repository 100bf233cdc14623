// SPDX-License-Identifier: MIT
// Trains beside the page, which so stays free for the reader. Messages come in and go out as objects
// with a `kind`; see the two lists below.

import { CLASSES, PIXELS, loadDigits, normalise } from "./digits.mjs";
import { Trainer, accuracy } from "./train.mjs";

const BURST = 40; // milliseconds of training between looks at the messages
const LOOK = { usual: 250, calm: 1500 }; // milliseconds between pictures of the model

let digits = null;
let trainer = null;
let running = false;
let calm = false; // fewer pictures, for readers who want less motion
let probe = []; // the test digits that the page shows
let chosen = 0; // which of them is looked into
let lastLook = 0;

let run = 0; // the page's number for it, which goes with every message
const tell = (kind, values = {}, moved = []) => postMessage({ kind, run, ...values }, moved);

const INCOMING = {
  /** Fetch the digits, if they are not here, and make a new model. */
  async reset({ run: number, options, shown, quiet }) {
    running = false;
    run = number;
    calm = quiet;
    digits ??= await loadDigits();
    probe = shown ?? probe;
    trainer = new Trainer(digits.train, options);
    const { parameters, tokens } = trainer.model;
    const count = Object.values(parameters).reduce((sum, { value }) => sum + value.length, 0);
    const { steps, perEpoch } = trainer;
    const images = probe.map((i) => digits.test.images.slice(i * PIXELS, (i + 1) * PIXELS));
    const labels = probe.map((i) => digits.test.labels[i]);
    tell("ready", { count, steps, perEpoch, tokens, images, labels });
    measure();
    look();
  },
  start() {
    if (!running && trainer && !trainer.done) {
      running = true;
      train();
    }
  },
  pause() {
    running = false;
    look();
  },
  step() {
    if (running || !trainer || trainer.done) return;
    tell("progress", { steps: [trainer.train()], seconds: 0 });
    if (trainer.done) finish();
    look();
  },
  /** Look into another digit: a place in the list of those shown. */
  choose({ place }) {
    chosen = place;
    if (!running) look();
  },
  save({ purpose }) {
    const why = trainer.model.whyNotSaved();
    if (why) {
      tell("saved", { purpose, why });
      return;
    }
    const { seed, epochs } = trainer.config;
    const buffer = trainer.model.save({ trained: "in the page Train it", steps: trainer.step, seed, epochs });
    tell("saved", { purpose, buffer }, [buffer]);
  },
};

onmessage = async ({ data }) => {
  try {
    await INCOMING[data.kind](data);
  } catch (error) {
    running = false;
    tell("error", { message: error.message });
  }
};

/** Train until told otherwise, with a breath for messages after every burst. */
async function train() {
  const every = Math.max(1, Math.round(trainer.perEpoch / 2)); // steps between looks at the test
  const own = trainer;
  while (running && own === trainer) {
    const begun = performance.now();
    const steps = [];
    while (performance.now() - begun < BURST && !trainer.done) {
      steps.push(trainer.train());
      if (!Number.isFinite(steps.at(-1).loss)) running = false;
      if (trainer.step % every === 0 || !running) break;
    }
    tell("progress", { steps, seconds: (performance.now() - begun) / 1e3 });
    if (!running) tell("diverged", { step: trainer.step });
    if (trainer.step % every === 0 || trainer.done) measure();
    if (performance.now() - lastLook > (calm ? LOOK.calm : LOOK.usual)) look();
    if (trainer.done) finish();
    await new Promise((resume) => setTimeout(resume));
  }
}

function finish() {
  running = false;
  look();
  tell("done");
}

/** The accuracy over all test digits. */
function measure() {
  tell("test", { step: trainer.step, accuracy: accuracy(trainer.model, digits.test) });
}

/** What the page draws of the model: its answers, one digit's attention, positions, filters. */
function look() {
  const { model } = trainer;
  const { tokens, prefix, config } = model;
  const { dim, heads, depth, patch_size } = config;
  lastLook = performance.now();
  const shares = probe.map((i) => {
    const image = digits.test.images.subarray(i * PIXELS, (i + 1) * PIXELS);
    return softmax([...model.forward(normalise(image)).subarray(0, CLASSES)]);
  });
  const at = probe[chosen] * PIXELS;
  model.forward(normalise(digits.test.images.subarray(at, at + PIXELS)));
  const attention = model.attention.map((all) => all.slice(0, heads * tokens * tokens));
  const filters = model.parameters["patch_embed.proj.weight"].value.slice();
  const positions = model.pos_embed ? similarity(model.pos_embed.value, prefix, tokens, dim) : null;
  const sizes = { tokens, prefix, dim, heads, depth, patch_size };
  tell("look", { step: trainer.step, chosen, shares, attention, filters, positions, ...sizes });
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const shares = logits.map((logit) => Math.exp(logit - largest));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}

/** The cosines between the patches' rows of the position table, (N, N) (chapter 2). */
function similarity(table, prefix, tokens, dim) {
  const N = tokens - prefix;
  const row = (n) => table.subarray((prefix + n) * dim, (prefix + n + 1) * dim);
  const lengths = Array.from({ length: N }, (_, n) => Math.hypot(...row(n)) || 1);
  const cosines = new Float32Array(N * N);
  for (let i = 0; i < N; i++) {
    for (let j = 0; j < N; j++) {
      const product = row(i).reduce((sum, value, c) => sum + value * row(j)[c], 0);
      cosines[i * N + j] = product / (lengths[i] * lengths[j]);
    }
  }
  return cosines;
}
