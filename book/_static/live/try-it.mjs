// SPDX-License-Identifier: MIT
// The page "Try it": a pad, the steps, the mistakes, and the bar at the bottom that says which layer,
// head and patch they are about.

import { readDigit, SIDE } from "./draw.mjs";
import { takeModel } from "./handover.mjs";
import { Lab } from "./lab.mjs";
import { Pad } from "./pad.mjs";
import { photos } from "./photos.mjs";
import { STEPS } from "./steps.mjs";
import { Bars, Grid, make, onLook, percent, picture, say, Scenes } from "./views.mjs";

const find = (name) => document.querySelector(`[data-live="${name}"]`);
const lab = new Lab();
const scenes = new Scenes();

// --- the digit ------------------------------------------------------------------------------------

const told = make("p", { className: "live-line", role: "status" });
const pad = new Pad(
  "A sheet to draw a digit on, with mouse, finger or pen. Without one, load a test digit with the "
    + "buttons, or with the keys 0 to 9.",
  {
    ink(image) {
      told.textContent = "";
      lab.digit = image;
      lab.update();
    },
    done: sayAnswer,
  },
);

/** Take an image (28, 28) that was not drawn here; `words` say what it is. */
function useDigit(image, words) {
  pad.show(image);
  lab.digit = image;
  told.textContent = words;
  lab.update();
}

/** Load the next test digit of a class. */
const next = new Map();
async function loadTestDigit(choose, words) {
  told.textContent = "Fetching the test digits …";
  try {
    const { images, labels } = await lab.loadDigits();
    const at = choose(labels);
    if (at === undefined) return;
    const image = images.slice(at * SIDE * SIDE, (at + 1) * SIDE * SIDE);
    useDigit(image, `${words} ${at} of MNIST's sample, labelled ${labels[at]}.`);
    lab.query = lab.busiest();
    sayAnswer();
  } catch (error) {
    told.textContent = error.message;
  }
}

function ofClass(digit) {
  const from = (next.get(digit) ?? -1) + 1;
  return loadTestDigit((labels) => {
    const all = [...labels.keys()].filter((i) => labels[i] === digit);
    next.set(digit, from % all.length);
    return all[from % all.length];
  }, "Test digit");
}

async function misread() {
  told.textContent = "Looking through 1,000 test digits …";
  try {
    const { wrong } = await lab.measure(lab.bug);
    const from = ((next.get("wrong") ?? -1) + 1) % (wrong.length || 1);
    next.set("wrong", from);
    if (!wrong.length) told.textContent = "It reads all 1,000 of them.";
    else await loadTestDigit(() => wrong[from], `It reads ${wrong.length} of 1,000 wrongly. This is`);
  } catch (error) {
    told.textContent = error.message;
  }
}

/** Read a photograph of a digit. */
async function usePhoto(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const shrink = Math.min(1, 1024 / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(n * shrink)));
    const canvas = make("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff"; // what shows through is white, as on paper
    pen.fillRect(0, 0, width, height);
    pen.drawImage(bitmap, 0, 0, width, height);
    const image = readDigit(pen.getImageData(0, 0, width, height).data, width, height);
    if (!image) throw new Error("There is no ink: photograph one digit, large, with a broad pen.");
    useDigit(image, "Your photograph, as MNIST's makers would have cut it.");
  } catch (error) {
    told.textContent = error.message.startsWith("There is")
      ? error.message : "This file is no picture that the browser can read.";
  }
}

async function useModel(file) {
  try {
    lab.use(await file.arrayBuffer());
    told.textContent = `The model of ${file.name} runs now.`;
  } catch (error) {
    told.textContent = error.message;
  }
}

const chooser = (words, accept, take) => {
  const input = make("input", { type: "file", accept, className: "live-file" });
  input.addEventListener("change", () => input.files[0] && take(input.files[0]));
  return make("label", { className: "live-choose" }, input, words);
};

