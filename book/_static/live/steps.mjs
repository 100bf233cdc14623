// SPDX-License-Identifier: MIT
// The steps of "Try it": one image followed from patches to answer. Each function fills the element
// of its step and returns what draws it anew.

import {
  Grid, grey, largest, make, number, onShare, onSigned, percent, picture, share, signed, veil,
} from "./views.mjs";

const boxed = (parent, title) => {
  const box = make("figure", { className: "live-box" });
  if (title) box.append(make("figcaption", {}, title));
  parent.append(box);
  return box;
};
const line = (parent) => {
  const words = make("p", { className: "live-line" });
  parent.append(words);
  return words;
};

/** A grid over the patches of the image; picking one makes it the query, or what `pick` does. */
function patchGrid(host, lab, label, width, options = {}) {
  const token = (row, col) => lab.model.prefix + row * lab.model.grid[1] + col;
  const pick = (row, col) => {
    lab.query = token(row, col);
    lab.changed();
  };
  const { pick: own, point } = options;
  const given = {
    pick: own === undefined ? pick : own && ((row, col) => own(token(row, col))),
    point: point && ((row, col) => point(token(row, col))),
  };
  const grid = new Grid(host, { label, width, ...given });
  return {
    show(values) {
      const [rows, cols] = lab.model.grid;
      const place = (row, col) => row * cols + col;
      const { colour, describe, marks = [lab.query], image = null, gap = 0, text } = values;
      grid.show({
        rows, cols, image, gap,
        text: text && ((row, col) => text(token(row, col))),
        colour: colour && ((row, col) => colour(token(row, col), place(row, col))),
        describe: (row, col) => describe(token(row, col), place(row, col)),
        marks: marks.filter((i) => i >= lab.model.prefix).map((i) => {
          const at = i - lab.model.prefix;
          return [Math.floor(at / cols), at % cols, 1, 1];
        }),
      });
    },
  };
}

/** What a query sees: over the patches of the image, or over the digits of a batch. */
function keyGrid(host, lab, label, width, options = {}) {
  const inImage = make("div");
  const inBatch = make("div", { hidden: true });
  host.append(inImage, inBatch);
  const patches = patchGrid(inImage, lab, label, width, options);
  const { point, pick } = options;
  const side = () => Math.ceil(Math.sqrt(lab.trace.B));
  const at = (act) => act && ((row, col) => {
    if (row * side() + col < lab.trace.B) act(row * side() + col);
  });
  const batch = new Grid(inBatch, {
    label: `${label} Each cell is a digit of the batch.`, width, point: at(point), pick: at(pick),
  });
  return {
    show(values) {
      inImage.hidden = lab.across;
      inBatch.hidden = !lab.across;
      if (!lab.across) {
        patches.show({ image: picture(lab.grey, 28), ...values });
        return;
      }
      const count = side();
      const sheet = new Uint8Array((28 * count) ** 2);
      [lab.grey, ...lab.others].forEach((digit, b) => digit.forEach((value, i) => {
        const row = Math.floor(b / count) * 28 + Math.floor(i / 28);
        sheet[row * 28 * count + (b % count) * 28 + i % 28] = value;
      }));
      const known = (row, col) => row * count + col < lab.trace.B;
      batch.show({
        rows: count, cols: count, image: picture(sheet, 28 * count),
        colour: (row, col) => known(row, col) ? values.colour(row * count + col) : null,
        describe: (row, col) => known(row, col) ? values.describe(row * count + col) : "nothing",
        marks: (values.marks ?? []).filter((j) => j === lab.key)
          .map((j) => [Math.floor(j / count), j % count, 1, 1]),
      });
    },
  };
}

/** A strip of numbers with its name. */
function strip(host, title, { width = 640, tall = 1.6, ...options } = {}) {
  const box = boxed(host, title);
  const grid = new Grid(box, { label: `${title}.`, width, ...options });
  return (values, most, words, marks = []) => grid.show({
    rows: 1, cols: values.length, tall: Math.max(tall, (22 * values.length) / width), marks,
    colour: (_, col) => signed(values[col], most),
    describe: (_, col) => `${words(col)}: ${number(values[col])}`,
  });
}

