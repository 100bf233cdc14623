// SPDX-License-Identifier: MIT
// The curves of "Train it": the run that goes on and those before it, over the epochs.

import { make, onLook } from "./views.mjs";

const HEIGHT = 210; // pixels
const MARGIN = { left: 46, right: 10, top: 10, bottom: 24 };

/** A chart of several runs. */
export class Curves {
  /**
   * @param {Element} host
   * @param {{title: string, ticks: number[], write: Function}} options what it shows; the values
   *   marked at its side, lowest first, between which all is drawn; and a value in words
   */
  constructor(host, { title, ticks, write }) {
    this.canvas = make("canvas", { className: "live-chart", role: "img", "aria-label": title });
    const caption = make("figcaption", {}, title);
    host.append(make("figure", { className: "live-box" }, caption, this.canvas));
    Object.assign(this, { title, ticks, write, runs: [], epochs: 1 });
    onLook(() => this.draw());
  }

  /**
   * Draw. `runs` is a list of {line, dots, colour}, the first one on top: `line` and `dots` are lists
   * of [epoch, value], `colour` the name of a CSS colour.
   */
  show(runs, epochs, words) {
    Object.assign(this, { runs, epochs });
    this.canvas.setAttribute("aria-label", `${this.title}. ${words}`);
    this.draw();
  }

  draw() {
    const wide = this.canvas.parentElement.clientWidth || 320;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(wide * scale);
    this.canvas.height = Math.round(HEIGHT * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name);
    const { left, right, top, bottom } = MARGIN;
    const [low, high] = [this.ticks[0], this.ticks.at(-1)];
    const x = (epoch) => left + (epoch / this.epochs) * (wide - left - right);
    const y = (value) => {
      const share = (Math.min(high, Math.max(low, value)) - low) / (high - low);
      return HEIGHT - bottom - share * (HEIGHT - top - bottom);
    };
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = pen.strokeStyle = colour("--pst-color-text-muted");
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (const tick of this.ticks) {
      pen.globalAlpha = 0.25;
      pen.strokeRect(left, Math.round(y(tick)) + 0.5, wide - left - right, 0);
      pen.globalAlpha = 1;
      pen.fillText(this.write(tick), left - 6, y(tick));
    }
    pen.textAlign = "center";
    const step = Math.max(1, Math.ceil(this.epochs / 6));
    for (let epoch = 0; epoch <= this.epochs; epoch += step) {
      pen.fillText(`${epoch}`, x(epoch), HEIGHT - bottom / 2 + 2);
    }
    pen.lineJoin = "round";
    for (const { line, dots, colour: name } of [...this.runs].reverse()) {
      pen.strokeStyle = pen.fillStyle = colour(name);
      const faint = dots.length > 0; // the dots are what counts
      this.trace(pen, line, x, y, faint ? 1 : 2.2, faint ? 0.4 : 1);
      this.trace(pen, dots, x, y, 2.2, 1);
      for (const [epoch, value] of dots) {
        pen.beginPath();
        pen.arc(x(epoch), y(value), 2.6, 0, 2 * Math.PI);
        pen.fill();
      }
    }
  }

  trace(pen, points, x, y, width, alpha) {
    if (!points.length) return;
    pen.globalAlpha = alpha;
    pen.lineWidth = width;
    pen.beginPath();
    points.forEach(([epoch, value]) => pen.lineTo(x(epoch), y(value)));
    pen.stroke();
    pen.globalAlpha = 1;
  }
}
