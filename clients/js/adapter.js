// automerge-repo's WebSocket client, which brings a token to amsync each time it connects.
//
// Of the stock adapter it keeps the messages: join, encoding, decoding, the peer. What it
// replaces is when to connect: one loop, which alone makes sockets, one after the other, under one
// signal that ends it and all that it waits for. The stock adapter's timers are never started.

import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { Backoff } from "./backoff.js"
import { checkedOptions, checkedUrl } from "./options.js"
import { probe } from "./probe.js"
import { TimedOut, sleep, within } from "./timing.js"

const SUBPROTOCOL = "amsync"
const TOKEN_PREFIX = "amsync.token."
/** What an entry of Sec-WebSocket-Protocol may be made of (RFC 9110, 5.6.2); a JWT is. */
const TOKEN = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/
const OPEN = 1
const TOKEN_ENDED = 4401
const WITHDRAWN = 4403

/** @typedef {import("./index.js").AmsyncClientOptions} Options */
/** @typedef {import("./index.js").AmsyncStatus} Status */
/** @typedef {import("./index.js").TokenReason} TokenReason */
/** @typedef {import("./index.js").StopReason} StopReason */
/** @typedef {import("./index.js").WaitReason} WaitReason */
/** @typedef {import("@automerge/automerge-repo/slim").PeerId} PeerId */
/** @typedef {import("@automerge/automerge-repo/slim").PeerMetadata} PeerMetadata */

/**
 * How an attempt ended: for good (`stop`), or with what to ask the next token for (`ask`), at
 * once or after waiting for a reason (`why`), `leastMs` at least.
 *
 * @typedef {object} Outcome
 * @property {StopReason} [stop]
 * @property {TokenReason} [ask]
 * @property {WaitReason} [why]
 * @property {number} [leastMs]
 * @property {string} [detail]
 */

/**
 * How a socket ended.
 *
 * @typedef {object} End
 * @property {boolean} opened
 * @property {number} code
 * @property {string} text
 * @property {number} lastedMs Since the server's welcome.
 */

/**
 * See index.d.ts for what the options mean.
 *
 * Never throws once it is made: documents go on being edited whatever becomes of the connection.
 */
