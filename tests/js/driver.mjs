// Many automerge-repo peers in one Node process, commanded by JSON lines.
//
// In:  {id, peer?, command, args}          Out: {id, ok: true, result} | {id, ok: false, error}
// Without a peer: `connect` and `listen` make one (args.peer names it), `converge` waits until
// the named peers hold the same heads of a document, `newDocumentId`, `waitError`, `errors` returns
// what was thrown where nobody could catch it (automerge-repo's socket adapter throws inside event
// handlers), `exit`. `connectWithTokens` makes a peer with our own client, see tokens.mjs.
// With a peer: any public method of Peer, called with args (milliseconds, hex heads).
// Commands run at once; a later one doesn't wait for an earlier one. stdin's end ends it all.

import * as A from "@automerge/automerge"
import { generateAutomergeUrl, parseAutomergeUrl } from "@automerge/automerge-repo"
import readline from "node:readline"
import { Peer } from "./peer.mjs"
import { brief, plain, sameHeads } from "./edits.mjs"
import { signal } from "./signal.mjs"
import { TokenPeer, refusal, shutDownAtOnce } from "./tokens.mjs"

const peers = new Map()
const thrown = []

for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, error => {
    thrown.push(String(error?.stack ?? error))
    signal.bump()
    console.error(`${event}: ${error?.stack ?? error}`)
  })
}
// automerge-repo logs with console.log; stdout belongs to the answers.
console.log = console.error

const named = name => {
  const peer = peers.get(name)
  if (!peer) throw new Error(`no peer ${name}`)
  return peer
}

const commands = {
  async connect({ peer, ...options }) {
    peers.set(peer, Peer.connect(options))
    return { peerId: named(peer).repo.peerId }
  },

  async connectWithTokens({ peer, ...options }) {
    peers.set(peer, TokenPeer.connectWithTokens(options))
    return { peerId: named(peer).repo.peerId }
  },

  refusal,
  shutDownAtOnce,

  async listen({ peer, ...options }) {
    peers.set(peer, await Peer.listen(options))
    return { url: named(peer).url }
  },

  async closePeer({ peer }) {
    const closing = named(peer)
    peers.delete(peer)
    await closing.close()
  },

  converge({ peers: names, documentId, timeoutMs }) {
    const handles = names.map(name => named(name).repo.handles[documentId])
    const heads = () => handles.map(h => (h?.isReady() ? A.getHeads(h.doc()) : null))
    const check = () => {
      const [first, ...rest] = heads()
      return first && rest.every(other => other && sameHeads(first, other))
        ? { heads: first, value: plain(handles[0].doc()) }
        : undefined
    }
    return signal.until(check, timeoutMs, "common heads", () => brief(heads()))
  },

  waitError({ text, timeoutMs }) {
    const check = () => (thrown.some(error => error.includes(text)) ? true : undefined)
    return signal.until(check, timeoutMs, `error "${text}"`, () => brief(thrown))
  },

  newDocumentId() {
    return parseAutomergeUrl(generateAutomergeUrl()).documentId
  },

  errors() {
    return thrown.splice(0)
  },

  async exit() {
    setImmediate(() => process.exit(0))
  },
}

const socketCommands = {
  drop: peer => peer.adapter.drop(),
  comeNoMore: peer => peer.adapter.comeNoMore(),
  goOffline: peer => peer.adapter.hold(),
  goOnline: peer => peer.adapter.release(),
}

async function run({ peer, command, args }) {
  if (peer === undefined || peer === null) return commands[command](args)
  const target = named(peer)
  if (socketCommands[command]) return socketCommands[command](target)
  return target[command](args)
}

const answer = message => process.stdout.write(`${JSON.stringify(message)}\n`)

readline.createInterface({ input: process.stdin }).on("line", async line => {
  const { id, ...request } = JSON.parse(line)
  try {
    answer({ id, ok: true, result: (await run(request)) ?? null })
  } catch (error) {
    answer({ id, ok: false, error: String(error?.stack ?? error) })
  }
}).on("close", () => process.exit(0))

answer({ ready: true, node: process.version })
