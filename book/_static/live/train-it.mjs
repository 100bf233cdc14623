// SPDX-License-Identifier: MIT
// The page "Train it": its switches and buttons, the curves, and what a look into the model shows. The
// training itself goes on in train-worker.mjs.

import { Curves } from "./curves.mjs";
import { EXPERIMENTS } from "./experiments.mjs";
import { leaveModel } from "./handover.mjs";
import { DEFAULTS } from "./train.mjs";
import { Grid, Scenes, make, percent, picture, share, signed, veil } from "./views.mjs";

const SIDE = 28; // pixels
const SHOWN = Array.from({ length: 20 }, (_, i) => i); // two test digits of each class
const KEPT = 3; // earlier runs that stay in the curves
const COLOURS = ["--live-minus", "--live-plus", "--live-mark", "--pst-color-text-muted"];
const SPOKEN = 6000; // milliseconds between two sentences to a screen reader
const SMOOTH = 0.92; // of the curves' running mean, step by step

// What can be set: the choices of each setting, with their words where the value says too little.
const SETTINGS = [
  { name: "patch_size", words: "Patch, pixels", choices: [4, 7, 14] },
  { name: "dim", words: "Width", choices: [16, 32, 48, 64] },
  { name: "depth", words: "Blocks", choices: [1, 2, 3, 4] },
  { name: "heads", words: "Heads", choices: [1, 2, 4, 8] },
  { name: "lr", words: "Learning rate", choices: [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1] },
  { name: "epochs", words: "Epochs", choices: [3, 6, 12, 24] },
];
const SWITCHES = [
  { name: "positions", words: "positions", on: "learned", off: "none", without: "no positions" },
  { name: "residuals", words: "residual connections", on: true, off: false, without: "no residuals" },
  { name: "norms", words: "norms", on: true, off: false, without: "no norms" },
  { name: "scaled", words: "division by √d", on: true, off: false, without: "no division by √d" },
  { name: "class_token", words: "class token", on: true, off: false },
];

const find = (name) => document.querySelector(`[data-live="${name}"]`);
const still = matchMedia("(prefers-reduced-motion: reduce)");

let options = { ...DEFAULTS };
let worker = null;
let run = null; // the run that goes on: {words, options, loss, trained, tested, step, steps, …}
let past = []; // the runs before, latest first
let seen = null; // the latest look into the model
let query = null; // the patch whose attention is shown; null: the mean over all
let state = "new"; // new, fetching, running, paused, done
let lastSpoken = 0;
let pending = null; // what to do once the model is ready

// --- the worker ---------------------------------------------------------------------------------