// --- chapter 1 ------------------------------------------------------------------------------------

export function patches(host, lab) {
  const row = make("div", { className: "live-row" });
  const [left, right] = [boxed(row, "The patches: pick one"), boxed(row, "")];
  const title = make("figcaption");
  right.append(title);
  const grid = patchGrid(left, lab, "The image, cut into patches.", 250);
  const inside = new Grid(right, { label: "The grey values of the chosen patch.", width: 250 });
  const button = (words, act) => make("button", { type: "button", onclick: act }, words);
  const erase = button("Erase this patch", () => {
    const place = lab.query - lab.model.prefix;
    if (place < 0) return;
    if (!lab.erased.delete(place)) lab.erased.add(place);
    lab.update();
  });
  const shuffle = button("Shuffle the patches", () => {
    const order = Array.from({ length: lab.places }, (_, i) => i);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    lab.order = order;
    lab.update();
  });
  const back = button("Put all back", () => {
    lab.erased.clear();
    lab.order = null;
    lab.update();
  });
  host.append(row, make("div", { className: "live-buttons" }, erase, shuffle, back));
  return () => {
    const P = lab.model.config.patch_size;
    const place = Math.max(0, lab.query - lab.model.prefix);
    const [top, start] = [Math.floor(place / lab.model.grid[1]) * P, (place % lab.model.grid[1]) * P];
    const value = (y, x) => lab.grey[(top + y) * 28 + start + x];
    title.textContent = `${lab.name(place + lab.model.prefix)}: ${P * P} grey values`;
    grid.show({
      image: picture(lab.grey, 28), gap: 0.08,
      describe: (i, at) => lab.name(i) + (lab.erased.has(at) ? ", erased" : ""),
    });
    inside.show({
      rows: P, cols: P,
      colour: (y, x) => grey(value(y, x)),
      text: P <= 10 && ((y, x) => [value(y, x), value(y, x) > 110 ? "#000" : "#c8d0da"]),
      describe: (y, x) => `row ${y + 1}, column ${x + 1} of the patch: grey ${value(y, x)} of 255`,
    });
    const gone = lab.erased.has(place);
    erase.textContent = gone ? "Bring this patch back" : "Erase this patch";
    back.disabled = !lab.erased.size && !lab.order;
  };
}

export function tokens(host, lab) {
  const box = boxed(host, "");
  const title = make("figcaption");
  box.append(title);
  let channel = 0;
  const choose = (row, col) => {
    lab.query = lab.model.prefix + row;
    channel = col;
    lab.changed();
  };
  const table = new Grid(box, {
    label: "Tokens: a row for each patch, a column for each number.", width: 700, pick: choose,
  });
  const row = make("div", { className: "live-row live-sum" });
  const small = ["the patch", "filter", "products"].map((name) => boxed(row, name));
  const grids = small.map((host, i) => new Grid(host, {
    label: ["The patch as the model reads it.", "The filter.", "Patch times filter."][i], width: 150,
  }));
  small[0].after(make("span", { className: "live-sign" }, "×"));
  small[1].after(make("span", { className: "live-sign" }, "="));
  host.append(row);
  const words = line(host);
  return () => {
    const { D, prefix, config: { patch_size: P }, weights, grid } = lab.model;
    const first = lab.trace.content.subarray(prefix * D, lab.model.N * D);
    const place = Math.max(0, lab.query - prefix);
    const most = largest(first);
    title.textContent = `${grid[0] * grid[1]} tokens of ${D} numbers: pick one number`;
    table.show({
      rows: lab.places, cols: D, tall: Math.max(1, (150 / lab.places) * (D / 700)),
      colour: (i, e) => signed(first[i * D + e], most),
      describe: (i, e) => `${lab.name(i + prefix)}, number ${e}: ${number(first[i * D + e])}`,
      marks: [[place, 0, 1, D], [place, channel, 1, 1]],
    });
    const patch = lab.trace.patches.subarray(place * P * P, (place + 1) * P * P);
    const filter = weights["patch_embed.proj.weight"].subarray(channel * P * P, (channel + 1) * P * P);
    const products = patch.map((value, i) => value * filter[i]);
    [patch, filter, products].forEach((values, which) => grids[which].show({
      rows: P, cols: P,
      colour: (y, x) => signed(values[y * P + x], largest(values)),
      describe: (y, x) => `row ${y + 1}, column ${x + 1}: ${number(values[y * P + x])}`,
    }));
    small[1].querySelector("figcaption").textContent = `filter ${channel}`;
    const total = products.reduce((sum, value) => sum + value, 0);
    const bias = weights["patch_embed.proj.bias"][channel];
    words.textContent = `Number ${channel} of ${lab.name(place + prefix)}: the products add up to `
      + `${number(total)}, plus the bias ${number(bias)} makes ${number(total + bias)}.`;
  };
}

