// SPDX-License-Identifier: MIT
// A pad to draw a digit on, and what makes of a drawing or a photograph what MNIST's makers made of
// theirs: the steps of vitcore's read_digit (vitcore/data/paper.py), one by one.

export const SIDE = 28; // pixels of an MNIST image
const BOX = 20; // the longer side of the ink in it
const PAPER = 256; // pixels of the sheet that is drawn on; a photograph is brought to this
const PEN = 0.045; // half the width of a stroke, as a share of the sheet

/** A sheet (256, 256) of ink in 0 to 255, drawn in strokes; points lie in [0, 1] x [0, 1]. */
export class Sheet {
  constructor() {
    this.clear();
  }

  clear() {
    this.ink = new Float32Array(PAPER * PAPER);
    this.strokes = [];
    this.empty = true;
  }

  /** Put the pen down at a point. */
  start(x, y) {
    this.strokes.push([[x, y]]);
    this.line([x, y], [x, y]);
  }

  /** Draw on to a point. */
  to(x, y) {
    const stroke = this.strokes.at(-1);
    this.line(stroke.at(-1), [x, y]);
    stroke.push([x, y]);
  }

  /** Draw whole strokes, lists of points. */
  draw(strokes) {
    for (const [first, ...rest] of strokes) {
      this.start(...first);
      for (const point of rest) this.to(...point);
    }
  }

  /** Ink within the pen's radius of the line from a to b; the edge is one pixel soft. */
  line(a, b) {
    this.empty = false;
    const [x0, y0, x1, y1] = [...a, ...b].map((value) => value * PAPER - 0.5);
    const radius = PEN * PAPER;
    const [dx, dy] = [x1 - x0, y1 - y0];
    const reach = (low, high) => [
      Math.max(0, Math.floor(Math.min(low, high) - radius)),
      Math.min(PAPER - 1, Math.ceil(Math.max(low, high) + radius)),
    ];
    const [[left, right], [top, bottom]] = [reach(x0, x1), reach(y0, y1)];
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) {
        const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
        const t = Math.min(1, Math.max(0, along));
        const away = Math.hypot(x - x0 - t * dx, y - y0 - t * dy);
        const ink = 255 * Math.min(1, Math.max(0, radius + 0.5 - away));
        if (ink > this.ink[y * PAPER + x]) this.ink[y * PAPER + x] = ink;
      }
  }

  /** The digit as the model reads it, or null where there is no ink: see `cutOut`. */
  read() {
    return this.empty ? null : cutOut(this.ink, PAPER, PAPER);
  }
}

/**
 * A photograph of one digit as MNIST's makers would have cut it.
 * @param {ArrayLike<number>} rgba as of a canvas, (height, width, 4) in 0 to 255, without alpha
 * @returns {?Uint8Array} (28, 28), or null where there is no ink
 */
export function readDigit(rgba, width, height) {
  let grey = new Float32Array(width * height);
  for (let i = 0; i < grey.length; i++) {
    const [red, green, blue] = rgba.slice(4 * i, 4 * i + 3);
    grey[i] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue); // ITU-R 601
  }
  const shrink = Math.max(width, height) / PAPER;
  if (shrink > 1) {
    const small = [height, width].map((side) => Math.max(1, roundHalfEven(side / shrink)));
    grey = resize(grey, height, width, ...small).map(Math.round);
    [height, width] = small;
  }
  const paper = paperLight(grey, width, height);
  const away = grey.map((value, i) => value - paper[i]);
  // The long tail is the ink: paper is most of the picture.
  const dark = away.reduce((sum, value) => sum + value ** 3, 0) < 0;
  return cutOut(away.map((value) => Math.max(0, dark ? -value : value)), width, height);
}

/**
 * The light of the paper alone: a surface of second order, fitted again and again to pixels near
 * it, so that ink drops out.
 */
function paperLight(grey, width, height) {
  const place = (i, side) => (side > 1 ? (2 * i) / (side - 1) - 1 : -1);
  const terms = (i) => {
    const [x, y] = [place(i % width, width), place(Math.floor(i / width), height)];
    return [1, x, y, x * x, x * y, y * y];
  };
  let surface = new Float32Array(grey.length).fill(quantile(grey, 0.5, true));
  for (let round = 0; round < 12; round++) {
    const away = grey.map((value, i) => Math.abs(value - surface[i]));
    const near = Math.max(2, 3.7 * quantile(away, 0.5, true)); // 2.5 deviations of normal noise
    const sums = Array.from({ length: 6 }, () => new Float64Array(7)); // the normal equations
    for (let i = 0; i < grey.length; i++) {
      if (away[i] > near) continue;
      const row = [...terms(i), grey[i]];
      for (let a = 0; a < 6; a++) for (let b = 0; b < 7; b++) sums[a][b] += row[a] * row[b];
    }
    const fit = solve(sums);
    surface = surface.map((_, i) => terms(i).reduce((sum, term, a) => sum + term * fit[a], 0));
  }
  return surface;
}

/** Solve equations, a row each with the right side last; what nothing determines becomes 0. */
function solve(rows) {
  const count = rows.length;
  const scale = Math.max(...rows.map((row, i) => Math.abs(row[i]))) * 1e-12;
  for (let i = 0; i < count; i++) {
    for (let r = 0; r < count; r++) {
      if (r === i || Math.abs(rows[i][i]) <= scale) continue;
      const factor = rows[r][i] / rows[i][i];
      for (let c = i; c <= count; c++) rows[r][c] -= factor * rows[i][c];
    }
  }
  return rows.map((row, i) => (Math.abs(row[i]) > scale ? row[count] / row[i] : 0));
}