function ask(kind, values = {}) {
  if (!worker) {
    worker = new Worker(new URL("train-worker.mjs", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => {
      if (data.run === run.number) ANSWERS[data.kind](data); // else it comes from the run before
    };
    worker.onerror = () => complain("The worker did not start: this browser may be too old.");
  }
  worker.postMessage({ kind, ...values });
}

const ANSWERS = {
  ready({ images, labels, ...sizes }) {
    Object.assign(run, sizes);
    showDigits(images, labels);
    setState("paused");
    if (pending) ask(pending);
    if (pending === "start") setState("running");
    pending = null;
  },
  progress({ steps, seconds }) {
    for (const { step, loss, accuracy } of steps) {
      const mean = run.mean ?? { loss, accuracy };
      run.mean = {
        loss: SMOOTH * mean.loss + (1 - SMOOTH) * loss,
        accuracy: SMOOTH * mean.accuracy + (1 - SMOOTH) * accuracy,
      };
      const epoch = step / run.perEpoch;
      if (step % 4 === 0 || step < 4 || seconds === 0) {
        run.loss.push([epoch, run.mean.loss]);
        run.trained.push([epoch, run.mean.accuracy]);
      }
      run.step = step;
    }
    run.seconds += seconds;
    later(showProgress);
  },
  test({ step, accuracy }) {
    run.tested.push([step / run.perEpoch, accuracy]);
    run.accuracy = accuracy;
    later(showProgress);
  },
  look(data) {
    seen = data;
    later(showLook);
  },
  diverged({ step }) {
    setState("done");
    complain(`At step ${step} the loss is no longer a number: this run has diverged. Reset it with a `
      + "smaller learning rate, or put back what you switched off.");
  },
  done() {
    setState("done");
    speak(true);
  },
  saved({ purpose, buffer, why }) {
    if (why) complain(`This model cannot be saved: vitcore has no ViT ${why}.`);
    else if (purpose === "file") download(buffer);
    else takeToTryIt(buffer);
  },
  error({ message }) {
    setState("new");
    complain(message);
  },
};

// Pictures wait for the browser's next frame, and are drawn once however many messages came.
const waiting = new Set();
function later(draw) {
  if (!waiting.size) {
    requestAnimationFrame(() => {
      const all = [...waiting];
      waiting.clear();
      all.forEach((one) => one());
    });
  }
  waiting.add(draw);
}

// --- buttons and settings -----------------------------------------------------------------------

const go = make("button", { type: "button", className: "live-go", onclick: startOrPause });
const step = make("button", { type: "button", onclick: () => begin("step") }, "One step");
const reset = make("button", { type: "button", onclick: () => restart() }, "Reset");
const save = make("button", { type: "button", onclick: () => ask("save", { purpose: "file" }) },
  "Save as safetensors");
const take = make("button", { type: "button", onclick: () => ask("save", { purpose: "page" }) },
  "Take it to Try it");
const line = make("p", { className: "live-line" });
const trouble = make("p", { className: "live-message", role: "alert", hidden: true });
const voice = make("p", { className: "live-voice", role: "status", "aria-live": "polite" });
const figures = { accuracy: make("b"), loss: make("b"), epoch: make("b"), speed: make("b") };
const seed = make("input", { type: "number", min: "0", max: "999", value: `${DEFAULTS.seed}` });
const inputs = {};

function startOrPause() {
  if (state === "running") {
    ask("pause");
    setState("paused");
    speak(true);
  } else begin("start");
}

/** Start or step, with a new model where there is none. */
function begin(kind) {
  if (state === "new") {
    pending = kind;
    newRun();
  } else if (kind === "start") {
    setState("running");
    ask("start");
  } else if (state === "paused") ask("step");
}

/** A new model of the options as they stand; the run before stays in the curves. */
function restart(then = null) {
  trouble.hidden = true;
  if (state === "new" && !then) return;
  if (run?.step) past = [run, ...past].slice(0, KEPT);
  pending = then;
  newRun();
}

function newRun() {
  run = {
    number: (run?.number ?? 0) + 1, words: inWords(options), options: { ...options }, perEpoch: 1, steps: 0, step: 0, seconds: 0,
    loss: [], trained: [], tested: [], mean: null, accuracy: null,
  };
  seen = null;
  query = null;
  setState("fetching");
  ask("reset", { run: run.number, options, shown: SHOWN, quiet: still.matches });
  later(showProgress);
}

function setState(next) {
  state = next;
  go.disabled = state === "fetching" || state === "done";
  step.disabled = state !== "new" && state !== "paused";
  reset.disabled = state === "new" || state === "fetching";
  save.disabled = take.disabled = state !== "paused" && state !== "done";
  later(showProgress);
}

/** Say how `chosen` differs from the defaults. */
function inWords(chosen) {
  const parts = [];
  for (const { name, words } of SETTINGS) {
    if (chosen[name] !== DEFAULTS[name]) parts.push(`${words.toLowerCase()} ${chosen[name]}`);
  }
  for (const { name, words, off, without } of SWITCHES) {
    if (chosen[name] !== DEFAULTS[name]) parts.push(chosen[name] === off ? without : words);
  }
  if (chosen.seed !== DEFAULTS.seed) parts.push(`seed ${chosen.seed}`);
  return parts.join(", ") || "the defaults";
}

/** Take over settings; a run that has begun starts anew, for its model no longer fits. */
function set(changes) {
  const next = { ...options, ...changes };
  if (next.dim % next.heads) next.heads = next.dim % 4 === 0 ? 4 : 1;
  options = next;
  showSettings();
  if (state !== "new") restart(state === "running" ? "start" : null);
}

function showSettings() {
  for (const { name } of SETTINGS) inputs[name].value = `${options[name]}`;
  for (const { name, on } of SWITCHES) inputs[name].checked = options[name] === on;
  seed.value = `${options.seed}`;
}

function makeSettings() {
  const list = make("div", { className: "live-settings" });
  for (const { name, words, choices } of SETTINGS) {
    const onchange = ({ target }) => set({ [name]: Number(target.value) });
    const select = make("select", { "aria-label": words, onchange });
    select.append(...choices.map((value) => make("option", { value: `${value}` }, `${value}`)));
    inputs[name] = select;
    list.append(make("label", {}, make("span", {}, words), select));
  }
  seed.onchange = () => {
    const value = Math.min(999, Math.max(0, Math.round(Number(seed.value)) || 0));
    set({ seed: value });
  };
  list.append(make("label", {}, make("span", {}, "Seed"), seed));
  const switches = make("div", { className: "live-switches" });
  for (const { name, words, on, off } of SWITCHES) {
    const onchange = ({ target }) => set({ [name]: target.checked ? on : off });
    inputs[name] = make("input", { type: "checkbox", onchange });
    switches.append(make("label", {}, inputs[name], words));
  }
  const box = make("fieldset", { className: "live-panel" });
  box.append(make("legend", {}, "The model and its training"), list, switches);
  return box;
}

function complain(words) {
  trouble.textContent = words;
  trouble.hidden = false;
}

function download(buffer) {
  const address = URL.createObjectURL(new Blob([buffer], { type: "application/octet-stream" }));
  const link = make("a", { href: address, download: "trained-in-the-page.safetensors" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
  line.textContent = "Saved. In Python: vitcore.training.load_weights(\"trained-in-the-page.safetensors\")";
}

async function takeToTryIt(buffer) {
  try {
    await leaveModel(buffer);
    location.href = new URL("try_it.html?model=trained", location.href).href;
  } catch (error) {
    complain(error.message);
  }
}

// --- progress -----------------------------------------------------------------------------------

const losses = { title: "Loss on training digits, by epoch", ticks: [0, 0.5, 1, 1.5, 2, 2.5] };
const shares = { title: "Accuracy, by epoch: dots on 1,000 test digits", ticks: [0, 0.25, 0.5, 0.75, 1] };
const whole = (value) => `${Math.round(100 * value)} %`;
let charts = null;
const legend = make("ul", { className: "live-legend" });

function showProgress() {
  find("train").dataset.state = state;
  const words = { running: "Pause", fetching: "Fetching …", paused: "Go on", done: "Done" }[state];
  go.textContent = state === "new" || (state === "paused" && !run.step) ? "Start" : words;
  if (!run) return;
  const { mean, accuracy, perEpoch, steps, step: at, seconds } = run;
  find("train").dataset.step = at;
  figures.accuracy.textContent = accuracy === null ? "–" : percent(accuracy);
  figures.loss.textContent = mean ? mean.loss.toFixed(2) : "–";
  figures.epoch.textContent = steps ? `${(at / perEpoch).toFixed(1)} of ${run.options.epochs}` : "–";
  const speed = seconds ? Math.round((at * run.options.batch_size) / seconds / 10) * 10 : 0;
  figures.speed.textContent = speed ? speed.toLocaleString("en") : "–";
  const all = [run, ...past];
  const epochs = Math.max(...all.map(({ options: { epochs: count } }) => count));
  const now = mean ? `Now ${mean.loss.toFixed(2)}.` : "Nothing yet.";
  const lines = (of) => all.map((one, i) => ({ line: of(one), dots: [], colour: COLOURS[i] }));
  charts.loss.show(lines((one) => one.loss), epochs, now);
  const dots = all.map((one, i) => ({ line: one.trained, dots: one.tested, colour: COLOURS[i] }));
  const told = accuracy === null ? "Nothing yet." : `Now ${percent(accuracy)} of 1,000 test digits.`;
  charts.accuracy.show(dots, epochs, told);
  legend.replaceChildren(...all.map((one, i) => {
    const mark = make("i", { style: `background: var(${COLOURS[i]})` });
    const reached = one.accuracy === null ? "" : `: ${percent(one.accuracy)}`;
    const at = one.step < one.steps ? ` after ${(one.step / one.perEpoch).toFixed(1)} epochs` : "";
    return make("li", {}, mark, `${i ? "Before" : "This run"}, ${one.words}${reached}${reached && at}`);
  }));
  speak();
}

/** Tell a screen reader where the run stands, every few seconds. */
function speak(now = false) {
  if (!run?.mean || (!now && performance.now() - lastSpoken < SPOKEN)) return;
  lastSpoken = performance.now();
  const reached = run.accuracy === null ? "" : `, ${percent(run.accuracy)} of the test digits right`;
  const stand = { done: "Training is done", paused: "Paused" }[state] ?? "Training";
  const epoch = (run.step / run.perEpoch).toFixed(1);
  voice.textContent = `${stand}: epoch ${epoch} of ${run.options.epochs}, loss ${run.mean.loss.toFixed(2)}${reached}.`;
}

// --- looks into the model -----------------------------------------------------------------------

const scenes = new Scenes();
const strip = make("div", { className: "live-strip" });
const under = make("p", { className: "live-line" },
  "With the start, twenty test digits come here; under each stands what the model reads.");
const digits = []; // {button, label, answer, image} of each one shown
const grids = { maps: new Map() };

function showDigits(images, labels) {
  if (digits.length) return;
  images.forEach((image, place) => {
    const { canvas } = picture(image, SIDE);
    const answer = make("b", {}, "?");
    const button = make("button", { type: "button", onclick: () => choose(place) }, canvas, answer);
    digits.push({ button, answer, image, label: labels[place] });
    strip.append(button);
  });
}

function choose(place) {
  if (seen) seen.chosen = place;
  ask("choose", { place });
  showStrip();
}

function showLook() {
  showStrip();
  scenes.refresh();
}

function showStrip() {
  if (!seen) return;
  let right = 0;
  digits.forEach(({ button, answer, label }, place) => {
    const row = seen.shares[place];
    const said = row.indexOf(Math.max(...row));
    right += said === label;
    answer.textContent = `${said}`;
    button.classList.toggle("live-wrong", said !== label);
    button.setAttribute("aria-pressed", `${place === seen.chosen}`);
    button.setAttribute("aria-label", `A ${label}, read as ${said}, ${percent(row[said])} sure`);
  });
  under.textContent = `${right} of these ${digits.length} test digits are read right. `
    + "Choose one to look into it.";
}

/** Which patch stands at (row, column) of the grid. */
const sideOf = () => SIDE / seen.patch_size;

/** What a head's query takes from each patch: that of `query`, of the class token, or their mean. */
function taken(layer, head) {
  const { tokens, prefix, attention } = seen;
  const N = tokens - prefix;
  const map = attention[layer].subarray(head * tokens * tokens, (head + 1) * tokens * tokens);
  const row = (i) => map.subarray(i * tokens + prefix, (i + 1) * tokens);
  if (query !== null) return row(prefix + query);
  if (prefix) return row(0);
  const mean = new Float32Array(N);
  for (let i = 0; i < N; i++) row(i).forEach((weight, j) => (mean[j] += weight / N));
  return mean;
}

/** Say whose attention the maps show. */
function whose(label) {
  const side = sideOf();
  if (query !== null) {
    return `What the patch in row ${Math.floor(query / side) + 1}, column ${(query % side) + 1} of this `
      + `${label} takes from each patch`;
  }
  return seen.prefix ? `What the class token takes from each patch of this ${label}`
    : `What the patches of this ${label} take from each, on average`;
}

function showMaps(host) {
  if (!seen) return;
  const { depth, heads } = seen;
  const side = sideOf();
  if (query >= side * side) query = null;
  if (grids.maps.size !== depth * heads || grids.heads !== heads) {
    const rows = make("div", { className: "live-heads live-maps", style: `--heads: ${Math.min(heads, 4)}` });
    grids.maps.clear();
    grids.heads = heads;
    for (let layer = 0; layer < depth; layer++) {
      for (let head = 0; head < heads; head++) {
        const caption = make("figcaption", {}, `block ${layer + 1}, head ${head + 1}`);
        const box = make("figure", { className: "live-box" }, caption);
        rows.append(box);
        const pick = (row, col) => {
          const patch = row * sideOf() + col;
          query = patch === query ? null : patch;
          scenes.refresh();
        };
        const label = `Attention of head ${head + 1} in block ${layer + 1}.`;
        grids.maps.set(`${layer}.${head}`, new Grid(box, { label, width: 150, pick }));
      }
    }
    host.querySelector(".live-heads")?.remove();
    host.append(rows);
  }
  const { image, label } = digits[seen.chosen];
  const beneath = picture(image, SIDE);
  const marks = query === null ? [] : [[Math.floor(query / side), query % side, 1, 1]];
  for (let layer = 0; layer < depth; layer++) {
    for (let head = 0; head < heads; head++) {
      const weights = taken(layer, head);
      const most = Math.max(...weights, 2 / weights.length);
      grids.maps.get(`${layer}.${head}`).show({
        rows: side, cols: side, image: beneath, marks,
        colour: (row, col) => veil(weights[row * side + col], most),
        describe: (row, col) => `${percent(weights[row * side + col])} of what is taken comes from `
          + `row ${row + 1}, column ${col + 1}`,
      });
    }
  }
  host.querySelector("p").textContent = `${whose(label)}: bright is much. Choose a patch to see what it `
    + "takes.";
}

/** Small pictures, `count` of `side` x `side` numbers each, in one grid with a line between them. */
function tiles(count, across, side, value, colour, words) {
  const down = Math.ceil(count / across);
  const place = (row, col) => {
    const tile = Math.floor(row / (side + 1)) * across + Math.floor(col / (side + 1));
    const [y, x] = [row % (side + 1), col % (side + 1)];
    return y < side && x < side && tile < count ? [tile, y, x] : null;
  };
  return {
    rows: down * (side + 1) - 1,
    cols: across * (side + 1) - 1,
    colour(row, col) {
      const at = place(row, col);
      return at && colour(value(...at));
    },
    describe(row, col) {
      const at = place(row, col);
      return at ? words(...at, value(...at).toFixed(2).replace("-", "−")) : "between two pictures";
    },
  };
}

function showPositions(host) {
  const words = host.querySelector("p");
  grids.positions ??= new Grid(host, { label: "Similarity of positions.", width: 380 });
  grids.positions.canvas.hidden = !seen?.positions;
  if (!seen) return;
  if (!seen.positions) {
    words.textContent = "This model has no positions: for it, an image is a bag of patches.";
    return;
  }
  const side = sideOf();
  words.textContent = "One small picture for each place: how much its row of the table is like those of "
    + "all places. Orange: alike. Blue: opposed.";
  const value = (tile, y, x) => seen.positions[tile * side * side + y * side + x];
  const at = (y, x) => `row ${y + 1}, column ${x + 1}`;
  grids.positions.show(tiles(side * side, side, side, value, (v) => signed(v, 1), (tile, y, x, cosine) =>
    `${at(Math.floor(tile / side), tile % side)} and ${at(y, x)}: cosine ${cosine}`));
}

function showFilters(host) {
  grids.filters ??= new Grid(host, { label: "The patch filters.", width: 460 });
  if (!seen) return;
  host.querySelector("p").textContent = "One small picture for each number of a token: orange counts for "
    + "it, blue against it.";
  const { dim, patch_size, filters } = seen;
  const area = patch_size ** 2;
  const most = filters.reduce((largest, weight) => Math.max(largest, Math.abs(weight)), 0);
  const value = (tile, y, x) => filters[tile * area + y * patch_size + x];
  grids.filters.show(tiles(dim, 8, patch_size, value, (v) => signed(v, most), (tile, y, x, weight) =>
    `filter ${tile + 1}, pixel row ${y + 1}, column ${x + 1}: weight ${weight}`));
}

// --- the page -----------------------------------------------------------------------------------

function makeTraining(host) {
  const buttons = make("div", { className: "live-buttons" }, go, step, reset);
  const row = make("div", { className: "live-figures" });
  const named = { accuracy: "test digits right", loss: "loss", epoch: "epoch", speed: "digits a second" };
  for (const [name, words] of Object.entries(named)) {
    figures[name].textContent = "–";
    row.append(make("div", {}, figures[name], make("span", {}, words)));
  }
  const curves = make("div", { className: "live-curves" });
  host.append(buttons, row, trouble, strip, under, curves, legend, voice, makeSettings());
  charts = {
    loss: new Curves(curves, { ...losses, write: (value) => value.toFixed(1) }),
    accuracy: new Curves(curves, { ...shares, write: whole }),
  };
  for (const chart of Object.values(charts)) chart.draw();
}

function makeExperiments() {
  for (const [name, { words, options: changes }] of Object.entries(EXPERIMENTS)) {
    const host = find(name);
    if (!host) continue;
    const onclick = () => {
      options = { ...DEFAULTS, epochs: options.epochs, seed: options.seed };
      set(changes);
      if (state === "new") begin("start");
      else if (pending === null) pending = "start";
      find("train").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
    };
    host.append(make("button", { type: "button", onclick }, `${words}: train it`));
  }
}

makeTraining(find("train"));
for (const [name, show] of [["maps", showMaps], ["positions", showPositions], ["filters", showFilters]]) {
  find(name).append(make("p", { className: "live-line" }, "Nothing to see before the start."));
  scenes.add(find(name), () => show(find(name)));
}
find("keep").append(make("div", { className: "live-buttons" }, take, save), line);
makeExperiments();
showSettings();
setState("new");
