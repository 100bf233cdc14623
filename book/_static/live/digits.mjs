// SPDX-License-Identifier: MIT
// Reads digits.png, the sample of MNIST that the live pages share; tools/digit_sample.py writes it.
// Works in a page, in a worker and in Node: no canvas, whose pixels some browsers blur on purpose.

export const SIDE = 28; // pixels
export const PIXELS = SIDE * SIDE;
export const CLASSES = 10;
const COLUMNS = 100; // digits in a row of the picture; column c holds class c mod 10
const TRAIN_ROWS = 60; // then come the rows of test digits

// Of vitcore's training images, for pixel values in [0, 1].
export const MEAN = 0.1306649576194114;
export const STD = 0.3081148863431429;

// Undo deflate, the packing inside a PNG, with what the browser brings.
async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The filter of a PNG's row that predicts a byte from its left, upper and upper left neighbours.
function paeth(left, up, corner) {
  const guess = left + up - corner;
  const byLeft = Math.abs(guess - left);
  const byUp = Math.abs(guess - up);
  const byCorner = Math.abs(guess - corner);
  if (byLeft <= byUp && byLeft <= byCorner) return left;
  return byUp <= byCorner ? up : corner;
}

// An 8-bit greyscale PNG without interlacing -> {width, height, pixels: Uint8Array, row by row}.
export async function decodeGreyPng(buffer) {
  const bytes = new Uint8Array(buffer);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 33 || view.getUint32(0) !== 0x89504e47) throw new Error("This is not a PNG.");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  if (bytes[24] !== 8 || bytes[25] !== 0 || bytes[28] !== 0) {
    throw new Error("Only 8-bit greyscale PNGs without interlacing can be read.");
  }
  const packed = [];
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at);
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length; // length, name and checksum are four bytes each
  }
  const rows = await inflate(await new Blob(packed).arrayBuffer());
  if (rows.length !== height * (width + 1)) throw new Error("The PNG is cut short.");
  const pixels = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (width + 1)]; // a byte before each row
    for (let x = 0; x < width; x++) {
      const left = x ? pixels[y * width + x - 1] : 0;
      const up = y ? pixels[(y - 1) * width + x] : 0;
      const corner = x && y ? pixels[(y - 1) * width + x - 1] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, corner);
      pixels[y * width + x] = rows[y * (width + 1) + 1 + x] + guess; // modulo 256
    }
  }
  return { width, height, pixels };
}

// The bytes of digits.png -> {train, test}, each {images: Uint8Array (n, 28, 28), labels: (n)}.
export async function readDigits(buffer) {
  const { width, height, pixels } = await decodeGreyPng(buffer);
  const part = (firstRow, lastRow) => {
    const count = (lastRow - firstRow) * COLUMNS;
    const images = new Uint8Array(count * PIXELS);
    const labels = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      const row = firstRow + Math.floor(i / COLUMNS);
      const column = i % COLUMNS;
      labels[i] = column % CLASSES;
      for (let y = 0; y < SIDE; y++) {
        const from = (row * SIDE + y) * width + column * SIDE;
        images.set(pixels.subarray(from, from + SIDE), i * PIXELS + y * SIDE);
      }
    }
    return { images, labels };
  };
  return { train: part(0, TRAIN_ROWS), test: part(TRAIN_ROWS, height / SIDE) };
}

// Fetch and read the sample; throws with one sentence where it cannot be had.
export async function loadDigits(url = new URL("digits.png", import.meta.url)) {
  let response = null;
  try {
    response = await fetch(url);
  } catch {
    // told below
  }
  if (!response?.ok) {
    throw new Error("The digits could not be fetched: check the connection and try again.");
  }
  return readDigits(await response.arrayBuffer());
}

// Grey values 0 to 255 -> the numbers that the model reads: mean 0, deviation 1 over MNIST.
export function normalise(grey, out = new Float32Array(grey.length)) {
  for (let i = 0; i < grey.length; i++) out[i] = (grey[i] / 255 - MEAN) / STD;
  return out;
}
