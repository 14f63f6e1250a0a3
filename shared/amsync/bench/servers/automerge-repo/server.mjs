// automerge-repo's sync server as automerge-repo-sync-server has it: one Repo with WebSocket
// server and NodeFS storage that announces nothing. `node server.mjs DATA_DIR [PORT]`; prints
// where it listens.

import { createServer } from "node:http"
import { hostname } from "node:os"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

const [directory, port = "0"] = process.argv.slice(2)
if (directory === undefined) throw new Error("usage: node server.mjs DATA_DIR [PORT]")

const server = createServer((_, response) => response.end("automerge-repo\n"))
const sockets = new WebSocketServer({ server })
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(directory),
  peerId: `storage-server-${hostname()}`,
  sharePolicy: async () => false,
})

// The adapter takes no socket before it knows its storage id.
await repo.networkSubsystem.peerMetadata
server.listen(Number(port), "127.0.0.1", () => {
  console.log(`listening on ws://127.0.0.1:${server.address().port}`)
})

process.on("SIGTERM", async () => {
  // It throws on a document that nobody had.
  await repo.flush().catch(() => {})
  process.exit(0)
})
