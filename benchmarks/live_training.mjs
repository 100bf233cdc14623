// SPDX-License-Identifier: MIT
// What the page "Train it" reaches, measured in Node on one core: node benchmarks/live_training.mjs
// writes book/_static/live/train-it.json. The page's defaults run from three seeds for all their
// epochs; each experiment of the page, and the defaults beside it, once for SHORT epochs.

import fs from "node:fs";
import os from "node:os";

import { readDigits } from "../book/_static/live/digits.mjs";
import { EXPERIMENTS } from "../book/_static/live/experiments.mjs";
import { Trainer, accuracy } from "../book/_static/live/train.mjs";

const SHORT = 6;
const SEEDS = [0, 1, 2];
const LIVE = new URL("../book/_static/live/", import.meta.url);
const digits = await readDigits(fs.readFileSync(new URL("digits.png", LIVE)));

/** One run: test accuracy after every epoch, and the seconds that training took. */
function run(options) {
  const trainer = new Trainer(digits.train, options);
  const accuracies = [];
  let [wall, processor] = [0, 0];
  while (!trainer.done) {
    const [clock, usage] = [performance.now(), process.cpuUsage()];
    for (let step = 0; step < trainer.perEpoch; step++) trainer.train();
    const { user, system } = process.cpuUsage(usage);
    wall += (performance.now() - clock) / 1e3;
    processor += (user + system) / 1e6;
    accuracies.push(accuracy(trainer.model, digits.test));
  }
  const round = (value) => Number(value.toFixed(1));
  console.log(JSON.stringify(options), accuracies.at(-1), round(processor));
  return { options, accuracies, wall_seconds: round(wall), processor_seconds: round(processor) };
}

const record = {
  command: "node benchmarks/live_training.mjs",
  date: new Date().toISOString().slice(0, 10),
  hardware: `${os.cpus()[0].model}, one core, shared with other work; Node ${process.versions.node}`,
  test_digits: digits.test.labels.length,
  defaults: SEEDS.map((seed) => run({ seed })),
  short_epochs: SHORT,
  plain: run({ epochs: SHORT }),
  experiments: {},
};
for (const [name, { options }] of Object.entries(EXPERIMENTS)) {
  record.experiments[name] = run({ ...options, epochs: SHORT });
}
fs.writeFileSync(new URL("train-it.json", LIVE), `${JSON.stringify(record, null, 1)}\n`);
