// SPDX-License-Identifier: MIT
// The layers of a small ViT, forward and backward, written out: what chapters 1 to 5 build, and how
// its gradients come about. Names and shapes are those of vitcore.
//
// A layer is made once for at most `rows` tokens and keeps its results in arrays of its own, so
// that training allocates nothing. `forward(x, rows)` returns y; `backward(dy, rows)` takes the
// gradient of the loss with respect to y, leaves that of each parameter in its `.grad` and returns
// dx, that with respect to x. A caller may change what either returns.
// Letters: B images, N patches, T tokens (N and the class token), D width, h heads, d = D / h.

const NORM_EPS = 1e-6; // as in vitcore

/** y = x Wᵀ + b: x (rows, in), W (out, in), b (out). */
export class Linear {
  constructor(net, name, inputs, outputs, rows, std, { shape = [outputs, inputs] } = {}) {
    Object.assign(this, { inputs, outputs, kernel: net.kernel });
    this.weight = net.parameter(`${name}.weight`, shape, std);
    this.bias = net.parameter(`${name}.bias`, [outputs], 0);
    this.turned = net.array(inputs * outputs); // Wᵀ (in, out), as the product reads it
    this.y = net.array(rows * outputs);
    this.dx = net.array(rows * inputs);
  }

  forward(x, rows) {
    const { inputs, outputs, turned, y } = this;
    this.x = x;
    const [W, b] = [this.weight.value, this.bias.value];
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) turned[i * outputs + o] = W[o * inputs + i];
    }
    this.kernel.multiply(y, x, turned, rows, outputs, inputs);
    for (let r = 0, at = 0; r < rows; r++) {
      for (let o = 0; o < outputs; o++, at++) y[at] += b[o];
    }
    return y;
  }

  backward(dy, rows) {
    const { inputs, outputs, dx } = this;
    this.gradients(dy, rows);
    this.kernel.multiply(dx, dy, this.weight.value, rows, inputs, outputs); // dx = dy W
    return dx;
  }

  /** Those of the parameters alone: enough where x is an image. */
  gradients(dy, rows) {
    const { inputs, outputs } = this;
    this.kernel.multiply(this.weight.grad, dy, this.x, outputs, inputs, rows, 1, outputs); // dW = dyᵀ x
    const db = this.bias.grad.fill(0);
    for (let r = 0, at = 0; r < rows; r++) {
      for (let o = 0; o < outputs; o++, at++) db[o] += dy[at];
    }
  }
}

/** y = (x - mean) / deviation * weight + bias, token by token (chapter 4). */
export class LayerNorm {
  constructor(net, name, dim, rows) {
    this.dim = dim;
    this.weight = net.parameter(`${name}.weight`, [dim], 0, 1);
    this.bias = net.parameter(`${name}.bias`, [dim], 0);
    this.y = net.array(rows * dim);
    this.dx = net.array(rows * dim);
    this.normed = net.array(rows * dim); // x̂, before weight and bias
    this.inverse = net.array(rows); // 1 / deviation
  }

  forward(x, rows) {
    const { dim, y, normed, inverse } = this;
    const [gain, bias] = [this.weight.value, this.bias.value];
    for (let r = 0; r < rows; r++) {
      const at = r * dim;
      let [mean, variance] = [0, 0];
      for (let c = 0; c < dim; c++) mean += x[at + c];
      mean /= dim;
      for (let c = 0; c < dim; c++) variance += (x[at + c] - mean) ** 2;
      const scale = 1 / Math.sqrt(variance / dim + NORM_EPS);
      inverse[r] = scale;
      for (let c = 0; c < dim; c++) {
        normed[at + c] = (x[at + c] - mean) * scale;
        y[at + c] = normed[at + c] * gain[c] + bias[c];
      }
    }
    return y;
  }

  // Mean and deviation hang on x too: dx = (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂)) / deviation.
  backward(dy, rows) {
    const { dim, dx, normed, inverse } = this;
    const gain = this.weight.value;
    const [dGain, dBias] = [this.weight.grad.fill(0), this.bias.grad.fill(0)];
    for (let r = 0; r < rows; r++) {
      const at = r * dim;
      let [sum, along] = [0, 0];
      for (let c = 0; c < dim; c++) {
        const d = dy[at + c];
        dGain[c] += d * normed[at + c];
        dBias[c] += d;
        sum += d * gain[c];
        along += d * gain[c] * normed[at + c];
      }
      sum /= dim;
      along /= dim;
      for (let c = 0; c < dim; c++) {
        dx[at + c] = (dy[at + c] * gain[c] - sum - normed[at + c] * along) * inverse[r];
      }
    }
    return dx;
  }
}

