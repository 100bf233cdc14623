// SPDX-License-Identifier: MIT
// Reads and writes safetensors: what vitcore saves, a page can run, and what a page trains, vitcore
// loads. A file is eight bytes for the length of the header, the header in JSON (by name: dtype,
// shape, data_offsets; and __metadata__, which holds strings), and the numbers, little-endian.

const BYTES = { F32: 4, F16: 2 };
// A half's bits, moved to where a float32 has exponent and fraction, are its value times 2^-112.
const HALF = 2 ** 112;

/**
 * Read a file.
 * @param {ArrayBuffer} buffer the whole file
 * @returns {{tensors: Object<string, {shape: number[], data: Float32Array}>,
 *            metadata: Object<string, string>}} float16 comes back as float32
 * @throws {Error} one sentence for what is not a complete safetensors file of float16 and float32
 */
export function readSafetensors(buffer) {
  const { header, start } = readHeader(buffer);
  const { __metadata__: metadata = {}, ...entries } = header;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(entries)) {
    const count = shape.reduce((product, side) => product * side, 1);
    if (!(dtype in BYTES)) throw new Error(`${name} is ${dtype}; only F16 and F32 are read here.`);
    if (to - from !== count * BYTES[dtype] || start + to > buffer.byteLength) {
      throw new Error(`${name} is not complete: the file may be damaged, or cut off.`);
    }
    const bytes = buffer.slice(start + from, start + to); // a copy, so that it is aligned
    tensors[name] = { shape, data: dtype === "F32" ? new Float32Array(bytes) : fromHalf(bytes) };
  }
  return { tensors, metadata };
}

/**
 * Write tensors to a file.
 * @param {Object<string, {shape: number[], data: ArrayLike<number>}>} tensors
 * @param {Object<string, string>} metadata strings alone; vitcore.load_weights asks for `config`,
 *   `classes`, `mean` and `std`, each in JSON
 * @param {{half?: boolean}} options half: float16 instead of float32, half the size
 * @returns {ArrayBuffer} the whole file
 * @throws {Error} where numbers do not fit the shape, or are too large for float16
 */
export function writeSafetensors(tensors, metadata = {}, { half = false } = {}) {
  const header = { __metadata__: metadata };
  const parts = [];
  let end = 0;
  for (const name of Object.keys(tensors).sort()) {
    const { shape, data } = tensors[name];
    if (data.length !== shape.reduce((product, side) => product * side, 1)) {
      throw new Error(`${name} has ${data.length} numbers, which do not fit its shape [${shape}].`);
    }
    const part = half ? toHalf(data, name) : Float32Array.from(data);
    const offsets = [end, (end += part.byteLength)];
    header[name] = { dtype: half ? "F16" : "F32", shape, data_offsets: offsets };
    parts.push(new Uint8Array(part.buffer));
  }
  let text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8; // the numbers begin at a multiple of eight bytes
  const file = new Uint8Array(8 + length + end).fill(0x20, 8, 8 + length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.set(text, 8);
  let at = 8 + length;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file.buffer;
}

/** The header as an object, and where the numbers start. */
function readHeader(buffer) {
  const refused = new Error("This is not a safetensors file, or not a complete one.");
  if (buffer.byteLength < 8) throw refused;
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  if (start > buffer.byteLength) throw refused;
  try {
    const text = new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8));
    return { header: JSON.parse(text), start };
  } catch {
    throw refused;
  }
}

/** The float32 values of float16 bits. */
function fromHalf(bytes) {
  const halves = new Uint16Array(bytes);
  const values = new Float32Array(halves.length);
  const bits = new Int32Array(values.buffer);
  for (let i = 0; i < halves.length; i++) {
    if ((halves[i] & 0x7c00) === 0x7c00) {
      throw new Error("The file holds numbers that are not finite.");
    }
    bits[i] = ((halves[i] & 0x8000) << 16) | ((halves[i] & 0x7fff) << 13);
    values[i] *= HALF;
  }
  return values;
}

/** The float16 bits of values, rounded to the nearest. */
function toHalf(data, name) {
  const scaled = Float32Array.from(data, (value) => value / HALF);
  const bits = new Int32Array(scaled.buffer);
  return Uint16Array.from(bits, (word) => {
    const half = ((word & 0x7fffffff) + 0xfff + ((word >> 13) & 1)) >> 13; // ties to even
    if (half >= 0x7c00) throw new Error(`${name} holds numbers that are not finite in float16.`);
    return half | ((word >>> 16) & 0x8000);
  });
}
