// SPDX-License-Identifier: MIT
// What the live pages show numbers with: grids of cells and rows of bars. Each number can be read by
// pointing at it, by a tap, or with the arrow keys, which also speak it.

/** Make an element: `make("button", {type: "button", onclick}, "words", child)`. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key === "className" ? "class" : key, value);
  }
  element.append(...children);
  return element;
}

export function percent(share) {
  const exact = share < 0.1 || (share > 0.985 && share < 0.9995);
  return `${(100 * share).toFixed(exact ? 1 : 0)} %`;
}
export const number = (value) => {
  const text = Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2);
  return text.replace("-", "−");
};

// --- what is said and pointed out -----------------------------------------------------------------

const tip = make("div", { className: "live-tip", hidden: true });
const voice = make("div", { className: "live-voice", "aria-live": "polite" });

/** Have a screen reader say something. */
export function say(words) {
  if (!voice.isConnected) document.body.append(voice);
  voice.textContent = words;
}

function showTip(words, x, y) {
  if (!tip.isConnected) document.body.append(tip);
  tip.textContent = words;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, x - width / 2), document.documentElement.clientWidth - width - 8);
  const above = y - height - 14;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : y + 22}px`;
}

const hideTip = () => (tip.hidden = true);
addEventListener("scroll", hideTip, { passive: true });

// --- colours --------------------------------------------------------------------------------------

let palette = null;
const listeners = [];

/** Call `draw` whenever the theme's colours, or the window's width, change. */
export function onLook(draw) {
  if (!listeners.length) {
    const tell = () => {
      palette = null;
      listeners.forEach((listener) => listener());
    };
    const attributes = { attributes: true, attributeFilter: ["data-theme"] };
    new MutationObserver(tell).observe(document.documentElement, attributes);
    let width = innerWidth;
    addEventListener("resize", () => {
      if (width !== innerWidth) tell(); // a phone's bars change the height alone
      width = innerWidth;
    });
  }
  listeners.push(draw);
}

function colours() {
  if (palette) return palette;
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).match(/\w\w/g).map((two) => parseInt(two, 16));
  palette = Object.fromEntries(
    ["zero", "plus", "minus", "mark", "ink", "on"].map((name) => [name, read(`--live-${name}`)]),
  );
  return palette;
}

const mix = (from, to, share) => from.map((value, i) => value + (to[i] - value) * share);
const css = (rgb, alpha = 1) => `rgb(${rgb.map(Math.round).join(" ")} / ${alpha})`;

/** The colour of a signed number: orange above zero, blue below, none at zero. */
export function signed(value, most) {
  const { zero, plus, minus } = colours();
  return css(mix(zero, value > 0 ? plus : minus, Math.min(1, Math.abs(value) / (most || 1)) ** 0.8));
}

/** The colour of a share between none and `most`. */
export function share(value, most = 1) {
  const { zero, minus } = colours();
  return css(mix(zero, minus, Math.min(1, value / (most || 1))));
}

/** The colour of words on `share`. */
export const onShare = (value) => css(colours()[value > 0.5 ? "on" : "ink"]);

/** The colour of words on `signed`. */
export const onSigned = (value, most) => onShare(Math.abs(value) / (most || 1));

/** Light over a picture: what has no share is dark. */
export const veil = (value, most) => `rgb(8 16 32 / ${0.82 * (1 - Math.min(1, value / (most || 1)))})`;
export const grey = (value) => css([value, value, value]);
export const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// --- a grid of cells ------------------------------------------------------------------------------

/** A picture of rows and columns on a canvas. `show` says what is in it, `describe` each cell. */
export class Grid {
  /**
   * @param {Element} host the element that takes it
   * @param {{label: string, width: number, pick?: Function, point?: Function}} options what it is,
   *   for those who do not see it; its width in pixels where there is room; what a click does, and
   *   what pointing does, with (row, column)
   */
  constructor(host, { label, width, pick = null, point = null, kind = "" }) {
    this.canvas = make("canvas", {
      className: `live-grid ${pick ? "live-pick" : ""} ${kind}`,
      tabIndex: 0, role: "application", "aria-roledescription": "grid of numbers",
    });
    this.host = host;
    Object.assign(this, { label, width, pick, point, cursor: null, shown: null });
    host.append(this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.onPointer(event, false));
    this.canvas.addEventListener("pointerdown", (event) => this.onPointer(event, true));
    this.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.leave();
    });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("blur", () => this.leave());
  }

  /**
   * Draw. `colour(row, col)` gives a cell's colour, or null for none; `describe(row, col)` the words
   * for it; `image` ({data, side} grey, or {data, side, channels: 3}) lies beneath; `marks` is a list
   * of [row, col, rows, cols] to outline; `text(row, col)` is written into cells; `tall` is a cell's
   * height over its width, `gap` the share of a cell that stays free between cells.
   */
  show(shown) {
    this.shown = { image: null, marks: [], text: null, tall: 1, gap: 0, ...shown };
    this.canvas.setAttribute("aria-label", `${this.label} Arrow keys read its numbers.`);
    this.draw();
  }

  draw() {
    if (!this.shown) return;
    const { rows, cols, colour, image, marks, text, tall, gap } = this.shown;
    const wide = Math.min(this.width, this.host.clientWidth || this.width);
    const [w, h] = [wide / cols, (wide / cols) * tall];
    const scale = window.devicePixelRatio || 1;
    const size = [Math.round(wide * scale), Math.round(h * rows * scale)];
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) {
      [this.canvas.width, this.canvas.height] = size;
      this.canvas.style.width = `${wide}px`;
      this.canvas.style.height = `${h * rows}px`;
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(size[0] / wide, 0, 0, size[1] / (h * rows), 0, 0);
    pen.clearRect(0, 0, wide, h * rows);
    pen.imageSmoothingEnabled = false;
    const free = gap * w;
    for (let row = 0; row < rows; row++)
      for (let col = 0; col < cols; col++) {
        // On whole pixels of the screen, so that no seams show.
        const [left, right, top, low] = [col * w, (col + 1) * w, row * h, (row + 1) * h]
          .map((edge) => Math.round(edge * scale) / scale);
        const box = [left + free / 2, top + free / 2, right - left - free, low - top - free];
        if (image) {
          const [high, part] = [image.canvas.height / rows, image.canvas.width / cols];
          pen.drawImage(image.canvas, col * part, row * high, part, high, ...box);
        }
        const fill = colour?.(row, col);
        if (!fill) continue;
        pen.fillStyle = fill;
        pen.fillRect(...box);
      }
    if (text) this.write(pen, text, w, h);
    const { mark } = colours();
    for (const [row, col, high, part] of marks) {
      pen.strokeStyle = css(mark);
      pen.lineWidth = 2.5;
      pen.strokeRect(col * w + 1.25, row * h + 1.25, part * w - 2.5, high * h - 2.5);
    }
    if (this.cursor) {
      const [row, col] = this.cursor;
      pen.lineWidth = 1.5;
      for (const [style, inset] of [["#000", 0.5], ["#fff", 2]]) {
        pen.strokeStyle = style;
        if (Math.min(w, h) > 2 * inset + 2)
          pen.strokeRect(col * w + inset, row * h + inset, w - 2 * inset, h - 2 * inset);
      }
    }
  }

  write(pen, text, w, h) {
    pen.font = `${Math.min(13, w * 0.42)}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (let row = 0; row < this.shown.rows; row++)
      for (let col = 0; col < this.shown.cols; col++) {
        const [words, colour] = text(row, col);
        if (w < 16) return; // too small to read
        pen.fillStyle = colour;
        pen.fillText(words, (col + 0.5) * w, (row + 0.5) * h);
      }
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    const { rows, cols } = this.shown;
    const place = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [
      place((event.clientY - box.top) / box.height, rows),
      place((event.clientX - box.left) / box.width, cols),
    ];
  }

  onPointer(event, pressed) {
    if (!this.shown) return;
    const cell = this.at(event);
    if (pressed) this.pick?.(...cell);
    this.moveTo(cell);
    showTip(this.shown.describe(...cell), event.clientX, event.clientY);
  }

  onKey(event) {
    if (!this.shown) return;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const { rows, cols, describe } = this.shown;
    const [row, col] = this.cursor ?? [0, 0];
    if (event.key in step) {
      const [down, right] = this.cursor ? step[event.key] : [0, 0];
      const near = (value, count) => Math.min(count - 1, Math.max(0, value));
      this.moveTo([near(row + down, rows), near(col + right, cols)]);
    } else if ((event.key === "Enter" || event.key === " ") && this.pick) {
      this.pick(row, col);
    } else if (event.key === "Escape") {
      this.leave();
      return;
    } else return;
    event.preventDefault();
    const words = describe(...this.cursor ?? [0, 0]);
    const box = this.canvas.getBoundingClientRect();
    const [y, x] = this.cursor ?? [0, 0];
    showTip(words, box.left + ((x + 0.5) / cols) * box.width, box.top + (y / rows) * box.height);
    say(words);
  }

  moveTo(cell) {
    if (this.cursor?.join() === cell.join()) return;
    this.cursor = cell;
    this.point?.(...cell);
    this.draw();
  }

  leave() {
    hideTip();
    if (!this.cursor) return;
    this.cursor = null;
    this.draw();
  }
}

