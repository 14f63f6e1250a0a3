// Waiting that ends: by its time, or by a signal. No timer and no listener outlives its wait.

/** What was waited for did not come in time, or is not wanted any more. */
export class TimedOut extends Error {}

/**
 * Return after a time, or as soon as the signal is aborted.
 *
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise(resolve => {
    const wake = () => {
      clearTimeout(timer)
      signal.removeEventListener("abort", wake)
      resolve()
    }
    const timer = setTimeout(wake, ms)
    signal.addEventListener("abort", wake)
    if (signal.aborted) wake()
  })
}

/**
 * Do something within a time; it is told by a signal of its own when nobody waits any more.
 *
 * Rejects with TimedOut, or with what `work` rejects with; what comes late is ignored.
 *
 * @template T
 * @param {number} ms
 * @param {AbortSignal} signal
 * @param {(signal: AbortSignal) => T | Promise<T>} work
 * @returns {Promise<T>}
 */
export function within(ms, signal, work) {
  return new Promise((resolve, reject) => {
    const inner = new AbortController()
    const end = () => {
      clearTimeout(timer)
      signal.removeEventListener("abort", giveUp)
    }
    const giveUp = () => {
      end()
      reject(new TimedOut("nobody waits any more"))
      inner.abort()
    }
    const timer = setTimeout(giveUp, ms)
    signal.addEventListener("abort", giveUp)
    if (signal.aborted) {
      giveUp()
      return
    }
    new Promise(begin => begin(work(inner.signal))).then(
      found => {
        end()
        resolve(/** @type {T} */ (found))
      },
      error => {
        end()
        reject(error)
      }
    )
  })
}
