// SPDX-License-Identifier: MIT
// The sheet to draw a digit on, for mouse, finger and pen.

import { SIDE, Sheet } from "./draw.mjs";
import { make, picture } from "./views.mjs";

const PIXELS = 256;
// A "2", so that there is something to look at before anything is drawn.
const FIRST = [[
  [0.29, 0.37], [0.31, 0.26], [0.36, 0.2], [0.44, 0.165], [0.53, 0.16], [0.61, 0.19], [0.67, 0.25],
  [0.69, 0.33], [0.68, 0.41], [0.64, 0.49], [0.56, 0.58], [0.43, 0.69], [0.31, 0.8], [0.5, 0.79],
  [0.74, 0.77],
]];

export class Pad {
  /**
   * @param {string} label for those who do not see it
   * @param {{ink: Function, done: Function}} told `ink(image)` hears of every change, with the digit
   *   (28, 28) as the model reads it; `done()` when the pen is lifted
   */
  constructor(label, { ink, done = () => {} }) {
    this.sheet = new Sheet();
    this.fresh = true; // what stands there goes when somebody begins to draw
    this.canvas = make("canvas", {
      className: "live-pad", width: PIXELS, height: PIXELS, tabIndex: 0, role: "img",
      "aria-label": label,
    });
    this.pen = this.canvas.getContext("2d");
    this.ink = ink;
    let drawing = null;
    const point = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    const listen = (name, act) => this.canvas.addEventListener(name, act);
    listen("pointerdown", (event) => {
      if (event.button) return;
      drawing = event.pointerId;
      this.canvas.setPointerCapture(drawing);
      if (this.fresh) this.sheet.clear();
      this.fresh = false;
      this.sheet.start(...point(event));
      this.changed();
    });
    listen("pointermove", (event) => {
      if (event.pointerId !== drawing) return;
      const path = event.getCoalescedEvents?.() ?? [];
      for (const part of path.length ? path : [event]) this.sheet.to(...point(part));
      this.changed();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      listen(name, (event) => {
        if (event.pointerId !== drawing) return;
        drawing = null;
        done();
      });
    }
    this.sheet.draw(FIRST);
    this.paint();
  }

  /** Show the ink, and tell what it is as a digit. */
  changed() {
    this.paint();
    const image = this.sheet.read();
    if (image) this.ink(image);
  }

  clear() {
    this.sheet.clear();
    this.fresh = true;
    this.paint();
  }

  /** Show an image (28, 28) that was not drawn here. */
  show(image) {
    this.clear();
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(picture(image, SIDE).canvas, 0, 0, PIXELS, PIXELS);
  }

  paint() {
    const pixels = this.pen.createImageData(PIXELS, PIXELS);
    this.sheet.ink.forEach((ink, i) => pixels.data.set([ink, ink, ink, 255], 4 * i));
    this.pen.putImageData(pixels, 0, 0);
  }
}
