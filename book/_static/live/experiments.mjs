// SPDX-License-Identifier: MIT
// The experiments of the page "Train it": each changes the defaults of train.mjs in what its button
// says.

export const EXPERIMENTS = {
  "no-positions": { words: "Without positions", options: { positions: "none" } },
  "no-residuals": { words: "Without residual connections", options: { residuals: false } },
  "no-norms": { words: "Without norms", options: { norms: false } },
  unscaled: { words: "Without dividing by √d", options: { scaled: false } },
  "one-head": { words: "One head for four", options: { heads: 1 } },
  "class-token": { words: "Read a class token", options: { class_token: true } },
  "large-patches": { words: "Patches of 14 pixels", options: { patch_size: 14 } },
  "high-rate": { words: "Ten times the learning rate", options: { lr: 0.1 } },
};