// --- chapter 2 ------------------------------------------------------------------------------------

export function positions(host, lab) {
  const row = make("div", { className: "live-row" });
  const strips = make("div", { className: "live-grow" });
  const content = strip(strips, "what the patch holds");
  const where = strip(strips, "+ where it stands");
  const both = strip(strips, "= the token that enters block 1");
  const near = patchGrid(
    boxed(row, "How alike the positions are"), lab, "Likeness of positions to the chosen one.", 170,
  );
  row.prepend(strips);
  const without = make("button", {
    type: "button", "aria-pressed": "false",
    onclick: () => {
      lab.positions = !lab.positions;
      lab.update();
    },
  }, "Leave the positions out");
  host.append(row, make("div", { className: "live-buttons" }, without));
  const words = line(host);
  return () => {
    const { D, N } = lab.model;
    const table = lab.trace.positions ?? new Float32Array(N * D);
    const i = lab.query;
    const parts = [lab.trace.content, table, lab.trace.embedding].map((t) => lab.token(t, i));
    const most = Math.max(...parts.map(largest));
    const named = (what) => (e) => `${what} of ${lab.name(i)}, number ${e}`;
    content(parts[0], most, named("content"));
    where(parts[1], most, named("position"));
    both(parts[2], most, named("token"));
    const dot = (a, b) => a.reduce((sum, value, e) => sum + value * b[e], 0);
    const like = (j) => {
      const [a, b] = [lab.token(table, i), lab.token(table, j)];
      return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b) || 1);
    };
    near.show({
      colour: (j) => signed(like(j), 1),
      text: (j) => [number(like(j)), onSigned(like(j), 1)],
      describe: (j) => `cosine of the positions of ${lab.name(i)} and ${lab.name(j)}: ${number(like(j))}`,
    });
    without.setAttribute("aria-pressed", String(!lab.positions));
    words.textContent = lab.positions
      ? "Try this: leave the positions out, then shuffle the patches in step 1. The answer stays the "
        + "same: without positions the model sees a bag of patches."
      : "The positions are out: shuffle the patches, and the answer does not change.";
  };
}

// --- chapter 3 ------------------------------------------------------------------------------------

export function queries(host, lab) {
  const row = make("div", { className: "live-row" });
  const left = boxed(row, "");
  const title = make("figcaption");
  left.append(title);
  const point = (j) => {
    lab.key = j;
    lab.changed();
  };
  const map = keyGrid(left, lab, "Scores of the query with every key.", 230, { point, pick: point });
  const right = make("div", { className: "live-grow" });
  row.append(right);
  const [q, k, products] = ["query q", "key k", "q · k, number by number"]
    .map((name) => strip(right, name, { width: 460 }));
  host.append(row);
  const words = line(host);
  return () => {
    const i = lab.query;
    const j = (lab.key = Math.min(lab.key, lab.row(i).length - 1));
    const scores = lab.scores(i);
    const most = largest(scores);
    title.textContent = `Scores of ${lab.name(i)}: point at a key`;
    map.show({
      marks: [i, j],
      image: null,
      colour: (at) => signed(scores[at], most),
      text: (at) => [number(scores[at]), onSigned(scores[at], most)],
      describe: (at) => `score of ${lab.keyName(at)}: ${number(scores[at])}`,
    });
    const [a, b] = [lab.q(i), lab.k(i, j)];
    const times = a.map((value, e) => value * b[e]);
    const top = Math.max(largest(a), largest(b));
    q(a, top, (e) => `query of ${lab.name(i)}, number ${e}`);
    k(b, top, (e) => `key of ${lab.keyName(j)}, number ${e}`);
    products(times, largest(times), (e) => `product of numbers ${e}`);
    const sum = times.reduce((total, value) => total + value, 0);
    const { scale } = lab.trace.layers[lab.layer];
    const by = Math.abs(1 / scale - Math.sqrt(lab.model.d)) < 1e-6
      ? `√${lab.model.d} = ${number(1 / scale)}` : number(1 / scale);
    words.textContent = `${cap(lab.name(i))} asks ${lab.keyName(j)}: the products add up to `
      + `${number(sum)}; divided by ${by}, the score is ${number(sum * scale)}.`;
  };
}

