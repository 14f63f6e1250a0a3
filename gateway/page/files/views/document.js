// One document: what it is, who has it open, and what is in it.

import { call, download, get, getText, inWords, path } from "../api.js"
import { ask, notice, sentence } from "../dialog.js"
import { fill, h } from "../dom.js"
import { Poll } from "../poll.js"
import { facts, table } from "../table.js"
import { brief, bytes, code, count, foreign, number } from "../text.js"
import { Tree, parse } from "../tree.js"
import { askImport } from "./documents.js"

const SECONDS = 4
/** What is larger is only read when it is asked for. */
const READ_AT_ONCE_BYTES = 200_000
const TYPED = 6

const PEERS = [
  { title: "Peer", cell: each => foreign(each.peer_id), kind: "wide" },
  { title: "Access", cell: each => foreign(each.access) },
  { title: "Gateway", cell: each => code(brief(each.gateway)) },
  { title: "Connection", cell: each => number(each.connection), kind: "number" },
]

/** See the module's text. */
export function open(_state, at) {
  const named = at.more
  const element = h("div", { class: "document" })
  const head = h("div")
  const content = h("section", { "aria-labelledby": "content" })
  const tree = new Tree()
  element.append(
    h("p", { class: "back" }, h("a", { href: "#/documents" }, "All documents")),
    head,
    content,
  )
  fill(head, h("h1", { class: "id", tabindex: -1 }, code(named)), h("p", { class: "lead" }, "Asking…"))

  let details = null
  let shownHeads = null // those of the content that is shown
  let reading = null
  let trouble = ""
  let readsByItself = true // not what was too much already: a small document may hold gigabytes

  const poll = new Poll(
    signal => get(path(["documents", named]), signal),
    SECONDS,
    (answer, error) => {
      if (error) {
        if (!details) fill(head, h("h1", { class: "id", tabindex: -1 }, code(named)), problem(error))
        return
      }
      details = answer
      fill(head, ...summary(details, () => poll.now(), leave))
      const isWanted = readsByItself && isSmall(details)
      if (isWanted && (shownHeads === null || isOld())) void read()
      showContent()
    },
  ).start()

  const isOld = () => shownHeads !== null && String(shownHeads) !== String(details.heads)

  async function read() {
    if (reading) return
    reading = new AbortController()
    trouble = ""
    showContent()
    try {
      const text = await getText(path(["documents", named, "value"]), reading.signal)
      const answer = parse(text)
      shownHeads = answer.heads
      tree.show(answer.value)
      readsByItself = true
    } catch (error) {
      if (error.name === "AbortError") return
      trouble = sentence(`The content could not be shown: ${inWords(error)}`)
      readsByItself = error.kind === "away" || error.status === 503
    }
    reading = null
    showContent()
  }

  function showContent() {
    const hasTree = shownHeads !== null
    const button = hasTree ? isOld() && "Show the newest" : `Show ${bytes(details.stored_bytes)}`
    fill(
      content,
      h("h2", { id: "content" }, "Content"),
      trouble && h("p", { class: "trouble", role: "alert", key: "trouble" }, trouble),
      reading && h("p", { class: "hint", key: "reading" }, "Reading…"),
      !reading && button && h("button", { key: "read", onclick: read }, button),
      h("div", { key: "tree", class: "kept" }),
    )
    const place = content.querySelector("[key=tree]")
    if (tree.element.parentNode !== place) place.append(tree.element)
  }

  function leave() {
    poll.stop()
    reading?.abort()
  }
  return { element, update: () => {}, close: leave, retry: poll.now }
}

const isSmall = ({ stored_bytes: size }) => size <= READ_AT_ONCE_BYTES

function problem(error) {
  const words = { 400: "This is no document's id", 404: "There is no such document", 410: "It was deleted" }
  return h("p", { class: "trouble", role: "alert" }, sentence(words[error.status] ?? inWords(error)))
}

function summary(details, changed, leave) {
  const { document_id: id, url, heads, peers, peer_count: total } = details
  const save = (what, name) => () => download(path(["documents", id, what]), `${id}.${name}`)
  return [
    h("h1", { class: "id", tabindex: -1 }, code(id)),
    h(
      "div",
      { class: "buttons", key: "buttons" },
      h("button", { onclick: save("automerge", "automerge") }, "Download .automerge"),
      h("button", { onclick: save("value", "json") }, "Download JSON"),
      copyButton(url),
      h("button", { onclick: () => askImport(id, changed) }, "Merge a file…"),
      h("button", { class: "grave", onclick: () => askDelete(id, leave) }, "Delete…"),
    ),
    facts([
      ["Changes", number(details.changes)],
      ["Stored", bytes(details.stored_bytes)],
      ["In memory", details.is_open ? (details.memory_bytes === null ? "yes" : bytes(details.memory_bytes)) : "no"],
      ["Shard", number(details.shard)],
      ["Worker", details.owner ? code(brief(details.owner)) : "nobody"],
    ]),
    h(
      "section",
      { key: "heads", "aria-labelledby": "heads" },
      h("h2", { id: "heads" }, count(heads.length, "head")),
      h("ul", { class: "heads" }, heads.map(each => h("li", { key: each }, code(each)))),
    ),
    h(
      "section",
      { key: "peers", "aria-labelledby": "peers" },
      h("h2", { id: "peers" }, count(total, "peer")),
      total > peers.length && h("p", { class: "hint" }, `The first ${number(peers.length)} are shown.`),
      table({
        caption: "Peers that sync this document",
        columns: PEERS,
        rows: peers,
        key: each => `${each.gateway} ${each.connection}`,
        empty: "Nobody syncs it now.",
      }),
    ),
  ]
}

function copyButton(url) {
  // Browsers copy for pages of https and of this machine only.
  if (!navigator.clipboard) return null
  const copy = async () => {
    await navigator.clipboard.writeText(url)
    notice("The URL was copied.")
  }
  return h("button", { onclick: copy }, "Copy URL")
}

function askDelete(id, leave) {
  const start = id.slice(0, TYPED)
  const typed = h("input", { id: "typed", autocomplete: "off", spellcheck: "false", autocapitalize: "off" })
  ask({
    title: "Delete this document?",
    body: [
      h("p", null, "It is deleted for all clients and for good; a download is the only way back."),
      h("p", null, code(id)),
      h("label", { for: "typed" }, "Type its first six characters, ", h("code", null, start)),
      typed,
    ],
    action: "Delete for good",
    isGrave: true,
    isReady: () => typed.value.trim() === start,
    act: async () => {
      await call("DELETE", path(["documents", id]))
      leave()
      location.hash = "#/documents"
      addEventListener("hashchange", () => notice(id, " was deleted."), { once: true })
    },
  })
}
