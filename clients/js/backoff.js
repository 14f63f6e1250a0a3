/** How long to wait before the next try: exponential, with full jitter, so that no two clients
 * that were cut off together come back together. */
export class Backoff {
  #tries = 0

  /**
   * @param {number} minMs The first window; each one after it is twice as long.
   * @param {number} maxMs The longest window.
   * @param {() => number} random
   */
  constructor(minMs, maxMs, random) {
    this.minMs = minMs
    this.maxMs = maxMs
    this.random = random
  }

  /** All is well: begin at the shortest window. */
  reset() {
    this.#tries = 0
  }

  /** @returns {number} Milliseconds, anywhere in the window. */
  next() {
    const window = Math.min(this.maxMs, this.minMs * 2 ** Math.min(this.#tries, 30))
    this.#tries += 1
    return Math.round(this.random() * window)
  }
}