/** A picture for `Grid.show`: grey or colour values, 0 to 255, channel by channel. */
export function picture(data, width, height = width, channels = 1) {
  const canvas = make("canvas", { width, height });
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++)
      pixels.data[4 * i + c] = data[channels === 1 ? i : c * width * height + i];
    pixels.data[4 * i + 3] = 255;
  }
  pen.putImageData(pixels, 0, 0);
  return { canvas };
}

// --- bars -----------------------------------------------------------------------------------------

/** A list of classes with a bar and a number each. */
export class Bars {
  constructor(host, label) {
    this.list = make("ol", { className: "live-bars", "aria-label": label });
    host.append(this.list);
  }

  /** Show names and shares in the order given; the largest stands out. */
  show(names, shares) {
    while (this.list.children.length < names.length) {
      this.list.append(make("li", {}, make("b"), make("span", {}, make("i")), make("small")));
    }
    const most = Math.max(...shares);
    [...this.list.children].forEach((item, i) => {
      item.hidden = i >= names.length;
      if (item.hidden) return;
      const [name, track, value] = item.children;
      name.textContent = names[i];
      track.firstChild.style.width = `${100 * shares[i]}%`;
      value.textContent = percent(shares[i]);
      item.classList.toggle("live-first", shares[i] === most);
    });
  }
}

/** Call `render` when its element comes into view, and, while it is there, on every `refresh`. */
export class Scenes {
  constructor() {
    this.scenes = [];
    this.watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const scene = this.scenes.find(({ host }) => host === target);
        scene.visible = isIntersecting;
        if (isIntersecting && scene.stale) this.render(scene);
      }
    }, { rootMargin: "200px" });
    onLook(() => this.refresh());
  }

  add(host, render) {
    this.scenes.push({ host, render, visible: false, stale: true });
    this.watch.observe(host);
  }

  refresh() {
    for (const scene of this.scenes) {
      scene.stale = true;
      if (scene.visible) this.render(scene);
    }
  }

  render(scene) {
    scene.stale = false;
    scene.render();
  }
}