/** What stands in for a norm that is switched off. */
export class Identity {
  forward(x) {
    return x;
  }

  backward(dy) {
    return dy;
  }
}

/**
 * softmax(q kᵀ / √d) v per image and head, then a linear map (chapter 3). `scaled` false leaves the
 * division by √d out. `weights` (B, h, T, T) are what each token took from each in the last pass.
 */
export class Attention {
  constructor(net, name, { dim, heads, scaled, std }, batch, tokens) {
    const rows = batch * tokens;
    Object.assign(this, { dim, heads, tokens, kernel: net.kernel });
    this.scale = scaled ? 1 / Math.sqrt(dim / heads) : 1;
    this.qkv = new Linear(net, `${name}.qkv`, dim, 3 * dim, rows, std);
    this.proj = new Linear(net, `${name}.proj`, dim, dim, rows, std);
    this.weights = net.array(batch * heads * tokens * tokens);
    this.dWeights = net.array(batch * heads * tokens * tokens);
    // (B, h, T, d) each, and turned (B, h, d, T), as the products read them.
    for (const part of ["q", "k", "v", "kTurned", "vTurned", "out", "dq", "dk", "dv", "dOut"]) {
      this[part] = net.array(rows * dim);
    }
    this.mixed = net.array(rows * dim); // (B, T, h, d)
    this.dqkv = net.array(rows * 3 * dim); // (B, T, 3, h, d), as qkv
  }

  forward(x, rows) {
    const { dim, tokens, scale, weights, q, k, v, kTurned, vTurned, out, mixed } = this;
    const [d, T] = [dim / this.heads, tokens];
    const qkv = this.qkv.forward(x, rows);
    [q, k, v].forEach((part, which) => this.gather(part, qkv, 3 * dim, which * dim, rows));
    this.turn(kTurned, k, rows);
    this.turn(vTurned, v, rows);
    this.multiply(weights, q, kTurned, rows, T, T, d); // q kᵀ
    for (let at = 0; at < (rows / T) * this.heads * T * T; at += T) softmax(weights, at, T, scale);
    this.multiply(out, weights, v, rows, T, d, T); // softmax(…) v
    this.scatter(mixed, out, dim, 0, rows);
    return this.proj.forward(mixed, rows);
  }

  backward(dy, rows) {
    const { dim, tokens, scale, weights, dWeights, q, k, vTurned, dq, dk, dv, dOut, dqkv } = this;
    const [d, T] = [dim / this.heads, tokens];
    this.gather(dOut, this.proj.backward(dy, rows), dim, 0, rows);
    this.multiply(dWeights, dOut, vTurned, rows, T, T, d); // dout vᵀ
    this.multiply(dv, weights, dOut, rows, T, d, T, true); // weightsᵀ dout
    for (let at = 0; at < (rows / T) * this.heads * T * T; at += T) {
      let mean = 0; // Σⱼ aⱼ daⱼ, which softmax takes from every daⱼ
      for (let j = at; j < at + T; j++) mean += weights[j] * dWeights[j];
      for (let j = at; j < at + T; j++) dWeights[j] = weights[j] * (dWeights[j] - mean) * scale;
    }
    this.multiply(dq, dWeights, k, rows, T, d, T);
    this.multiply(dk, dWeights, q, rows, T, d, T, true);
    [dq, dk, dv].forEach((part, which) => this.scatter(dqkv, part, 3 * dim, which * dim, rows));
    return this.qkv.backward(dqkv, rows);
  }

  /** C = A B, or C = Aᵀ B, for each image and head: C (m, n), B (k, n). */
  multiply(C, A, B, rows, m, n, k, transposed = false) {
    const [c, a, b] = [C, A, B].map((array) => array.byteOffset / 4);
    const [down, along] = transposed ? [1, m] : [k, 1];
    for (let i = 0; i < (rows / this.tokens) * this.heads; i++) {
      this.kernel.multiplyAt(c + i * m * n, a + i * m * k, b + i * k * n, m, n, k, down, along);
    }
  }

  /** (B, T, …) with `step` numbers a token, of which h d from `first` -> (B, h, T, d). */
  gather(part, from, step, first, rows) {
    const { dim, heads, tokens } = this;
    const d = dim / heads;
    for (let row = 0; row < rows; row++) {
      const [image, token] = [Math.floor(row / tokens), row % tokens];
      for (let head = 0; head < heads; head++) {
        const to = ((image * heads + head) * tokens + token) * d;
        const at = row * step + first + head * d;
        for (let c = 0; c < d; c++) part[to + c] = from[at + c];
      }
    }
  }