const cap = (text) => text[0].toUpperCase() + text.slice(1);

export function attention(host, lab) {
  const row = make("div", { className: "live-row" });
  const [left, right] = [boxed(row, "Where the chosen patch looks"), boxed(row, "")];
  const title = make("figcaption");
  right.append(title);
  const map = keyGrid(left, lab, "Attention of the query.", 250);
  const matrix = new Grid(right, {
    label: "Attention: a row for each query, a column for each key.", width: 250,
    pick: (i, j) => {
      [lab.query, lab.key] = [i, j];
      lab.changed();
    },
  });
  host.append(row);
  const words = line(host);
  return () => {
    const { N } = lab.model;
    const i = lab.query;
    const weights = lab.row(i);
    map.show({
      marks: [i, lab.key],
      colour: (j) => veil(weights[j], largest(weights)),
      describe: (j) => `${lab.name(i)} takes ${percent(weights[j])} from ${lab.keyName(j)}`,
    });
    const rows = Array.from({ length: N }, (_, at) => lab.row(at));
    const most = Math.max(...rows.map(largest));
    title.textContent = `All ${N} queries of layer ${lab.layer + 1}, head ${lab.head + 1}`;
    matrix.show({
      rows: N, cols: weights.length,
      colour: (at, j) => share(rows[at][j], most),
      describe: (at, j) => `${lab.name(at)} takes ${percent(rows[at][j])} from ${lab.keyName(j)}`,
      marks: [[i, 0, 1, weights.length]],
    });
    const sum = weights.reduce((total, value) => total + value, 0);
    const j = weights.indexOf(Math.max(...weights));
    words.textContent = `${cap(lab.name(i))} looks most at ${lab.keyName(j)}, ${percent(weights[j])}. `
      + `Its row adds up to ${number(sum)}.`
      + (Math.abs(sum - 1) > 1e-3 ? " A row of a softmax over the keys would add up to 1." : "")
      + (lab.across ? " It looks at the same place of other digits, and at no other patch." : "");
  };
}

export function heads(host, lab) {
  const field = make("div", { className: "live-heads" });
  host.append(field);
  const button = make("button", {
    type: "button", "aria-pressed": "false",
    onclick: () => {
      const name = `${lab.layer}.${lab.head}`;
      if (!lab.zeroed.delete(name)) lab.zeroed.add(name);
      lab.update();
    },
  }, "Silence this head");
  const all = make("button", {
    type: "button",
    onclick: () => {
      lab.zeroed.clear();
      lab.update();
    },
  }, "Let all speak");
  host.append(make("div", { className: "live-buttons" }, button, all));
  let maps = [];
  const build = ({ depth, heads: count }) => {
    field.replaceChildren();
    field.style.setProperty("--heads", count);
    maps = [];
    const titles = Array.from({ length: count }, (_, head) => make("span", {}, `head ${head + 1}`));
    field.append(make("span"), ...titles);
    for (let layer = 0; layer < depth; layer++) {
      field.append(make("span", {}, `layer ${layer + 1}`));
      for (let head = 0; head < count; head++) {
        const box = make("div", { className: "live-head" });
        const pick = () => {
          [lab.layer, lab.head] = [layer, head];
          lab.changed();
        };
        field.append(box);
        const label = `Layer ${layer + 1}, head ${head + 1}: attention of the query.`;
        maps.push({ box, layer, head, grid: keyGrid(box, lab, label, 120, { pick }) });
      }
    }
  };
  return () => {
    const { config } = lab.model;
    if (maps.length !== config.depth * config.heads) build(config);
    for (const { box, layer, head, grid } of maps) {
      const silent = lab.zeroed.has(`${layer}.${head}`);
      const weights = lab.row(lab.query, layer, head);
      box.classList.toggle("live-chosen", layer === lab.layer && head === lab.head);
      box.classList.toggle("live-silent", silent);
      grid.show({
        colour: (j) => veil(weights[j], largest(weights)),
        describe: (j) => `layer ${layer + 1}, head ${head + 1}${silent ? ", silenced" : ""}: `
          + `${percent(weights[j])} from ${lab.keyName(j)}`,
        marks: [],
      });
    }
    const silent = lab.zeroed.has(`${lab.layer}.${lab.head}`);
    button.textContent = `Silence layer ${lab.layer + 1}, head ${lab.head + 1}`;
    button.setAttribute("aria-pressed", String(silent));
    all.disabled = !lab.zeroed.size;
  };
}

