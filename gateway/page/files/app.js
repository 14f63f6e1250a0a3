// The page: who is signed in, which view is shown, and what the cluster says of itself.
//
// Everything comes from the calls of docs/api.md. /cluster is asked all the time; a view asks for
// what else it needs.

import { Failure, get, inWords, watch } from "./api.js"
import { clearNotices, notice, say, sentence } from "./dialog.js"
import { fill, h } from "./dom.js"
import { Poll } from "./poll.js"
import { Samples } from "./samples.js"
import * as session from "./session.js"
import { count, foreign } from "./text.js"
import * as connections from "./views/connections.js"
import * as oneDocument from "./views/document.js"
import * as documents from "./views/documents.js"
import * as overview from "./views/overview.js"
import * as quarantine from "./views/quarantine.js"
import * as shards from "./views/shards.js"
import { signIn } from "./views/signin.js"

const CLUSTER_SECONDS = 2
const LATE_MS = 5_000

const VIEWS = [
  ["overview", "Overview", overview],
  ["shards", "Shards", shards],
  ["documents", "Documents", documents],
  ["connections", "Connections", connections],
  ["quarantine", "Quarantine", quarantine],
]

const header = document.querySelector("#header")
const main = document.querySelector("#main")

/** What views get: the newest answer of /cluster, or null, and what was sampled of them. */
const state = { cluster: null, samples: new Samples() }
let poll = null
let view = null
let trouble = null // of the newest question
let isLate = false
let firstVersion = null

// -- signing in and out

/** `isAsked`: somebody has just given the token, and the focus was in the form. */
function begin(isAsked) {
  fill(main, h("p", { class: "alone" }, "Asking the server…"))
  let late = 0
  poll = new Poll(
    signal => {
      clearTimeout(late)
      late = setTimeout(() => setLate(true), LATE_MS)
      return get("cluster", signal)
    },
    CLUSTER_SECONDS,
    (cluster, error) => {
      clearTimeout(late)
      setLate(false)
      hear(cluster, error, isAsked)
    },
  ).start()
  showHeader()
}

function end(why) {
  poll?.stop()
  poll = null
  leave()
  session.forget()
  Object.assign(state, { cluster: null, samples: new Samples() })
  trouble = null
  firstVersion = null
  clearNotices()
  showHeader()
  document.title = "Sign in – amsync"
  const given = token => {
    session.keep(token)
    begin(true)
  }
  fill(main, signIn(why, given))
  main.querySelector("#token").focus()
}

watch.refused = () => {
  // Also by a call of a view that was under way when somebody signed out.
  if (poll) end(state.cluster ? "The token is no longer accepted." : "This token is not accepted.")
}

// -- what the server says

function hear(cluster, error, isAsked) {
  if (!poll) return
  if (error instanceof Failure && error.kind === "off") {
    end("This server takes no token: it was started without an admin token (--admin-token).")
    return
  }
  const wasInTrouble = trouble !== null
  trouble = error ?? null
  if (error) {
    if (!wasInTrouble) say(sentence(inWords(error)))
  } else {
    const wrong = cluster.problems.length
    if (state.cluster && wrong !== state.cluster.problems.length) say(overview.verdict(wrong))
    state.cluster = cluster
    state.samples.take(cluster, performance.now() / 1000)
    firstVersion ??= cluster.version
    if (wasInTrouble) {
      say("The server answers again.")
      view?.retry?.()
    }
  }
  showHeader()
  if (!view && state.cluster) show(isAsked)
  else if (!view) fill(main, h("p", { class: "alone" }, sentence(inWords(error))))
  else if (!error) view.update()
  main.classList.toggle("stale", trouble !== null && view !== null)
}

function setLate(value) {
  if (isLate === value) return
  isLate = value
  showHeader()
}

// -- views

/** The place that the address names: the view's name, what follows it, and what is asked for. */
function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?")
  const [name, ...rest] = path.split("/")
  const more = rest.length ? decoded(rest.join("/")) : null
  return { name: name || "overview", more, query: new URLSearchParams(query ?? "") }
}

function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function show(isMoved) {
  leave()
  const at = route()
  const [name, title, module] = VIEWS.find(([name]) => name === at.name) ?? VIEWS[0]
  const isDocument = name === "documents" && at.more
  view = (isDocument ? oneDocument : module).open(state, at)
  document.title = `${isDocument ? at.more : title} – amsync`
  main.replaceChildren(view.element)
  view.update()
  showHeader()
  if (!isMoved) return
  scrollTo(0, 0)
  main.querySelector("h1").focus({ preventScroll: true })
}

function leave() {
  view?.close?.()
  view = null
}

addEventListener("hashchange", () => {
  if (session.takeFromAddress()) {
    poll?.stop()
    leave()
    begin(true)
    return
  }
  if (!state.cluster) return
  clearNotices()
  show(true)
})

// -- the header

function showHeader() {
  const cluster = state.cluster
  const at = route().name
  const current = VIEWS.some(([name]) => name === at) ? at : "overview"
  const link = ([name, title]) =>
    h(
      "a",
      { href: `#/${name}`, key: name, "aria-current": name === current ? "page" : null },
      title,
      name === "overview" && cluster?.problems.length
        ? h("span", { class: "badge", "aria-label": count(cluster.problems.length, "problem") }, cluster.problems.length)
        : null,
    )
  fill(
    header,
    h(
      "div",
      { class: "bar", key: "bar" },
      h("a", { class: "brand", href: "#/overview" }, h("img", { src: "page/icon.svg", alt: "" }), "amsync"),
      cluster && h("span", { class: "where", key: "where" }, where(cluster)),
      poll && h("span", { class: "pulse", key: "pulse" }, ...pulse()),
      poll &&
        h(
          "button",
          { class: "quiet", key: "out", onclick: () => end("You have signed out.") },
          "Sign out",
        ),
    ),
    cluster && h("nav", { "aria-label": "Views", key: "nav" }, VIEWS.map(link)),
    trouble && cluster && banner(inWords(trouble)),
    cluster && firstVersion !== cluster.version && upgraded(cluster.version),
  )
}

const where = ({ mode, cluster_id, version }) => [
  mode === "embedded" ? "one process" : ["cluster ", foreign(cluster_id.slice(0, 8))],
  " · ",
  foreign(version),
]

function pulse() {
  const sign = kind => h("i", { class: `dot ${kind}` })
  if (trouble) return [sign("bad"), "no answer"]
  if (isLate) return [sign("warn"), "waiting"]
  return state.cluster ? [sign("ok"), "live"] : [sign("warn"), "asking"]
}

function banner(words) {
  return h(
    "div",
    { class: "banner bad", key: "trouble" },
    h("p", null, `${sentence(words)} What is shown is the last that was heard; it is tried again.`),
    h("button", { onclick: () => poll.now() }, "Try now"),
  )
}

function upgraded(version) {
  return h(
    "div",
    { class: "banner", key: "upgraded" },
    h("p", null, `The server is now version ${version}.`),
    h("button", { onclick: () => location.reload() }, "Load its page"),
  )
}

addEventListener("unhandledrejection", event => {
  if (event.reason instanceof Failure) {
    event.preventDefault()
    if (event.reason.kind !== "token") notice(sentence(inWords(event.reason)))
  }
})

session.takeFromAddress()
if (session.token() === null) end("")
else begin(false)