/**
 * From ink (height, width), 0 where there is none, to (28, 28) in 0 to 255: specks and paper taken
 * away, cut out, scaled to a box of 20 pixels, stretched to the full contrast, and placed with its
 * centre of mass in the middle. Null where there is no ink.
 */
export function cutOut(ink, width, height) {
  const blur = Math.max(1, roundHalfEven(Math.max(width, height) / 85)) * 2 - 1;
  const blurred = boxBlur(ink, width, height, blur);
  const top = blurred.reduce((most, value) => Math.max(most, value), 0);
  if (top < 12 || top < 6 * 1.4826 * quantile(blurred, 0.5, true)) return null;
  let [x0, x1, y0, y1] = [width, -1, height, -1]; // around the strong ink
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (blurred[y * width + x] <= 0.35 * top) continue;
      [x0, x1, y0, y1] = [Math.min(x0, x), Math.max(x1, x), Math.min(y0, y), Math.max(y1, y)];
    }
  const [w, h] = [x1 - x0 + 1, y1 - y0 + 1];
  const low = 0.15 * top;
  const clamp = (value) => Math.min(1, Math.max(0, value));
  const part = Float32Array.from({ length: w * h }, (_, i) => {
    const value = blurred[(y0 + Math.floor(i / w)) * width + x0 + i % w];
    return clamp((value - low) / (top - low));
  });
  const scale = BOX / Math.max(w, h);
  const [rows, cols] = [h, w].map((side) => Math.max(1, roundHalfEven(side * scale)));
  const small = resize(part, h, w, rows, cols);
  // Thin strokes become grey when they are scaled down; MNIST's are white in the middle.
  const most = small.reduce((a, b) => Math.max(a, b), 0);
  const white = quantile(small.filter((value) => value > 0.1 * most), 0.9);
  return centre(small.map((value) => clamp(value / white)), rows, cols);
}

/** A small image in the middle of (28, 28), by its centre of mass; 0 to 1 becomes 0 to 255. */
function centre(small, rows, cols) {
  let [mass, x, y] = [0, 0, 0];
  small.forEach((value, i) => {
    mass += value;
    x += value * (i % cols + 0.5);
    y += value * (Math.floor(i / cols) + 0.5);
  });
  const corner = (sum, side) =>
    Math.min(Math.max(roundHalfEven(SIDE / 2 - sum / mass), 0), SIDE - side);
  const [left, top] = [corner(x, cols), corner(y, rows)];
  const image = new Uint8Array(SIDE * SIDE);
  small.forEach((value, i) => {
    image[(top + Math.floor(i / cols)) * SIDE + left + i % cols] = roundHalfEven(255 * value);
  });
  return image;
}

/** The mean over size x size pixels around each, of those that lie in the image. */
function boxBlur(values, width, height, size) {
  const half = (size - 1) / 2;
  const along = (line, count, step, start, out) => {
    for (let i = 0; i < count; i++) {
      const [first, last] = [Math.max(0, i - half), Math.min(count - 1, i + half)];
      let sum = 0;
      for (let j = first; j <= last; j++) sum += line[start + j * step];
      out[start + i * step] = sum / (last - first + 1);
    }
  };
  const [once, twice] = [new Float32Array(values.length), new Float32Array(values.length)];
  for (let y = 0; y < height; y++) along(values, width, 1, y * width, once);
  for (let x = 0; x < width; x++) along(once, height, width, x, twice);
  return twice;
}

/**
 * Resize (height, width) to (rows, cols) as torch's `interpolate(mode="bilinear", antialias=True)`:
 * each new pixel averages what it covers, by a triangle.
 */
export function resize(values, height, width, rows, cols) {
  const wide = new Float32Array(height * cols);
  triangle(width, cols).forEach(([first, weights], x) => {
    for (let y = 0; y < height; y++)
      wide[y * cols + x] = weights.reduce((s, w, i) => s + w * values[y * width + first + i], 0);
  });
  const out = new Float32Array(rows * cols);
  triangle(height, rows).forEach(([first, weights], y) => {
    for (let x = 0; x < cols; x++)
      out[y * cols + x] = weights.reduce((s, w, i) => s + w * wide[(first + i) * cols + x], 0);
  });
  return out;
}

/** For each of `to` new places on a side of `from` pixels: the first old one and all weights. */
function triangle(from, to) {
  const scale = from / to;
  const support = Math.max(1, scale);
  return Array.from({ length: to }, (_, i) => {
    const middle = scale * (i + 0.5);
    const first = Math.max(0, Math.trunc(middle - support + 0.5));
    const end = Math.min(from, Math.trunc(middle + support + 0.5));
    const weights = Array.from({ length: end - first }, (_, j) =>
      Math.max(0, 1 - Math.abs(first + j - middle + 0.5) / support));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

/** The value below which a share lies, between neighbours linearly; torch's median is the lower. */
function quantile(values, share, lower = false) {
  const sorted = Float32Array.from(values).sort();
  const at = share * (sorted.length - 1);
  const below = sorted[Math.floor(at)];
  return lower ? below : below + (at % 1) * ((sorted[Math.ceil(at)] ?? below) - below);
}

/** As Python and torch round. */
function roundHalfEven(value) {
  const near = Math.round(value);
  return Math.abs(value % 1) === 0.5 && near % 2 ? near - 1 : near;
}