// --- chapter 4 ------------------------------------------------------------------------------------

export function residual(host, lab) {
  const names = ["x, what comes in", "+ what attention adds", "= x after attention",
    "the MLP's hidden numbers", "+ what the MLP adds", "= x, what goes out"];
  const strips = names.map((name) => strip(host, name, { width: 700, tall: 1.3 }));
  const words = line(host);
  return () => {
    const layer = lab.trace.layers[lab.layer];
    const i = lab.query;
    const width = layer.hidden.length / (lab.trace.B * lab.model.N);
    const parts = ["x", "attn_out", "middle", "hidden", "mlp_out", "tokens"].map((name) =>
      lab.token(layer[name], i, name === "hidden" ? width : lab.model.D));
    const most = Math.max(...parts.filter((_, at) => at !== 3).map(largest));
    parts.forEach((values, at) => strips[at](values, at === 3 ? largest(values) : most, (e) =>
      `${names[at].replace(/^[+=] /, "")}: ${lab.name(i)}, number ${e}`));
    const length = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    words.textContent = `Layer ${lab.layer + 1}, ${lab.name(i)}: x has length `
      + `${number(length(parts[0]))}, attention adds ${number(length(parts[1]))}, the MLP adds `
      + `${number(length(parts[4]))}.`;
  };
}

// --- chapter 5 ------------------------------------------------------------------------------------

export function answers(host, lab) {
  const box = boxed(host, "Percent for each class, before block 1 (–) and after each block");
  const grid = new Grid(box, { label: "The answer read from every layer.", width: 560 });
  const words = line(host);
  return () => {
    const rows = lab.answers();
    const names = lab.model.classes;
    const after = (row) => row ? `after block ${row}` : "before block 1";
    // A row with the classes' names stands above, a column with the blocks' before.
    grid.show({
      rows: rows.length + 1, cols: names.length + 1, tall: 0.62,
      colour: (row, col) => row && col ? share(rows[row - 1][col - 1]) : null,
      text: (row, col) => {
        if (!row) return [col ? names[col - 1] : "block", onShare(0)];
        if (!col) return [row - 1 || "–", onShare(0)];
        const value = rows[row - 1][col - 1];
        return [value >= 0.005 ? Math.round(100 * value) : "·", onShare(value)];
      },
      describe: (row, col) => {
        if (!row) return col ? `class ${names[col - 1]}` : "percent, by block and class";
        if (!col) return after(row - 1);
        return `${after(row - 1)}: class ${names[col - 1]}, ${percent(rows[row - 1][col - 1])}`;
      },
      marks: rows.map((shares, row) => [row + 1, shares.indexOf(Math.max(...shares)) + 1, 1, 1]),
    });
    const winners = rows.map((shares) => names[shares.indexOf(Math.max(...shares))]);
    const last = winners.at(-1);
    const from = winners.length - [...winners].reverse().findIndex((name) => name !== last);
    const since = winners.every((name) => name === last) ? 0 : from;
    words.textContent = `Read out at every layer: ${winners.join(", ")}. The answer ${last} stands `
      + `${since ? `from block ${since} on` : "from the start"}.`;
  };
}

export const STEPS = {
  patches, tokens, positions, queries, attention, heads, residual, answers,
};