function draw() {
  const host = find("draw");
  const clear = () => {
    pad.clear();
    told.textContent = "Draw a digit, as large as you like.";
  };
  const button = (words, act) => make("button", { type: "button", onclick: act }, words);
  const digits = make("div", {
    className: "live-digits", role: "group", "aria-label": "Load a test digit",
  });
  for (let digit = 0; digit < 10; digit++) {
    const load = button(String(digit), () => ofClass(digit));
    load.setAttribute("aria-label", `Load a test digit ${digit}`);
    digits.append(load);
  }
  const sees = make("figure", { className: "live-box" });
  const answers = make("div", { className: "live-answers" });
  const first = make("p", { className: "live-answer" });
  answers.append(first);
  const left = make("figure", { className: "live-box" }, make("figcaption", {}, "Draw here"), pad.canvas);
  sees.append(make("figcaption", {}, "What the model sees"));
  const controls = make("div", { className: "live-controls" },
    make("div", { className: "live-buttons" }, button("Clear", clear),
      button("One it gets wrong", misread), chooser("Photograph of a digit", "image/*", usePhoto),
      chooser("Model of your own", ".safetensors", useModel)),
    make("div", { className: "live-load" }, make("span", {}, "or a test digit:"), digits), told);
  host.replaceChildren(make("div", { className: "live-row live-top" }, left, sees, answers), controls);
  const grid = new Grid(sees, { label: "The digit as the model reads it, 28 by 28 pixels.", width: 224 });
  const bars = new Bars(answers, "How sure the model is of each class");
  host.addEventListener("keydown", (event) => {
    if (/^[0-9]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      ofClass(Number(event.key));
    }
  });
  host.addEventListener("dragover", (event) => event.preventDefault());
  host.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) (file.name.endsWith(".safetensors") ? useModel : usePhoto)(file);
  });
  scenes.add(host, () => {
    if (!lab.trace) return;
    grid.show({
      rows: SIDE, cols: SIDE, image: picture(lab.grey, SIDE),
      describe: (y, x) => `row ${y + 1}, column ${x + 1}: grey ${lab.grey[y * SIDE + x]} of 255`,
    });
    first.replaceChildren("It reads ", make("b", {}, lab.model.classes[lab.best]));
    bars.show(lab.model.classes, [...lab.shares]);
  });
}

/** Tell those who hear the page what the model reads, once it has run. */
function sayAnswer() {
  if (lab.waiting) setTimeout(sayAnswer, 20);
  else if (lab.trace) say(`It reads ${lab.model.classes[lab.best]}, ${percent(lab.shares[lab.best])}.`);
}

// --- the bar --------------------------------------------------------------------------------------

function bar() {
  const host = make("aside", { className: "live-bar", "aria-label": "What the steps show" });
  // At the end of the steps and the mistakes, above whose last line it sticks to the window.
  find("photos").closest("section").before(host);
  const mini = make("div", { className: "live-mini" });
  const grid = new Grid(mini, {
    label: "Choose the patch that the steps follow.", width: 64,
    pick: (row, col) => {
      lab.query = lab.model.prefix + row * lab.model.grid[1] + col;
      lab.changed();
    },
  });
  const group = (name) => make("div", { className: "live-group", role: "group", "aria-label": name });
  const [layers, heads] = [group("Layer"), group("Head")];
  const result = make("p", { className: "live-result" });
  const off = make("button", { type: "button", className: "live-off", onclick: () => plant(null) });
  host.append(mini, make("div", { className: "live-groups" }, layers, heads), result, off);
  const choose = (field, name, count, chosen, pick) => {
    if (field.children.length !== count + 1) {
      field.replaceChildren(make("span", {}, name), ...Array.from({ length: count }, (_, i) =>
        make("button", { type: "button", "aria-label": `${name} ${i + 1}`, onclick: () => pick(i) },
          String(i + 1))));
    }
    [...field.children].slice(1).forEach((button, i) =>
      button.setAttribute("aria-pressed", String(i === chosen)));
  };
  scenes.add(host, () => {
    if (!lab.trace) return;
    const { grid: [rows, cols], config, prefix } = lab.model;
    const at = lab.query - prefix;
    grid.show({
      rows, cols, image: picture(lab.grey, SIDE), gap: 0.06,
      describe: (row, col) => lab.name(prefix + row * cols + col),
      marks: at >= 0 ? [[Math.floor(at / cols), at % cols, 1, 1]] : [],
    });
    choose(layers, "Layer", config.depth, lab.layer, (i) => ((lab.layer = i), lab.changed()));
    choose(heads, "Head", config.heads, lab.head, (i) => ((lab.head = i), lab.changed()));
    result.replaceChildren(make("b", {}, lab.model.classes[lab.best]), ` ${percent(lab.shares[lab.best])}`);
    const changes = [lab.bug, !lab.positions && "no positions", lab.order && "shuffled",
      lab.erased.size && "erased", lab.zeroed.size && "heads silenced"].filter(Boolean);
    off.hidden = !changes.length;
    off.textContent = "Undo changes";
    off.title = changes.join(", ");
  });
}

