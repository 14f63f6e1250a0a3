// One automerge-repo Repo under the driver's command: a client, or the reference sync server.
//
// What the server has acknowledged is read where Repo reads it, from the synchronizer's
// "sync-state" events: the heads that the server named as its own.

import * as A from "@automerge/automerge"
import { Repo, decodeHeads, encodeHeads } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { readFileSync } from "node:fs"
import http from "node:http"
import https from "node:https"
import { WebSocketServer } from "ws"
import { HoldableAdapter } from "./adapter.mjs"
import { applyEdit, brief, canonical, meets, plain, sameHeads } from "./edits.mjs"
import { signal } from "./signal.mjs"

export class Peer {
  repo
  adapter
  welcomes = 0
  losses = 0
  #servers = []
  #watched = new Set()
  #ephemerals = new Map()
  #namedByServer = new Map()
  #typists = new Map()
  #creator = { timer: undefined, created: [] }
  #sightings = new Map()

  constructor(adapter, { peerId, storage, announce, gossip, saveMs }) {
    this.adapter = adapter
    adapter.on("peer-candidate", () => {
      this.welcomes += 1
      signal.bump()
    })
    adapter.on("peer-disconnected", () => {
      this.losses += 1
      signal.bump()
    })
    this.repo = new Repo({
      peerId,
      network: [adapter],
      storage: storage ? new NodeFSStorageAdapter(storage) : undefined,
      sharePolicy: async () => announce,
      enableRemoteHeadsGossiping: gossip,
      saveDebounceRate: saveMs ?? 100,
    })
    this.repo.synchronizer.on("sync-state", event => this.#noteSyncState(event))
  }

  static connect({ url, retryMs, offline, ...options }) {
    const adapter = new HoldableAdapter(url, retryMs)
    adapter.held = offline
    return new Peer(adapter, options)
  }

  static async listen({ port, tlsCert, tlsKey, ...options }) {
    const server = tlsCert
      ? https.createServer({ cert: readFileSync(tlsCert), key: readFileSync(tlsKey) })
      : http.createServer()
    const sockets = new WebSocketServer({ server })
    const peer = new Peer(new WebSocketServerAdapter(sockets, 5000), options)
    peer.#servers = [sockets, server]
    // The adapter takes no socket before it knows its storage id; a client that comes earlier
    // would wait for its welcome until the keepalive cuts it off 5 s later.
    await peer.repo.networkSubsystem.peerMetadata
    await new Promise((resolve, reject) => {
      server.on("error", reject)
      server.listen(port, "127.0.0.1", resolve)
    })
    peer.url = `${tlsCert ? "wss" : "ws"}://127.0.0.1:${server.address().port}`
    return peer
  }

  async close() {
    this.stopCreating()
    for (const documentId of [...this.#typists.keys()]) this.stopTyping({ documentId })
    const unready = Object.values(this.repo.handles).filter(handle => !handle.isReady())
    // flush() throws on a handle without a document.
    for (const handle of unready) delete this.repo.handles[handle.documentId]
    this.adapter.closed = true
    await this.repo.shutdown()
    for (const server of this.#servers) server.close()
  }

  // Connection

  connection() {
    const serverPeerId = this.repo.peers[0]
    return {
      connected: serverPeerId !== undefined,
      welcomes: this.welcomes,
      losses: this.losses,
      socketsOpened: this.adapter.socketsOpened ?? 0,
      peerId: this.repo.peerId,
      serverPeerId: serverPeerId ?? null,
      serverMetadata: this.repo.peerMetadataByPeerId[serverPeerId] ?? null,
    }
  }

  waitConnected({ welcomes = 1, timeoutMs }) {
    const check = () =>
      this.repo.peers.length > 0 && this.welcomes >= welcomes ? this.connection() : undefined
    return signal.until(check, timeoutMs, "connection", () => brief(this.connection()))
  }

  waitDisconnected({ timeoutMs }) {
    const check = () => (this.repo.peers.length === 0 ? this.connection() : undefined)
    return signal.until(check, timeoutMs, "disconnection", () => brief(this.connection()))
  }

  // Documents

  create({ value }) {
    return this.#report(this.#watch(this.repo.create(value)))
  }

  async find({ documentId, timeoutMs }) {
    const wait = new AbortController()
    const timer = setTimeout(() => wait.abort(), timeoutMs)
    try {
      return this.#report(this.#watch(await this.repo.find(documentId, { signal: wait.signal })))
    } catch (error) {
      if (wait.signal.aborted) return { state: "timeout" }
      if (/unavailable/.test(error.message)) return { state: "unavailable" }
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  findMany({ documentIds, timeoutMs }) {
    return Promise.all(documentIds.map(documentId => this.find({ documentId, timeoutMs })))
  }

  get({ documentId }) {
    return this.#report(this.#handle(documentId))
  }

  documents() {
    return Object.values(this.repo.handles)
      .filter(handle => handle.isReady())
      .map(handle => handle.documentId)
  }

  waitDocuments({ documentIds, timeoutMs }) {
    const check = () => {
      const ready = new Set(this.documents())
      return documentIds.every(id => ready.has(id)) ? documentIds.length : undefined
    }
    return signal.until(check, timeoutMs, `${documentIds.length} documents`, () =>
      brief(this.documents().length)
    )
  }

  change({ documentId, edits }) {
    const handle = this.#handle(documentId)
    handle.change(doc => edits.forEach(edit => applyEdit(doc, edit)))
    signal.bump()
    return { heads: A.getHeads(handle.doc()) }
  }

  changeAt({ documentId, heads, edits }) {
    const handle = this.#handle(documentId)
    handle.changeAt(encodeHeads(heads), doc => edits.forEach(edit => applyEdit(doc, edit)))
    signal.bump()
    return { heads: A.getHeads(handle.doc()) }
  }

  /** Append every character of `text` as a change of its own. */
  typeText({ documentId, path, text }) {
    const handle = this.#handle(documentId)
    for (const char of text) {
      handle.change(doc => {
        const before = path.reduce((node, key) => node[key], doc)
        A.splice(doc, path, before.length, 0, char)
      })
    }
    signal.bump()
    return { heads: A.getHeads(handle.doc()) }
  }

  /** Push `${label}-${n}` to a list every intervalMs until stopTyping. */
  startTyping({ documentId, path, label, intervalMs }) {
    const handle = this.#handle(documentId)
    const typist = { written: [] }
    typist.timer = setInterval(() => {
      const item = `${label}-${typist.written.length}`
      handle.change(doc => applyEdit(doc, ["push", path, item]))
      typist.written.push(item)
      signal.bump()
    }, intervalMs)
    this.#typists.set(documentId, typist)
  }

  waitTyped({ documentId, count, timeoutMs }) {
    const typist = this.#typists.get(documentId)
    const check = () => (typist.written.length >= count ? typist.written.length : undefined)
    return signal.until(check, timeoutMs, `${count} items`, () => brief(typist.written.length))
  }

  stopTyping({ documentId }) {
    const typist = this.#typists.get(documentId)
    if (!typist) return { written: [] }
    clearInterval(typist.timer)
    this.#typists.delete(documentId)
    return { written: typist.written }
  }

  /** Create a document with a list of one item, `${label}-${n}`, every intervalMs. */
  startCreating({ label, intervalMs }) {
    const { created } = this.#creator
    this.#creator.timer = setInterval(() => {
      const item = `${label}-${created.length}`
      created.push(this.#watch(this.repo.create({ list: [item] })).documentId)
      signal.bump()
    }, intervalMs)
  }

  stopCreating() {
    clearInterval(this.#creator.timer)
    return this.created()
  }

  created() {
    return this.#creator.created
  }

  delete({ documentId }) {
    this.repo.delete(documentId)
    this.#watched.delete(documentId)
  }

  wait({ documentId, timeoutMs, ...wanted }) {
    const handle = this.#handle(documentId)
    const check = () =>
      handle.isReady() && meets(handle.doc(), wanted) ? this.#report(handle) : undefined
    return signal.until(check, timeoutMs, brief(wanted), () => brief(this.#report(handle)))
  }

  // What a user sees who looks for a document

  /** Look for a document, and note from now on every state and value that its handle shows. */
  startWatching({ documentId }) {
    const seen = []
    this.#sightings.set(documentId, seen)
    this.repo.find(documentId).catch(() => {})
    const handle = this.#handle(documentId)
    const note = () => {
      const { state, value } = this.#report(handle)
      const last = seen[seen.length - 1]
      if (last?.state === state && canonical(last.value) === canonical(value)) return
      seen.push({ state, value, connected: this.welcomes > 0 })
      signal.bump()
    }
    // The handle emits nothing when its state changes; these are the ways in which it does.
    for (const name of ["request", "unavailable", "doneLoading", "update"]) {
      const original = handle[name].bind(handle)
      handle[name] = (...args) => {
        original(...args)
        note()
      }
    }
    note()
  }

  seen({ documentId }) {
    return this.#sightings.get(documentId)
  }

  waitSeen({ documentId, state, timeoutMs }) {
    const seen = this.#sightings.get(documentId)
    const check = () => (seen[seen.length - 1].state === state ? seen : undefined)
    return signal.until(check, timeoutMs, `state ${state}`, () => brief(seen))
  }

  /** Frames of a document on this client's sockets, by direction and type. */
  traffic({ documentId }) {
    return this.adapter.traffic(documentId)
  }

  waitTraffic({ documentId, kind, atLeast, timeoutMs }) {
    const check = () =>
      (this.traffic({ documentId })[kind] ?? 0) >= atLeast ? this.traffic({ documentId }) : undefined
    return signal.until(check, timeoutMs, `${atLeast} times "${kind}"`, () =>
      brief(this.traffic({ documentId }))
    )
  }

  // What the server says that it has

  waitSaved({ documentId, timeoutMs }) {
    const handle = this.#handle(documentId)
    const check = () => {
      const theirs = this.#known(handle, this.#namedByServer.get(documentId)?.latest ?? [])
      return A.getChangesMetaSince(handle.doc(), theirs).length === 0
        ? { heads: A.getHeads(handle.doc()) }
        : undefined
    }
    return signal.until(check, timeoutMs, "acknowledgement of all changes", () =>
      brief({ ours: A.getHeads(handle.doc()), named: this.#namedByServer.get(documentId)?.latest })
    )
  }

  /** The document as far as the server has ever named its changes as its own. */
  acknowledged({ documentId }) {
    const handle = this.#handle(documentId)
    const heads = this.#known(handle, [...(this.#namedByServer.get(documentId)?.ever ?? [])])
    return { heads, value: plain(A.view(handle.doc(), heads)) }
  }

  /** {documentId: every head that the server ever named as its own}. */
  namedHeads() {
    return Object.fromEntries([...this.#namedByServer].map(([id, { ever }]) => [id, [...ever]]))
  }

  // Gossip

  broadcast({ documentId, message }) {
    this.#handle(documentId).broadcast(message)
  }

  async ephemerals({ documentId, atLeast = 0, timeoutMs }) {
    this.#handle(documentId)
    const received = this.#ephemerals.get(documentId)
    const check = () => (received.length >= atLeast ? [...received] : undefined)
    return signal.until(check, timeoutMs, `${atLeast} ephemerals`, () => brief(received))
  }

  storageId() {
    return this.repo.storageId()
  }

  subscribeToRemotes({ storageIds }) {
    this.repo.subscribeToRemotes(storageIds)
  }

  remoteHeads({ documentId, storageId }) {
    const heads = this.#handle(documentId).getRemoteHeads(storageId)
    return heads ? decodeHeads(heads) : null
  }

  waitRemoteHeads({ documentId, storageId, heads, timeoutMs }) {
    const check = () => {
      const found = this.remoteHeads({ documentId, storageId })
      return found && sameHeads(found, heads) ? found : undefined
    }
    return signal.until(check, timeoutMs, `remote heads ${brief(heads)}`, () =>
      brief(this.remoteHeads({ documentId, storageId }))
    )
  }

  #handle(documentId) {
    const handle = this.repo.handles[documentId]
    if (!handle) throw new Error(`${this.repo.peerId} has no document ${documentId}`)
    return this.#watch(handle)
  }

  #watch(handle) {
    const { documentId } = handle
    if (this.#watched.has(documentId)) return handle
    this.#watched.add(documentId)
    this.#ephemerals.set(documentId, [])
    handle.on("heads-changed", signal.bump)
    handle.on("remote-heads", signal.bump)
    handle.on("ephemeral-message", ({ senderId, message }) => {
      this.#ephemerals.get(documentId).push({ senderId, message })
      signal.bump()
    })
    return handle
  }

  #noteSyncState({ documentId, syncState }) {
    if (syncState.theirHeads) {
      const named = this.#namedByServer.get(documentId) ?? { ever: new Set() }
      named.latest = syncState.theirHeads
      for (const head of syncState.theirHeads) named.ever.add(head)
      this.#namedByServer.set(documentId, named)
    }
    signal.bump()
  }

  #known(handle, heads) {
    return heads.filter(head => A.hasHeads(handle.doc(), [head]))
  }

  #report(handle) {
    const { documentId, state } = handle
    if (!handle.isReady()) return { documentId, state }
    const doc = handle.doc()
    return { documentId, state, value: plain(doc), heads: A.getHeads(doc) }
  }
}