export class AmsyncClientAdapter extends WebSocketClientAdapter {
  #options
  #backoff
  /** @type {AbortController | undefined} The loop that runs; none while stopped. */
  #running
  #attached = false
  #shutEarly = false
  /** @type {Status} */
  #status = { state: "stopped", reason: "disconnected" }
  #ready = false
  /** @type {() => void} */
  #becomeReady = () => {}
  #whenReady = new Promise(resolve => {
    this.#becomeReady = () => resolve(undefined)
  })
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #readyTimer
  /** @type {number | undefined} When the server has said welcome on the socket that stands. */
  #welcomedAt
  /** @type {() => void} */
  #welcomed = () => {}

  /**
   * @param {string} url
   * @param {Options} options
   */
  constructor(url, options) {
    super(checkedUrl(url, options?.allowInsecure ?? false), 0)
    this.#options = checkedOptions(options)
    const { minRetryMs, maxRetryMs, random } = this.#options
    this.#backoff = new Backoff(minRetryMs, maxRetryMs, random)
  }

  /** @returns {Status} What `onStatus` was last told. */
  get status() {
    return this.#status
  }

  isReady() {
    return this.#ready
  }

  /** @returns {Promise<void>} */
  whenReady() {
    return /** @type {Promise<void>} */ (this.#whenReady)
  }

  /**
   * For the Repo: connect, and stay connected until `disconnect`.
   *
   * @param {PeerId} peerId
   * @param {PeerMetadata} [peerMetadata]
   */
  connect(peerId, peerMetadata) {
    if (this.#shutEarly) {
      this.#shutEarly = false
      return
    }
    this.peerId = peerId
    this.peerMetadata = peerMetadata ?? this.peerMetadata ?? {}
    this.#attached = true
    if (!this.#ready && this.#readyTimer === undefined) {
      this.#readyTimer = setTimeout(() => this.#setReady(), this.#options.readyMs)
    }
    this.#start()
  }

  /** For the Repo: let go of the server. */
  disconnect() {
    if (!this.#attached) {
      // A Repo that is shut down at once: it connects a moment after that all the same.
      this.#shutEarly = this.peerId === undefined
      this.#setReady()
      return
    }
    this.#attached = false
    this.#end()
    this.#setReady()
    this.#show({ state: "stopped", reason: "disconnected" })
  }

  /** Try again at once: after a stop (somebody has signed in again), or instead of waiting. */
  retry() {
    const { state } = this.#status
    if (this.#attached && (state === "stopped" || state === "waiting")) this.#start()
  }

  /**
   * For the Repo. What can't be sent is dropped: with the next connection sync begins anew. To
   * throw here, as the stock adapter does, would break off the Repo's handling of a message in
   * its middle, and leave the document's handle behind its document for ever.
   *
   * @param {Parameters<WebSocketClientAdapter["send"]>[0]} message
   */
  send(message) {
    if (this.socket?.readyState === OPEN) super.send(message)
  }

  /**
   * @param {PeerId} remotePeerId
   * @param {PeerMetadata} peerMetadata
   */
  peerCandidate(remotePeerId, peerMetadata) {
    this.#setReady()
    this.#welcomed()
    try {
      super.peerCandidate(remotePeerId, peerMetadata)
    } finally {
      this.#show({ state: "connected" })
    }
  }

  #start() {
    this.#end()
    this.#backoff.reset()
    this.#running = new AbortController()
    void this.#run(this.#running.signal)
  }

  #end() {
    const ending = this.#running
    this.#running = undefined
    ending?.abort()
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    /** @type {TokenReason} */
    let ask = "first"
    for (;;) {
      this.#show({ state: "connecting", reason: ask })
      const outcome = await this.#attempt(ask, signal)
      if (signal.aborted) return
      if (outcome.stop !== undefined) {
        this.#running = undefined
        this.#setReady()
        this.#show({ state: "stopped", reason: outcome.stop, detail: outcome.detail })
        return
      }
      ask = outcome.ask ?? "reconnect"
      if (outcome.why === undefined) continue
      const retryInMs = (outcome.leastMs ?? 0) + this.#backoff.next()
      this.#setReady()
      this.#show({ state: "waiting", reason: outcome.why, detail: outcome.detail, retryInMs })
      await sleep(retryInMs, signal)
      if (signal.aborted) return
    }
  }

  /**
   * One token, one socket to its end.
   *
   * @param {TokenReason} ask
   * @param {AbortSignal} signal
   * @returns {Promise<Outcome>}
   */
  async #attempt(ask, signal) {
    const { getToken, tokenTimeoutMs, stableMs, minRetryMs } = this.#options
    let token
    try {
      token = await within(tokenTimeoutMs, signal, inner => getToken({ reason: ask, signal: inner }))
    } catch (error) {
      return { ask, why: error instanceof TimedOut ? "token_timeout" : "token_failed" }
    }
    if (token === null || token === undefined || token === "") return { stop: "signed_out" }
    if (typeof token !== "string" || !TOKEN.test(token)) return { stop: "bad_token" }
    if (signal.aborted) return {} // in the moment after the token had come

    const end = await this.#session(token, signal)
    if (signal.aborted) return {}
    if (end.lastedMs >= stableMs) this.#backoff.reset()
    const detail = end.text
    if (end.code === WITHDRAWN) return { stop: "withdrawn", detail }
    if (end.code === TOKEN_ENDED) {
      // Not at once if tokens end as soon as they are used: that would go round without a pause.
      return { ask: "expired", detail, why: end.lastedMs >= minRetryMs ? undefined : "closed" }
    }
    if (end.opened) return { ask: "reconnect", why: "closed", detail }
    return this.#explain(token, ask, signal)
  }

  /**
   * Find out why there was no connection.
   *
   * @param {string} token
   * @param {TokenReason} asked
   * @param {AbortSignal} signal
   * @returns {Promise<Outcome>}
   */
  async #explain(token, asked, signal) {
    const { fetch, probeTimeoutMs } = this.#options
    const found = await probe(this.url, token, { fetch, ms: probeTimeoutMs, signal })
    const { detail, leastMs } = found
    switch (found.verdict) {
      case "forbidden":
        return { stop: "forbidden", detail }
      case "refused":
        return asked === "refused" ? { stop: "unauthorized", detail } : { ask: "refused" }
      case "busy":
      case "unavailable":
        return { ask: "reconnect", why: found.verdict, leastMs, detail }
      default:
        return { ask: "reconnect", why: "network" }
    }
  }

  /**
   * Open a socket and return when it is closed, or when the signal says so.
   *
   * @param {string} token
   * @param {AbortSignal} signal
   * @returns {Promise<End>}
   */
  #session(token, signal) {
    const { WebSocket, connectTimeoutMs } = this.#options
    return new Promise(resolve => {
      let opened = false
      let isOver = false
      /** @type {WebSocket} */
      let socket
      const over = ({ code = 1006, reason = "" }) => {
        if (isOver) return
        isOver = true
        clearTimeout(timer)
        signal.removeEventListener("abort", leave)
        const lastedMs = this.#welcomedAt === undefined ? 0 : performance.now() - this.#welcomedAt
        this.#welcomedAt = undefined
        if (this.socket === socket) this.socket = undefined
        resolve({ opened, code, text: reason, lastedMs })
        this.#loseRemote() // the last: who listens may throw
      }
      const leave = () => {
        socket.close()
        over({})
      }
      const timer = setTimeout(leave, connectTimeoutMs)
      try {
        socket = new WebSocket(this.url, [SUBPROTOCOL, TOKEN_PREFIX + token])
      } catch {
        // Its message may name the token. A browser that forbids the address will go on doing so.
        clearTimeout(timer)
        resolve({ opened: false, code: 1006, text: "", lastedMs: 0 })
        return
      }
      this.#welcomed = () => {
        clearTimeout(timer)
        this.#welcomedAt = performance.now()
      }
      socket.binaryType = "arraybuffer"
      this.socket = /** @type {any} */ (socket)
      // The listeners stay: `ws` throws what nobody listens to, also when it is closed early.
      socket.addEventListener("error", () => {})
      socket.addEventListener("close", over)
      socket.addEventListener("open", () => {
        opened = true
        if (!isOver) this.join()
      })
      socket.addEventListener("message", event => {
        if (!isOver) this.receiveMessage(event.data)
      })
      signal.addEventListener("abort", leave)
    })
  }

  #loseRemote() {
    const peerId = this.remotePeerId
    this.remotePeerId = undefined
    if (peerId !== undefined) this.emit("peer-disconnected", { peerId })
  }

  /** From now on the Repo may call a document unavailable that nobody has. */
  #setReady() {
    clearTimeout(this.#readyTimer)
    this.#ready = true
    this.#becomeReady()
  }

  /** @param {Status} status */
  #show(status) {
    const given = Object.entries(status).filter(([, value]) => value !== undefined && value !== "")
    this.#status = Object.freeze(/** @type {Status} */ (Object.fromEntries(given)))
    try {
      this.#options.onStatus(this.#status)
    } catch (error) {
      console.error("onStatus of AmsyncClientAdapter has thrown", error)
    }
  }
}
