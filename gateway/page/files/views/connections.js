// The connections of the gateway that answers, who they are, and sending them away.

import { call, get, inWords, path } from "../api.js"
import { ask, notice, sentence } from "../dialog.js"
import { fill, h } from "../dom.js"
import { Poll } from "../poll.js"
import { table } from "../table.js"
import { brief, code, count, duration, foreign, instant, number } from "../text.js"

const SECONDS = 5
const LIMIT = 100

const KEEP_OUT = [
  ["300", "5 minutes"],
  ["3600", "1 hour"],
  ["86400", "1 day"],
].map(([seconds, text]) => [seconds, `Close all of this user's, and keep them out for ${text}`])

/** See the module's text. */
export function open(state, at) {
  const after = at.query.get("after") ?? ""
  const lead = h("p", { class: "lead" }, "Asking…")
  const trouble = h("p", { class: "trouble", role: "alert" })
  const list = h("div")
  const orders = h("div")
  const element = h("div", null, h("h1", { tabindex: -1 }, "Connections"), lead, trouble, list, orders)
  const poll = new Poll(
    async signal => {
      const found = await get(path(["connections"], { after, limit: LIMIT }), signal)
      const { restrictions } = await get("access/restrictions?limit=100", signal)
      return { ...found, restrictions }
    },
    SECONDS,
    (answer, error) => {
      fill(trouble, error && sentence(`The list could not be read: ${inWords(error)}`))
      if (!answer) return
      fill(lead, summary(answer, state.cluster))
      fill(list, ...connections(answer, after, poll.now))
      fill(orders, restrictions(answer.restrictions, poll.now))
    },
  ).start()
  return { element, update: () => {}, close: () => poll.stop(), retry: poll.now }
}

function summary({ gateway }, { mode, gateways }) {
  const here = gateways.find(each => each.gateway_id === gateway)
  if (mode === "embedded") return `${count(here?.connections ?? 0, "client")} connected.`
  const others = gateways.length - 1
  const elsewhere =
    others === 1
      ? "; those of the other are on the page of its admin port"
      : `; those of the ${number(others)} others are on the pages of their admin ports`
  return [
    `${count(here?.connections ?? 0, "client")} connected to gateway `,
    code(brief(gateway)),
    `${others ? elsewhere : ""}.`,
  ]
}

function connections({ gateway, connections, next }, after, changed) {
  const columns = [
    { title: "Peer", cell: each => foreign(each.peer_id), kind: "wide" },
    {
      title: "Who",
      cell: each =>
        each.subject === null
          ? h("span", { class: "none" }, "no token")
          : [foreign(each.subject), h("small", null, foreign(each.issuer))],
      kind: "wide",
    },
    { title: "Address", cell: each => foreign(each.address) },
    { title: "Documents", cell: each => number(each.documents), kind: "number" },
    { title: "Connected", cell: each => duration(each.connected_seconds), kind: "number" },
    {
      title: "",
      cell: each =>
        h(
          "button",
          { onclick: () => askKick(gateway, each, changed) },
          "Kick…",
          h("span", { class: "unseen" }, " connection ", each.connection),
        ),
      kind: "act",
    },
  ]
  const empty = after ? "There are no more." : "Nobody is connected here."
  return [
    table({ caption: "Connections", columns, rows: connections, key: each => each.connection, empty }),
    h(
      "nav",
      { class: "pages", "aria-label": "Pages", key: "pages" },
      after && h("a", { href: "#/connections" }, "First page"),
      next && h("a", { href: `#/connections?after=${next}` }, "Next page"),
    ),
  ]
}

function askKick(gateway, { connection, peer_id, issuer, subject }, changed) {
  const once = "Close this connection; its client may come back at once"
  const choices = [["", once], ...(subject === null ? [] : KEEP_OUT)]
  const fields = choices.map(([value]) =>
    h("input", { type: "radio", name: "how", value, checked: value === "" }),
  )
  ask({
    title: "Kick a client?",
    body: [
      h("p", null, "Peer ", foreign(peer_id), subject !== null && [", user ", foreign(subject)]),
      h(
        "fieldset",
        null,
        h("legend", null, "What shall happen"),
        choices.map(([, text], number) => h("label", null, fields[number], text)),
      ),
    ],
    action: "Kick",
    isGrave: true,
    act: async () => {
      const seconds = Number(fields.find(each => each.checked).value)
      const body = seconds ? { issuer, subject, seconds } : { gateway, connection }
      const { closed_here: closed } = await call("POST", "access/kick", body)
      notice(`${count(closed, "connection")} closed at this gateway.`)
      changed()
    },
  })
}

function restrictions(found, changed) {
  if (!found.length) return null
  const lift = async id => {
    await call("DELETE", path(["access", "restrictions", id]))
    notice("It no longer holds.")
    changed()
  }
  const columns = [
    { title: "Who", cell: each => (each.subject === null ? "everybody" : foreign(each.subject)), kind: "wide" },
    { title: "What", cell: meaning, kind: "wide" },
    { title: "Until", cell: each => instant(each.until) },
    { title: "", cell: each => h("button", { onclick: () => lift(each.id) }, "Lift"), kind: "act" },
  ]
  return h(
    "section",
    { "aria-labelledby": "orders" },
    h("h2", { id: "orders" }, "Withdrawn access"),
    table({ caption: "Withdrawn access", columns, rows: found, key: each => each.id, empty: "" }),
  )
}

function meaning({ kind, access, document_id, ban }) {
  if (kind === "kick") return ban ? "kept out, with all tokens" : "kept out"
  const what = access === "none" ? "sees nothing of" : "may only read"
  return [`${what} `, document_id ? code(document_id) : "all documents"]
}