  /** The way back. */
  scatter(to, part, step, first, rows) {
    const { dim, heads, tokens } = this;
    const d = dim / heads;
    for (let row = 0; row < rows; row++) {
      const [image, token] = [Math.floor(row / tokens), row % tokens];
      for (let head = 0; head < heads; head++) {
        const from = ((image * heads + head) * tokens + token) * d;
        const at = row * step + first + head * d;
        for (let c = 0; c < d; c++) to[at + c] = part[from + c];
      }
    }
  }

  /** (B, h, T, d) -> (B, h, d, T). */
  turn(turned, part, rows) {
    const { dim, heads, tokens } = this;
    const d = dim / heads;
    for (let first = 0; first < rows * dim; first += tokens * d) {
      for (let t = 0; t < tokens; t++) {
        for (let c = 0; c < d; c++) turned[first + c * tokens + t] = part[first + t * d + c];
      }
    }
  }
}

/** softmax(scale * scores) of the `count` numbers from `at` on, in place. */
function softmax(scores, at, count, scale) {
  let largest = -Infinity;
  for (let j = at; j < at + count; j++) if (scores[j] > largest) largest = scores[j];
  let sum = 0;
  for (let j = at; j < at + count; j++) {
    scores[j] = Math.exp((scores[j] - largest) * scale);
    sum += scores[j];
  }
  for (let j = at; j < at + count; j++) scores[j] /= sum;
}

const ROOT_HALF = Math.SQRT1_2;
const BELL = 1 / Math.sqrt(2 * Math.PI);

/** Two linear maps with the exact GELU, x Φ(x), between them (chapter 4). */
export class Mlp {
  constructor(net, name, { dim, hidden, std }, rows) {
    this.hidden = hidden;
    this.fc1 = new Linear(net, `${name}.fc1`, dim, hidden, rows, std);
    this.fc2 = new Linear(net, `${name}.fc2`, hidden, dim, rows, std);
    this.slope = net.array(rows * hidden); // of GELU, where each number passed it
  }

  forward(x, rows) {
    const { hidden, slope } = this;
    const z = this.fc1.forward(x, rows);
    for (let at = 0; at < rows * hidden; at++) {
      const value = z[at];
      // Φ(x) = (1 + erf(x / √2)) / 2; erf by Abramowitz and Stegun, 7.1.26, right to 1.5e-7.
      const bell = Math.exp(-0.5 * value * value);
      const t = 1 / (1 + 0.3275911 * ROOT_HALF * Math.abs(value));
      const powers =
        t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
      const beyond = 0.5 * powers * bell; // 1 - Φ(|x|)
      const below = value < 0 ? beyond : 1 - beyond; // Φ(x)
      z[at] = value * below;
      slope[at] = below + value * BELL * bell; // Φ(x) + x φ(x)
    }
    return this.fc2.forward(z, rows);
  }

  backward(dy, rows) {
    const dz = this.fc2.backward(dy, rows);
    for (let at = 0; at < rows * this.hidden; at++) dz[at] *= this.slope[at];
    return this.fc1.backward(dz, rows);
  }
}

/** x + attn(norm1(x)), then x + mlp(norm2(x)); `residuals` false drops "x +" (chapter 4). */
export class Block {
  constructor(net, name, sizes, batch, tokens) {
    const { dim, norms, residuals } = sizes;
    const rows = batch * tokens;
    const norm = (part) => (norms ? new LayerNorm(net, `${name}.${part}`, dim, rows) : new Identity());
    Object.assign(this, { dim, residuals });
    this.norm1 = norm("norm1");
    this.attn = new Attention(net, `${name}.attn`, sizes, batch, tokens);
    this.norm2 = norm("norm2");
    this.mlp = new Mlp(net, `${name}.mlp`, sizes, rows);
  }

  forward(x, rows) {
    const attnOut = this.attn.forward(this.norm1.forward(x, rows), rows);
    const between = this.carry(attnOut, x, rows);
    const mlpOut = this.mlp.forward(this.norm2.forward(between, rows), rows);
    return this.carry(mlpOut, between, rows);
  }

  backward(dy, rows) {
    const between = this.norm2.backward(this.mlp.backward(dy, rows), rows);
    this.carry(between, dy, rows);
    const dx = this.norm1.backward(this.attn.backward(between, rows), rows);
    return this.carry(dx, between, rows);
  }

  /** Add what the residual connection carries past a branch: tokens forward, gradients back. */
  carry(branch, past, rows) {
    if (this.residuals) for (let at = 0; at < rows * this.dim; at++) branch[at] += past[at];
    return branch;
  }
}
