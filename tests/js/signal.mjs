// One wake-up for everything that happens in this process, so that waits need no polling.
// Waiters are checked once per loop turn, after whatever woke them has run to its end.

class Signal {
  #waiters = new Set()
  #scheduled = false

  bump = () => {
    if (this.#scheduled || this.#waiters.size === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      for (const waiter of [...this.#waiters]) waiter()
    })
  }

  /**
   * Resolve with the first result of `check` that is not undefined.
   *
   * `describe` says what was found instead when the time is over; it goes into the error.
   */
  until(check, timeoutMs, what, describe = () => "") {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        this.#waiters.delete(attempt)
        clearTimeout(timer)
        settle(value)
      }
      const attempt = () => {
        try {
          const result = check()
          if (result !== undefined) finish(resolve, result)
        } catch (error) {
          finish(reject, error)
        }
      }
      const timer = setTimeout(() => {
        finish(reject, new Error(`no ${what} within ${timeoutMs} ms; found ${describe()}`))
      }, timeoutMs)
      this.#waiters.add(attempt)
      attempt()
    })
  }
}

export const signal = new Signal()
