// SPDX-License-Identifier: MIT
// The second half of "Try it": chapter 7's model of CIFAR-100 names a picture and shows where it
// looked. Its weights are fetched when a picture is chosen.

import { resize } from "./draw.mjs";
import { fetchFile } from "./lab.mjs";
import { forward, readModel, rollout, softmax } from "./vit.mjs";
import { Bars, Grid, largest, make, onLook, percent, picture, say, veil } from "./views.mjs";

const NAMES = ["apple", "clock", "mountain", "orange", "road", "rocket", "sea", "sunflower"];
const TOP = 5;

/** A picture as vitcore's read_image makes it: cut to a square, resized; (3, side, side), 0 to 255. */
export function fitPicture(rgba, width, height, side) {
  const factor = Math.max(side / width, side / height);
  const [rows, cols] = [height, width].map((n) => Math.max(side, Math.round(n * factor)));
  const [top, left] = [rows, cols].map((n) => Math.floor((n - side) / 2));
  const out = new Uint8Array(3 * side * side);
  for (let c = 0; c < 3; c++) {
    const channel = Float32Array.from({ length: width * height }, (_, i) => rgba[4 * i + c]);
    const small = resize(channel, height, width, rows, cols);
    for (let y = 0; y < side; y++)
      for (let x = 0; x < side; x++)
        out[(c * side + y) * side + x] = Math.round(small[(top + y) * cols + left + x]);
  }
  return out;
}

/** Build the part of the page below `host`. */
export function photos(host) {
  let model = null;
  let found = null;
  const status = make("p", { className: "live-line", role: "status" });
  const choices = make("div", { className: "live-photos", role: "group", "aria-label": "Pictures" });
  for (const name of NAMES) {
    const url = new URL(`photos/${name}.jpg`, import.meta.url);
    const image = make("img", { src: String(url), alt: name, width: 72, height: 72, loading: "lazy" });
    choices.append(make("button", { type: "button", onclick: () => look(url, name) }, image));
  }
  const input = make("input", { type: "file", accept: "image/*", className: "live-file" });
  input.addEventListener("change", () => input.files[0] && look(input.files[0], "your picture"));
  const own = make("label", { className: "live-choose" }, input, "Picture of your own");
  const left = make("figure", { className: "live-box" }, make("figcaption", {}, "What it sees"));
  const right = make("figure", { className: "live-box" });
  const caption = make("figcaption");
  right.append(caption);
  const answers = make("div", { className: "live-answers" });
  const ways = make("div", { className: "live-buttons", role: "group", "aria-label": "Which map" });
  const row = make("div", { className: "live-row", hidden: true }, left, right, answers);
  ways.hidden = true;
  host.replaceChildren(choices, make("div", { className: "live-buttons" }, own), status, row, ways);
  const sees = new Grid(left, { label: "The picture as the model reads it, 32 by 32 pixels.", width: 220 });
  const where = new Grid(right, { label: "Where the model looked.", width: 220 });
  const bars = new Bars(answers, "The five likeliest classes");
  let way = "rollout";
  for (const [name, words] of [["rollout", "Rollout over all layers"], ["last", "Last layer alone"]]) {
    const act = () => ((way = name), show());
    ways.append(make("button", { type: "button", "data-way": name, onclick: act }, words));
  }
  host.addEventListener("dragover", (event) => event.preventDefault());
  host.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) look(event.dataTransfer.files[0], "your picture");
  });
  onLook(() => found && show());

  async function look(source, name) {
    status.textContent = model ? "" : "Fetching the model, 1.8 MB …";
    try {
      const blob = source instanceof URL ? await (await fetch(source)).blob() : source;
      const bitmap = await createImageBitmap(blob).catch(() => {
        throw new Error("This file is no picture that the browser can read.");
      });
      model ??= readModel(await fetchFile("cifar100.safetensors"));
      const shrink = Math.min(1, 768 / Math.max(bitmap.width, bitmap.height));
      const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * shrink)));
      const pen = make("canvas", { width, height }).getContext("2d");
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, width, height);
      pen.drawImage(bitmap, 0, 0, width, height);
      const pixels = fitPicture(pen.getImageData(0, 0, width, height).data, width, height, model.H);
      const started = performance.now();
      const trace = forward(model, Float32Array.from(pixels, (value) => value / 255));
      found = { pixels, trace, name, took: performance.now() - started };
      show();
      say(`${name}: ${found.words}`);
    } catch (error) {
      status.textContent = error.message;
    }
  }

  function show() {
    const { pixels, trace, name, took } = found;
    const { N, H, grid: [rows, cols], classes, prefix } = model;
    const shares = softmax(trace.logits.slice());
    const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, TOP);
    const words = (index) => classes[index].replaceAll("_", " ");
    found.words = `${words(order[0])}, ${percent(shares[order[0]])}`;
    row.hidden = ways.hidden = false;
    const image = picture(pixels, H, H, 3);
    sees.show({
      rows: H, cols: H, image,
      describe: (y, x) => `row ${y + 1}, column ${x + 1}: red, green, blue `
        + [0, 1, 2].map((c) => pixels[(c * H + y) * H + x]).join(", "),
    });
    const map = way === "rollout" ? rollout(trace, model) : lastLayer(trace);
    // What is read out is the mean of the patches, so each of them asks with the same weight.
    const weights = new Float32Array(N);
    for (let i = prefix; i < N; i++)
      for (let j = 0; j < N; j++) weights[j] += map[i * N + j] / (N - prefix);
    const most = largest(weights);
    const least = weights.reduce((a, b) => Math.min(a, b), most);
    caption.textContent = "Where it looked";
    where.show({
      rows, cols, image,
      colour: (y, x) => veil(weights[prefix + y * cols + x] - least, most - least),
      describe: (y, x) => `patch in row ${y + 1}, column ${x + 1}: ${percent(weights[prefix + y * cols + x])} `
        + `of the attention; a ${N}th would be ${percent(1 / N)}`,
    });
    bars.show(order.map(words), order.map((index) => shares[index]));
    status.textContent = `${name[0].toUpperCase()}${name.slice(1)}: it says ${found.words}. `
      + `One pass took ${Math.round(took)} ms.`;
    for (const button of ways.children)
      button.setAttribute("aria-pressed", String(button.dataset.way === way));
  }

  function lastLayer({ layers }) {
    const { N, config: { heads } } = model;
    const { attention } = layers.at(-1);
    return Float32Array.from({ length: N * N }, (_, i) => {
      let sum = 0;
      for (let head = 0; head < heads; head++) sum += attention[head * N * N + i];
      return sum / heads;
    });
  }
}
