// automerge-repo's WebSocket client, whose socket a test can drop (it comes back by itself) or
// hold (it stays away until told), and which stays away once it is closed.

import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

export class HoldableAdapter extends WebSocketClientAdapter {
  held = false
  closed = false
  socketsOpened = 0
  #missed = false

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
}