// --- the mistakes ---------------------------------------------------------------------------------

async function plant(bug) {
  if (bug === null) lab.restore();
  try {
    await lab.plant(bug);
  } catch (error) {
    told.textContent = error.message;
    say(error.message);
  }
}

// Where the model has no class token, two of the mistakes have another place.
const WITHOUT_CLASS_TOKEN = {
  "class-token-without-position": "this model has no class token: its first patch loses its position",
  "wrong-readout": "this model reads the mean of all patches; the mistake reads the last alone",
};

function mistakes() {
  const host = find("mistakes");
  const items = [...host.querySelectorAll("li[data-bug]")];
  const bugOf = (item) => item.dataset.bug || null;
  const parts = new Map(items.map((item) => {
    const toggle = item.querySelector("input");
    toggle.disabled = false;
    const digit = make("span", { className: "live-digit" });
    const thousand = make("span", { className: "live-thousand" });
    const note = make("span", {}, WITHOUT_CLASS_TOKEN[item.dataset.bug] ?? "");
    const effects = item.querySelector(".live-effects");
    effects.prepend(digit, thousand);
    effects.append(note);
    toggle.addEventListener("change", async () => {
      await lab.plant(bugOf(item)).catch((error) => (thousand.textContent = error.message));
      count(item);
    });
    return [item, { toggle, digit, thousand, note }];
  }));
  const count = async (item) => {
    const { thousand } = parts.get(item);
    const show = (words) => (thousand.textContent = words);
    try {
      show("1,000 digits: waiting …");
      const { correct, count: all } = await lab.measure(bugOf(item), (done) =>
        show(`1,000 digits: ${done} …`));
      show(`1,000 digits: ${percentOf(correct, all)}`);
      if (parts.get(item).toggle.checked) say(`${percentOf(correct, all)} of 1,000 digits.`);
    } catch (error) {
      show(error.message);
    }
  };
  const percentOf = (correct, all) => `${((100 * correct) / all).toFixed(1)} %`;
  const all = make("button", { type: "button", onclick: () => items.forEach(count) },
    "Measure all on 1,000 digits");
  host.append(make("div", { className: "live-buttons" }, all));
  let key = "";
  scenes.add(host, async () => {
    if (!lab.trace) return;
    const state = JSON.stringify([lab.positions, [...lab.zeroed]]);
    if (key && key !== state) parts.forEach(({ thousand }) => (thousand.textContent = ""));
    key = state;
    const { trace } = lab;
    const whole = lab.withBug(null);
    const right = whole.indexOf(Math.max(...whole));
    for (const item of items) {
      const { toggle, digit, note } = parts.get(item);
      note.hidden = lab.model.prefix > 0;
      toggle.checked = bugOf(item) === lab.bug;
      if (lab.trace !== trace) return; // another digit came meanwhile
      if (bugOf(item) === "across-the-batch" && !lab.others) {
        digit.textContent = "this digit: depends on the batch";
        continue;
      }
      const shares = lab.withBug(bugOf(item));
      const best = shares.indexOf(Math.max(...shares));
      digit.textContent = `this digit: ${lab.model.classes[best]}, ${percent(shares[best])}`;
      digit.classList.toggle("live-other", best !== right);
      await new Promise((go) => setTimeout(go)); // the page goes first
    }
  });
}

// --- all of it ------------------------------------------------------------------------------------

/** The model that "Train it" left, where the address asks for it. */
async function trained() {
  if (new URLSearchParams(location.search).get("model") !== "trained") return null;
  try {
    const buffer = await takeModel();
    if (!buffer) throw new Error("no model");
    told.textContent = "This is the model that you trained. Draw a digit for it.";
    return buffer;
  } catch {
    told.textContent = "No trained model was left here; chapter 6's runs instead.";
    return null;
  }
}

async function start() {
  lab.digit = pad.sheet.read();
  lab.changed = () => scenes.refresh();
  draw();
  for (const [name, step] of Object.entries(STEPS)) {
    const host = find(name);
    const render = step(host, lab);
    scenes.add(host, () => lab.trace && render());
  }
  bar();
  mistakes();
  photos(find("photos"), onLook);
  document.documentElement.classList.add("live-ready");
  try {
    await lab.load(await trained());
    lab.run();
    lab.changed();
    document.documentElement.dataset.live = "ready";
  } catch (error) {
    told.textContent = error.message;
  }
}

start();
window.lab = lab; // for those who open the console
