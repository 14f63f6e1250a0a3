// A Repo with our own client (clients/js), whose tokens a test has written down beforehand.
//
// A token of the script is a text, null, or {fails: true} or {hangs: true}; the last one is given
// again and again. What hangs goes on when `release` gives it a token.

import { Repo } from "@automerge/automerge-repo"
import { performance } from "node:perf_hooks"
import PlatformWebSocket from "ws"
import { AmsyncClientAdapter } from "../../clients/js/index.js"
import { Peer } from "./peer.mjs"
import { brief } from "./edits.mjs"
import { signal } from "./signal.mjs"

class DroppableAdapter extends AmsyncClientAdapter {
  drop() {
    this.socket?.terminate()
  }
}

/** What getToken does, and what has come of it. */
class Script {
  asked = []
  given = 0
  #hanging = []

  constructor(tokens) {
    this.tokens = tokens
  }

  getToken = ({ reason, signal: given }) => {
    const asked = { reason, abandoned: false }
    given.addEventListener("abort", () => {
      asked.abandoned = true
      signal.bump()
    })
    this.asked.push(asked)
    signal.bump()
    const next = this.tokens.length > 1 ? this.tokens.shift() : this.tokens[0]
    if (next?.fails) throw new Error("the identity provider is away")
    if (next?.hangs) return new Promise(resolve => this.#hanging.push(resolve))
    return Promise.resolve(next)
  }

  release(token) {
    for (const resolve of this.#hanging.splice(0)) resolve(token)
  }
}

export class TokenPeer extends Peer {
  statuses = []
  #script
  #sockets

  static connectWithTokens({ url, tokens, random, options = {}, ...rest }) {
    const script = new Script(tokens)
    const sockets = { opened: 0, mostAtOnce: 0, standing: new Set() }
    const statuses = []
    class WebSocket extends PlatformWebSocket {
      constructor(...args) {
        super(...args)
        sockets.opened += 1
        sockets.standing.add(this)
        sockets.mostAtOnce = Math.max(sockets.mostAtOnce, sockets.standing.size)
        this.addEventListener("close", () => sockets.standing.delete(this))
      }
    }
    const adapter = new DroppableAdapter(url, {
      WebSocket,
      getToken: script.getToken,
      onStatus: status => {
        statuses.push({ ...status, at: performance.now() })
        signal.bump()
      },
      random: random === undefined || random === null ? undefined : () => random,
      ...options,
    })
    const peer = new TokenPeer(adapter, rest)
    peer.statuses = statuses
    peer.#script = script
    peer.#sockets = sockets
    return peer
  }

  sockets() {
    const { opened, mostAtOnce, standing } = this.#sockets
    return { opened, mostAtOnce, standing: standing.size }
  }

  asked() {
    return this.#script.asked
  }

  setTokens({ tokens }) {
    this.#script.tokens = tokens
  }

  release({ token }) {
    this.#script.release(token)
  }

  waitAsked({ count, timeoutMs }) {
    const check = () => (this.asked().length >= count ? this.asked() : undefined)
    return signal.until(check, timeoutMs, `${count} askings`, () => brief(this.asked()))
  }

  allStatuses() {
    return this.statuses
  }

  /** The newest status of a state and reason, once it has come at least so many times. */
  waitStatus({ state, reason, count = 1, timeoutMs }) {
    const check = () => {
      const found = this.statuses.filter(
        each => each.state === state && (reason === undefined || each.reason === reason)
      )
      return found.length >= count ? found[found.length - 1] : undefined
    }
    return signal.until(check, timeoutMs, `${count} times ${state} ${reason ?? ""}`, () =>
      brief(this.statuses)
    )
  }

  retry({ times = 1 }) {
    for (let n = 0; n < times; n += 1) this.adapter.retry()
    return this.adapter.status
  }

  /** As the Repo would, many times in a row. */
  reconnect({ times }) {
    for (let n = 0; n < times; n += 1) this.repo.networkSubsystem.reconnect()
  }

  disconnect() {
    this.adapter.disconnect()
  }

  /** Send while the socket is closing, as the Repo does when it is in the middle of something. */
  sendWhileClosing({ documentId }) {
    this.adapter.drop()
    const message = { type: "sync", documentId, data: new Uint8Array([1]) }
    this.adapter.send({ ...message, senderId: this.repo.peerId, targetId: this.repo.peers[0] })
    return this.adapter.socket?.readyState ?? null
  }
}

/** What the adapter throws when it is made with something that is not allowed; null: nothing. */
export function refusal({ url, options }) {
  try {
    new AmsyncClientAdapter(url, { getToken: () => null, ...options })
    return null
  } catch (error) {
    return `${error.name}: ${error.message}`
  }
}

/** A Repo that is shut down before it has connected; returns how many sockets it opened. */
export async function shutDownAtOnce({ url, token }) {
  let opened = 0
  class WebSocket extends PlatformWebSocket {
    constructor(...args) {
      super(...args)
      opened += 1
    }
  }
  const adapter = new AmsyncClientAdapter(url, { WebSocket, getToken: () => token })
  const repo = new Repo({ network: [adapter] })
  await repo.shutdown()
  await repo.networkSubsystem.peerMetadata
  await new Promise(resolve => setTimeout(resolve, 50))
  return { opened, status: adapter.status }
}
