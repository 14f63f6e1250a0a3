// A small application, as one would write it with our client: a document, shown and edited, and
// how the connection is. Its tokens come from the server that it was loaded from.

import { Repo } from "@automerge/automerge-repo"
import { AmsyncClientAdapter } from "../../../clients/js/index.js"

const statuses = []
const asked = []

const adapter = new AmsyncClientAdapter(document.body.dataset.sync, {
  getToken: async ({ reason, signal }) => {
    asked.push(reason)
    const answer = await fetch(`/token?reason=${reason}`, { signal })
    return answer.status === 204 ? null : answer.text()
  },
  onStatus: status => {
    statuses.push(status)
    show()
  },
  minRetryMs: 50,
  maxRetryMs: 1000,
})
const repo = new Repo({ network: [adapter] })
let handle

const show = () => {
  document.querySelector("#status").textContent = JSON.stringify(statuses[statuses.length - 1])
  document.querySelector("#story").textContent = statuses
    .map(({ state, reason }) => `${state} ${reason ?? ""}`.trim())
    .join("\n")
  document.querySelector("#list").textContent = handle ? handle.doc().list.join("\n") : ""
}

// What the test calls.
window.app = {
  statuses,
  asked,
  status: () => adapter.status,
  retry: () => adapter.retry(),
  create() {
    handle = repo.create({ list: [] })
    handle.on("heads-changed", show)
    show()
    return handle.documentId
  },
  edit: item => handle.change(doc => doc.list.push(item)),
  list: () => [...handle.doc().list],
}
