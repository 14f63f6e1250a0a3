// Does nothing keep a process alive once the Repo is shut down? Connects with the options of its
// argument, waits until a state is shown, shuts down, says the state then, and should end.

import { Repo } from "@automerge/automerge-repo"
import { AmsyncClientAdapter } from "../../clients/js/index.js"

const { url, tokens, until } = JSON.parse(process.argv[2])
let wake
const reached = new Promise(resolve => (wake = resolve))
const adapter = new AmsyncClientAdapter(url, {
  getToken: () => (tokens.length > 0 ? tokens.shift() : new Promise(() => {})),
  onStatus: ({ state }) => state === until && wake(),
  random: () => 1,
  ...Object.fromEntries(
    ["minRetry", "maxRetry", "ready", "tokenTimeout", "connectTimeout", "probeTimeout"].map(name => [
      `${name}Ms`,
      100_000, // so that a timer that is left would be noticed
    ])
  ),
})
const repo = new Repo({ network: [adapter] })
repo.create({})
await reached
await repo.shutdown()
console.log(JSON.stringify(adapter.status))
