// SPDX-License-Identifier: MIT
// Random numbers that a seed decides: the same seed gives the same run.

/** A source of random numbers (the generator is Mulberry32, by Tommy Ettinger). */
export class Random {
  /** @param {number} seed a whole number; each gives another sequence */
  constructor(seed) {
    this.state = seed >>> 0;
    for (let i = 0; i < 4; i++) this.uniform(); // neighbouring seeds start alike
  }

  /** One number in [0, 1). */
  uniform() {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** One whole number from 0 to `count` - 1. */
  below(count) {
    return Math.floor(this.uniform() * count);
  }

  /** One number of the normal distribution, cut off at two standard deviations. */
  normal() {
    for (;;) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
      const value = radius * Math.cos(2 * Math.PI * this.uniform());
      if (Math.abs(value) <= 2) return value;
    }
  }

  /** The numbers 0 to `count` - 1 in random order. */
  permutation(count) {
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
