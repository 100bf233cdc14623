// SPDX-License-Identifier: MIT
// The front page's small "Try it": a digit, its patches, its answer. The page loads this when it
// comes into view and the browser has nothing else to do.

import { SIDE } from "./draw.mjs";
import { Lab } from "./lab.mjs";
import { Pad } from "./pad.mjs";
import { Bars, Grid, make, onLook, percent, picture, say } from "./views.mjs";

/** Fill `host`, whose last element, the link to the page, stays. */
export async function front(host) {
  const styles = make("link", { rel: "stylesheet", href: String(new URL("live.css", import.meta.url)) });
  const styled = new Promise((resolve) => (styles.onload = styles.onerror = resolve));
  document.head.append(styles);
  const lab = new Lab();
  const box = (title) => make("figure", { className: "live-box" }, make("figcaption", {}, title));
  const [sheet, parts, answers] = [box("Draw a digit"), box("Its patches"), box("What the model reads")];
  answers.classList.add("live-answers");
  const pad = new Pad("A sheet to draw a digit on, with mouse, finger or pen.", {
    ink(image) {
      lab.digit = image;
      lab.update();
    },
    done: () => setTimeout(() => say(words()), 150),
  });
  const words = () => `It reads ${lab.model.classes[lab.best]}, ${percent(lab.shares[lab.best])}.`;
  sheet.append(pad.canvas);
  await Promise.all([styled, lab.load()]);
  host.prepend(make("div", { className: "live-row" }, sheet, parts, answers));
  const grid = new Grid(parts, { label: "The digit as the model reads it, in patches.", width: 200 });
  const bars = new Bars(answers, "How sure the model is of each class");
  lab.changed = () => {
    const { grid: [rows, cols] } = lab.model;
    const image = picture(lab.grey, SIDE);
    grid.show({ rows, cols, image, gap: 0.1, describe: (row, col) => lab.name(row * cols + col) });
    bars.show(lab.model.classes, [...lab.shares]);
  };
  onLook(() => lab.changed());
  lab.digit = pad.sheet.read();
  lab.run();
  lab.changed();
  host.dataset.ready = "";
}
