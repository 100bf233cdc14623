// SPDX-License-Identifier: MIT
// A small assembler for WebAssembly: one function, written out as text, becomes a module. So the
// source of the fast product (kernel.mjs) is what runs, and nothing has to be built beforehand.

// The words of the text and their codes; `0xfd` opens the vector instructions. What follows a word
// of `TAKES` belongs to it.
const CODES = {
  loop: [0x03, 0x40], again: [0x0d, 0], end: [0x0b], // again: to the loop's start if not zero
  get: [0x20], set: [0x21], tee: [0x22], const: [0x41],
  less: [0x48], add: [0x6a], sub: [0x6b], mul: [0x6c], shl: [0x74],
  load: [0xfd, 0x00, 2], spread: [0xfd, 0x09, 2, 0], store: [0xfd, 0x0b, 2], // aligned to 2 ** 2
  zero: [0xfd, 0x0c, ...Array(16).fill(0)], vadd: [0xfd, 0xe4, 0x01], vmul: [0xfd, 0xe6, 0x01],
};
const TAKES = { get: "name", set: "name", tee: "name", const: "number", load: "number", store: "number" };
const [I32, V128, FUNCTION] = [0x7f, 0x7b, 0x60];

/**
 * Make a module that exports one function and imports `page.memory`.
 * @param {string} name of the function
 * @param {string} text its code: `param`, `local` (32-bit integers) and `vector` (four floats) lines
 *   name its variables; then come instructions of a stack machine; `;` opens a comment
 * @returns {Uint8Array} the module
 */
export function assemble(name, text) {
  const lines = text.split("\n").map((line) => line.split(";")[0].trim().split(/\s+/));
  const declared = { param: [], local: [], vector: [] };
  const words = [];
  for (const line of lines) {
    if (line[0] in declared) declared[line[0]].push(...line.slice(1));
    else words.push(...line.filter(Boolean));
  }
  const { param, local, vector } = declared;
  const names = [...param, ...local, ...vector];
  const code = [2, ...whole(local.length), I32, ...whole(vector.length), V128];
  for (let at = 0; at < words.length; at++) {
    const word = words[at];
    if (!(word in CODES)) throw new Error(`${name}: there is no instruction ${word}.`);
    code.push(...CODES[word]);
    if (!(word in TAKES)) continue;
    const given = words[++at];
    const value = TAKES[word] === "name" ? names.indexOf(given) : Number(given);
    if (!(value >= 0 && value < 64)) throw new Error(`${name}: ${word} ${given} cannot be.`);
    code.push(value); // one byte each, signed or not
  }
  code.push(0x0b);
  return Uint8Array.from([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // "\0asm", version 1
    ...section(1, [1, FUNCTION, ...list(param.map(() => I32)), 0]), // one type: integers -> nothing
    ...section(2, [1, ...string("page"), ...string("memory"), 2, 0, 0]), // one import, a memory
    ...section(3, [1, 0]), // one function, of type 0
    ...section(7, [1, ...string(name), 0, 0]), // one export, function 0
    ...section(10, [1, ...list(code)]), // one body
  ]);
}

/** A whole number in seven bits a byte, the lowest first. */
function whole(number) {
  return number < 128 ? [number] : [(number & 127) | 128, ...whole(number >> 7)];
}

/** Bytes with their count in front. */
function list(bytes) {
  return [...whole(bytes.length), ...bytes];
}

function string(text) {
  return list([...text].map((letter) => letter.charCodeAt(0)));
}

function section(id, bytes) {
  return [id, ...list(bytes)];
}
