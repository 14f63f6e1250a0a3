// What an adapter is made of, checked before anything is done with it.

import PlatformWebSocket from "isomorphic-ws"

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/
const MAX_TIMER_MS = 2 ** 31 - 1

/** @typedef {import("./index.js").AmsyncClientOptions} Options */

/**
 * @param {string} text
 * @param {boolean} allowInsecure
 * @returns {string}
 */
export function checkedUrl(text, allowInsecure) {
  const url = new URL(text)
  if (url.protocol !== "wss:" && url.protocol !== "ws:") {
    throw new TypeError(`an address of ${url.protocol} is not allowed; give wss:`)
  }
  if (url.protocol === "ws:" && !allowInsecure && !LOOPBACK.test(url.hostname)) {
    throw new TypeError("ws: would show the token to the network; give wss: or allowInsecure")
  }
  if (url.hash || url.username || url.password) {
    throw new TypeError("an address with a fragment or a password is not allowed")
  }
  return url.href
}

/**
 * @param {Options} options
 * @returns {Required<Options>}
 */
export function checkedOptions(options) {
  if (typeof options?.getToken !== "function") throw new TypeError("getToken must be a function")
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const found = {
    getToken: options.getToken,
    allowInsecure: false,
    onStatus: () => {},
    minRetryMs: 1000,
    maxRetryMs: 60_000,
    stableMs: 30_000,
    readyMs: 5000,
    tokenTimeoutMs: 60_000,
    connectTimeoutMs: 30_000,
    probeTimeoutMs: 10_000,
    random: Math.random,
    WebSocket: /** @type {typeof globalThis.WebSocket} */ (/** @type {any} */ (PlatformWebSocket)),
    fetch: /** @type {typeof fetch} */ ((...args) => globalThis.fetch(...args)),
    ...Object.fromEntries(given),
  }
  for (const [name, value] of Object.entries(found)) {
    if (name.endsWith("Ms") && !(Number(value) > 0 && Number(value) <= MAX_TIMER_MS)) {
      throw new TypeError(`${name}=${value} is not allowed; give milliseconds above 0`)
    }
  }
  return found
}
