// SPDX-License-Identifier: MIT
// The one product of matrices that all layers of train.mjs share, forward and backward: in
// JavaScript, and four numbers at a time in WebAssembly, which assembler.mjs makes from PRODUCT.

import { assemble } from "./assembler.mjs";

// C = A B, four rows and eight columns of C at a time. c, a, b are addresses in bytes; m, n, k
// sizes; `down` and `along` the bytes between A's rows and columns.
const PRODUCT = `
  param c a b m n k down along
  local i j p pa pb pc row
  vector s00 s01 s10 s11 s20 s21 s30 s31 b0 b1 av
  get n const 2 shl set row
  const 0 set i
  loop                                  ; rows i, i + 1, i + 2, i + 3
    const 0 set j
    loop                                ; columns j to j + 7
      zero set s00 zero set s01 zero set s10 zero set s11
      zero set s20 zero set s21 zero set s30 zero set s31
      get a get i get down mul add set pa
      get b get j const 2 shl add set pb
      get k set p
      loop                              ; over the k products
        get pb load 0 set b0
        get pb load 16 set b1
        get pa spread set av
        get s00 get av get b0 vmul vadd set s00
        get s01 get av get b1 vmul vadd set s01
        get pa get down add spread set av
        get s10 get av get b0 vmul vadd set s10
        get s11 get av get b1 vmul vadd set s11
        get pa get down const 1 shl add spread set av
        get s20 get av get b0 vmul vadd set s20
        get s21 get av get b1 vmul vadd set s21
        get pa get down const 3 mul add spread set av
        get s30 get av get b0 vmul vadd set s30
        get s31 get av get b1 vmul vadd set s31
        get pa get along add set pa
        get pb get row add set pb
        get p const 1 sub tee p
        again                           ; while p is not 0
      end
      get c get i get row mul add get j const 2 shl add set pc
      get pc get s00 store 0 get pc get s01 store 16
      get pc get row add tee pc get s10 store 0 get pc get s11 store 16
      get pc get row add tee pc get s20 store 0 get pc get s21 store 16
      get pc get row add tee pc get s30 store 0 get pc get s31 store 16
      get j const 8 add tee j get n const 7 sub less
      again                             ; while j < n - 7
    end
    get i const 4 add tee i get m const 3 sub less
    again
  end
`;
const BYTES = assemble("product", PRODUCT);
const PAGE = 65536; // bytes

/** Whether this browser has WebAssembly's vectors; without them everything works, more slowly. */
export const HAS_VECTORS = typeof WebAssembly === "object" && WebAssembly.validate(BYTES);

/** Arrays that lie in one memory, and their products. */
export class Kernel {
  /** @param {number} count how many numbers all arrays together hold at most */
  constructor(count, vectors = HAS_VECTORS) {
    this.end = 0;
    if (!vectors) {
      this.numbers = new Float32Array(count);
      return;
    }
    const memory = new WebAssembly.Memory({ initial: Math.ceil((4 * count) / PAGE) });
    const module = new WebAssembly.Module(BYTES);
    this.numbers = new Float32Array(memory.buffer);
    this.product = new WebAssembly.Instance(module, { page: { memory } }).exports.product;
  }

  /** Zeros for `count` numbers. */
  array(count) {
    const first = this.end;
    this.end += count;
    return this.numbers.subarray(first, this.end);
  }

  /**
   * C = A B, for C (m, n), A (m, k) and B (k, n), all row by row and all from `array`.
   *
   * A's number (i, p) lies at A[i * down + p * along]. So a transposed A needs no copy: it is read
   * with down = 1 and along = its own row length.
   */
  multiply(C, A, B, m, n, k, down = k, along = 1) {
    this.multiplyAt(C.byteOffset / 4, A.byteOffset / 4, B.byteOffset / 4, m, n, k, down, along);
  }

  /** The same for matrices that begin at the numbers c, a and b of the memory. */
  multiplyAt(c, a, b, m, n, k, down = k, along = 1) {
    const numbers = this.numbers;
    const rows = m - (m % 4);
    const columns = n - (n % (this.product ? 8 : 4));
    if (this.product) {
      if (rows && columns) this.product(4 * c, 4 * a, 4 * b, m, n, k, 4 * down, 4 * along);
    } else {
      for (let i = 0; i < rows; i += 4) {
        for (let j = 0; j < columns; j += 4) {
          tile(numbers, c + i * n + j, a + i * down, b + j, n, k, down, along);
        }
      }
    }
    // What no tile covers: one number at a time.
    for (let i = 0; i < m; i++) {
      for (let j = i < rows ? columns : 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) sum += numbers[a + i * down + p * along] * numbers[b + p * n + j];
        numbers[c + i * n + j] = sum;
      }
    }
  }
}

/** Four rows and four columns of C in JavaScript: each number fetched serves four products. */
function tile(N, c, a, b, n, k, down, along) {
  let c00 = 0, c01 = 0, c02 = 0, c03 = 0;
  let c10 = 0, c11 = 0, c12 = 0, c13 = 0;
  let c20 = 0, c21 = 0, c22 = 0, c23 = 0;
  let c30 = 0, c31 = 0, c32 = 0, c33 = 0;
  for (let end = b + k * n; b < end; b += n, a += along) {
    const b0 = N[b], b1 = N[b + 1], b2 = N[b + 2], b3 = N[b + 3];
    const a0 = N[a], a1 = N[a + down], a2 = N[a + 2 * down], a3 = N[a + 3 * down];
    c00 += a0 * b0; c01 += a0 * b1; c02 += a0 * b2; c03 += a0 * b3;
    c10 += a1 * b0; c11 += a1 * b1; c12 += a1 * b2; c13 += a1 * b3;
    c20 += a2 * b0; c21 += a2 * b1; c22 += a2 * b2; c23 += a2 * b3;
    c30 += a3 * b0; c31 += a3 * b1; c32 += a3 * b2; c33 += a3 * b3;
  }
  N[c] = c00; N[c + 1] = c01; N[c + 2] = c02; N[c + 3] = c03;
  c += n;
  N[c] = c10; N[c + 1] = c11; N[c + 2] = c12; N[c + 3] = c13;
  c += n;
  N[c] = c20; N[c + 1] = c21; N[c + 2] = c22; N[c + 3] = c23;
  c += n;
  N[c] = c30; N[c + 1] = c31; N[c + 2] = c32; N[c + 3] = c33;
}
