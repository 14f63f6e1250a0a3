// Asks again and again: one question at a time, none while nobody looks, seldom after failures.

const MOST_SECONDS = 15

/** See the module's text; `start`, and `stop` at the end. */
export class Poll {
  #ask
  #seconds
  #told
  #isOn = false
  #running = null
  #timer = 0
  #failures = 0

  /**
   * @param {(signal: AbortSignal) => Promise<unknown>} ask
   * @param {number} seconds From an answer to the next question.
   * @param {(answer: unknown, error: unknown) => void} told Hears of every answer or error.
   */
  constructor(ask, seconds, told) {
    this.#ask = ask
    this.#seconds = seconds
    this.#told = told
  }

  start() {
    this.#isOn = true
    document.addEventListener("visibilitychange", this.#looked)
    addEventListener("online", this.now)
    this.now()
    return this
  }

  stop() {
    this.#isOn = false
    document.removeEventListener("visibilitychange", this.#looked)
    removeEventListener("online", this.now)
    clearTimeout(this.#timer)
    this.#running?.abort()
    this.#running = null
  }

  /** Ask at once; what is under way is asked anew. */
  now = () => {
    clearTimeout(this.#timer)
    this.#running?.abort()
    if (this.#isOn) this.#once()
  }

  #looked = () => {
    if (document.hidden) clearTimeout(this.#timer)
    else if (!this.#running) this.now()
  }

  async #once() {
    const running = (this.#running = new AbortController())
    const [answer, error] = await this.#ask(running.signal).then(
      answer => [answer, undefined],
      error => [undefined, error],
    )
    if (this.#running !== running) return // stopped, or asked anew
    this.#running = null
    this.#failures = error ? this.#failures + 1 : 0
    try {
      this.#told(answer, error)
    } finally {
      this.#wait()
    }
  }

  #wait() {
    if (!this.#isOn || this.#running || document.hidden) return
    const seconds = Math.min(this.#seconds * 2 ** this.#failures, MOST_SECONDS)
    this.#timer = setTimeout(this.now, Math.max(seconds, this.#seconds) * 1000)
  }
}
