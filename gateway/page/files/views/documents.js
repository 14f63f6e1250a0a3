// All documents, by the beginning of their id, in pages.

import { call, get, inWords, path } from "../api.js"
import { ask, notice, sentence } from "../dialog.js"
import { fill, h } from "../dom.js"
import { Poll } from "../poll.js"
import { table } from "../table.js"
import { brief, code, number } from "../text.js"

const SECONDS = 10
const LIMIT = 50
const TYPING_MS = 300

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i
const NAMED_BY_ID = /^([1-9A-HJ-NP-Za-km-z]{20,40})\.automerge$/

/** Where a document is shown. */
export const addressOf = id => `#/documents/${encodeURIComponent(id)}`

/** See the module's text. */
export function open(_state, at) {
  let prefix = at.query.get("prefix") ?? ""
  let after = at.query.get("after") ?? ""
  let typing = 0

  const field = h("input", {
    id: "search",
    type: "search",
    value: prefix,
    placeholder: "The beginning of an id, an id, or a URL",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
  })
  const search = h(
    "form",
    { role: "search", class: "search" },
    h("label", { for: "search", class: "unseen" }, "Search documents"),
    field,
    h("button", null, "Search"),
  )
  const found = h("div")
  const trouble = h("p", { class: "trouble", role: "alert" })
  const element = h(
    "div",
    null,
    h(
      "div",
      { class: "head" },
      h("h1", { tabindex: -1 }, "Documents"),
      h("button", { onclick: askCreate }, "Create…"),
      h("button", { onclick: () => askImport(null) }, "Import…"),
    ),
    search,
    trouble,
    found,
  )

  const poll = new Poll(
    signal => get(path(["documents"], { prefix, after, limit: LIMIT }), signal),
    SECONDS,
    (answer, error) => {
      fill(trouble, error && sentence(`The list could not be read: ${inWords(error)}`))
      if (answer) fill(found, ...page(answer, prefix, after))
    },
  ).start()

  const look = () => {
    clearTimeout(typing)
    const text = field.value.trim().replace(/^automerge:/, "").split(/[?#]/)[0]
    if (text === prefix && !after) return
    ;[prefix, after] = [text, ""]
    history.replaceState(null, "", listAddress(prefix, ""))
    poll.now()
  }
  field.oninput = () => {
    clearTimeout(typing)
    typing = setTimeout(look, TYPING_MS)
  }
  search.onsubmit = event => {
    event.preventDefault()
    const text = field.value.trim()
    if (UUID.test(text) || text.startsWith("automerge:")) location.hash = addressOf(text)
    else look()
  }
  const close = () => {
    clearTimeout(typing)
    poll.stop()
  }
  return { element, update: () => {}, close, retry: poll.now }
}

function listAddress(prefix, after) {
  return `#/${path(["documents"], { prefix, after })}`
}

function page({ documents, next }, prefix, after) {
  const columns = [
    {
      title: "Document",
      cell: each => h("a", { href: addressOf(each.document_id) }, code(each.document_id)),
      kind: "wide",
    },
    { title: "Shard", cell: each => number(each.shard), kind: "number" },
    { title: "Worker", cell: each => (each.owner ? code(brief(each.owner)) : h("b", null, "nobody")) },
    { title: "In memory", cell: each => (each.is_open ? "yes" : "no") },
    { title: "Peers", cell: each => number(each.peers), kind: "number" },
  ]
  const empty = prefix
    ? "No document's id begins like this."
    : after
      ? "There are no more."
      : "There are no documents yet."
  return [
    table({ caption: "Documents", columns, rows: documents, key: each => each.document_id, empty }),
    h(
      "nav",
      { class: "pages", "aria-label": "Pages", key: "pages" },
      after && h("a", { href: listAddress(prefix, "") }, "First page"),
      next && h("a", { href: listAddress(prefix, next) }, "Next page"),
    ),
  ]
}

// -- making documents

function askCreate() {
  const id = h("input", { id: "new-id", spellcheck: "false", autocomplete: "off" })
  const value = h("textarea", { id: "new-value", rows: 6, spellcheck: "false" }, "{}")
  ask({
    title: "Create a document",
    body: [
      h("label", { for: "new-value" }, "Content, a JSON object"),
      value,
      h("label", { for: "new-id" }, "Id; made up if empty"),
      id,
    ],
    action: "Create",
    act: async () => {
      const members = []
      if (id.value.trim()) members.push(`"document_id":${JSON.stringify(id.value.trim())}`)
      if (value.value.trim()) {
        try {
          JSON.parse(value.value)
        } catch (error) {
          throw new Error(`the content is no JSON: ${error.message}`, { cause: error })
        }
        // As it was typed: numbers of many digits would not survive being read here.
        members.push(`"value":${value.value}`)
      }
      opened(await call("POST", "documents", `{${members.join()}}`), "was created")
    },
  })
}

/** Ask for a saved document, to be merged into one, or to become a new one. */
export function askImport(documentId, after = () => {}) {
  const file = h("input", { id: "file", type: "file", accept: ".automerge,application/octet-stream" })
  const into = h("input", {
    id: "into",
    spellcheck: "false",
    autocomplete: "off",
    value: documentId ?? "",
    readonly: documentId !== null,
  })
  file.onchange = () => {
    const [, id] = NAMED_BY_ID.exec(file.files[0]?.name ?? "") ?? []
    if (documentId === null && id && !into.value) into.value = id
  }
  ask({
    title: documentId ? "Merge a file into this document" : "Import a file",
    body: [
      h("label", { for: "file" }, "A saved document (.automerge)"),
      file,
      h("label", { for: "into" }, documentId ? "Document" : "Id to merge it into; a new one if empty"),
      into,
    ],
    action: documentId ? "Merge" : "Import",
    isReady: () => file.files.length === 1,
    act: async () => {
      const id = into.value.trim()
      const [chosen] = file.files
      if (!id) return opened(await call("POST", "documents", chosen), "was imported")
      const merged = await call("PUT", path(["documents", id, "automerge"]), chosen)
      const news = merged.is_new ? "was imported" : `has ${number(merged.new_changes)} new changes`
      opened(merged, news)
      return after()
    },
  })
}

function opened({ document_id: id }, what) {
  const address = addressOf(id)
  if (location.hash === address) return notice(id, ` ${what}.`)
  location.hash = address
  // After the view has changed, which takes away what was said before it.
  addEventListener("hashchange", () => notice(id, ` ${what}.`), { once: true })
  return undefined
}
