// automerge-repo's WebSocket client, whose socket a test can drop (it comes back by itself) or
// hold (it stays away until told), and which stays away once it is closed. It counts its frames.

import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { signal } from "./signal.mjs"

export class HoldableAdapter extends WebSocketClientAdapter {
  held = false
  closed = false
  socketsOpened = 0
  #missed = false
  #traffic = new Map()

  constructor(...args) {
    super(...args)
    this.on("message", message => this.#count("in", message))
  }

  /** Frames of one document so far, as {"in sync": 3, "out request": 1}. */
  traffic(documentId) {
    return this.#traffic.get(documentId) ?? {}
  }

  send(message) {
    try {
      super.send(message)
    } catch (error) {
      // To a socket that is closing. It would be thrown through the middle of taking a message, and
      // automerge-repo's handle would call its document outdated for ever after (a bug of its own).
      if (!error.message.startsWith("Websocket not ready")) throw error
      return
    }
    this.#count("out", message)
  }

  connect(peerId, peerMetadata) {
    if (this.closed) return
    this.peerId = peerId
    this.peerMetadata = peerMetadata ?? {}
    if (this.held) {
      this.#missed = true
      return
    }
    this.socketsOpened += 1
    super.connect(peerId, peerMetadata)
  }

  /** Keep the socket that stands; once it is lost, stay away. */
  comeNoMore() {
    this.held = true
  }

  drop() {
    this.socket?.terminate()
  }

  hold() {
    this.held = true
    this.drop()
  }

  release() {
    this.held = false
    if (this.#missed) this.connect(this.peerId, this.peerMetadata)
    this.#missed = false
  }

  disconnect() {
    this.closed = true
    if (this.socket) super.disconnect()
  }

  #count(direction, { type, documentId }) {
    if (documentId === undefined) return
    const counts = this.traffic(documentId)
    const key = `${direction} ${type}`
    counts[key] = (counts[key] ?? 0) + 1
    this.#traffic.set(documentId, counts)
    signal.bump()
  }
}
