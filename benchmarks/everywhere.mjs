// SPDX-License-Identifier: MIT
// Answers benchmarks/everywhere.py: for each line "FIRST COUNT TIMES" on standard input it runs the
// model so many times on COUNT images from FIRST on, and prints the processor time in seconds and the
// last logits.
// Arguments: the address of vit.mjs, the weights, and the images as float32.

import fs from "node:fs";
import readline from "node:readline";

const [script, weights, pixels] = process.argv.slice(2);
const { readModel, forward } = await import(script);
const read = (path) => {
  const bytes = fs.readFileSync(path);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
};
const model = readModel(read(weights));
const images = new Float32Array(read(pixels));
const size = model.config.in_channels * model.H * model.W;
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [first, count, times] = line.split(" ").map(Number);
  const some = images.subarray(first * size, (first + count) * size);
  const started = process.cpuUsage();
  let logits;
  for (let i = 0; i < times; i++) ({ logits } = forward(model, some));
  const { user, system } = process.cpuUsage(started);
  const seconds = (user + system) / 1e6;
  process.stdout.write(JSON.stringify({ seconds, logits: [...logits] }) + "\n");
}
