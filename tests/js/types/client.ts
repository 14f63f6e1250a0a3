// What clients/js says of itself: that its index.d.ts tells the truth about its JavaScript, and
// that an application in TypeScript can be written with it. Compiled, never run.

import { Repo } from "@automerge/automerge-repo"
import { AmsyncClientAdapter as Made } from "../../../clients/js/adapter.js"
import { AmsyncClientAdapter, type AmsyncStatus } from "../../../clients/js/index.js"

export const declared: typeof AmsyncClientAdapter = Made

const shown = (status: AmsyncStatus): string => {
  switch (status.state) {
    case "connecting":
      return status.reason
    case "connected":
      return ""
    case "waiting":
      return `${status.reason} ${status.retryInMs}`
    case "stopped":
      return `${status.reason} ${status.detail ?? ""}`
  }
}

const adapter = new AmsyncClientAdapter("wss://sync.example.org", {
  getToken: async ({ reason, signal }) => (reason === "refused" || signal.aborted ? null : "token"),
  onStatus: status => void shown(status),
})
export const repo = new Repo({ network: [adapter] })
adapter.retry()

// @ts-expect-error A token must come from somewhere.
new AmsyncClientAdapter("wss://sync.example.org", {})
// @ts-expect-error Not a token.
new AmsyncClientAdapter("wss://sync.example.org", { getToken: () => 7 })
