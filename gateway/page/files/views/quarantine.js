// Files that could not be read and were set aside; nothing here changes them.

import { get, inWords } from "../api.js"
import { sentence } from "../dialog.js"
import { fill, h } from "../dom.js"
import { Poll } from "../poll.js"
import { table } from "../table.js"
import { bytes, code, count, foreign, instant, number } from "../text.js"

const SECONDS = 30

const COLUMNS = [
  { title: "File", cell: each => code(each.path), kind: "wide" },
  {
    title: "Document",
    cell: each =>
      each.document_id
        ? h("a", { href: `#/documents/${encodeURIComponent(each.document_id)}` }, code(each.document_id))
        : foreign(null),
    kind: "wide",
  },
  { title: "Size", cell: each => bytes(each.bytes), kind: "number" },
  { title: "Set aside", cell: each => instant(each.quarantined_at) },
  { title: "Why", cell: each => foreign(each.reason, 1000), kind: "wide" },
]

/** See the module's text. */
export function open() {
  const lead = h("p", { class: "lead" }, "Asking…")
  const body = h("div")
  const element = h("div", null, h("h1", { tabindex: -1 }, "Quarantine"), lead, body)
  const poll = new Poll(
    signal => get("quarantine", signal),
    SECONDS,
    (answer, error) => {
      if (error) return fill(lead, sentence(`The list could not be read: ${inWords(error)}`))
      const { files, count: total } = answer
      const part = total > files.length ? `; the newest ${number(files.length)} are shown` : ""
      const told = `${count(total, "file")} that could not be read, set aside on the volume${part}.`
      fill(lead, total ? told : "Nothing had to be set aside.")
      return fill(
        body,
        table({
          caption: "Files set aside",
          columns: COLUMNS,
          rows: files,
          key: each => each.path,
          empty: "Files that can't be read are set aside, never deleted.",
        }),
      )
    },
  ).start()
  return { element, update: () => {}, close: () => poll.stop(), retry: poll.now }
}
