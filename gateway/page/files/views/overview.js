// How it is: one sentence, what is wrong, the numbers that matter, how they went, and who is there.

import { fill, h } from "../dom.js"
import { Plot } from "../plot.js"
import { worst } from "../samples.js"
import { facts, table } from "../table.js"
import { brief, byteRate, bytes, code, count, foreign, latency, number, rate, visible } from "../text.js"

const BOTH_WAYS = name => [
  { name: `${name}_in`, label: "in" },
  { name: `${name}_out`, label: "out" },
]
const HALF_AND_MOST = name => [
  { name: `${name}_p50`, label: "p50" },
  { name: `${name}_p99`, label: "p99" },
]

/** See the module's text. */
export function open(state) {
  const plot = (title, series, format) => new Plot(title, series, format)
  const plots = [
    plot("Connections", [{ name: "connections", label: "" }], number),
    plot("Messages", BOTH_WAYS("messages"), rate),
    plot("Bytes", BOTH_WAYS("bytes"), byteRate),
    plot("Edit to disk", HALF_AND_MOST("disk"), latency),
    plot("Edit to peer", HALF_AND_MOST("peer"), latency),
  ]
  const top = h("div")
  const members = h("div")
  const element = h(
    "div",
    { class: "overview" },
    top,
    h(
      "section",
      { "aria-labelledby": "plots" },
      h("h2", { id: "plots" }, "Lately"),
      h("div", { class: "plots" }, plots.map(each => each.element)),
    ),
    members,
  )
  const update = () => {
    const { cluster, samples } = state
    fill(top, ...headline(cluster), problems(cluster), figures(cluster, samples.last))
    for (const each of plots) each.show(samples)
    fill(members, gateways(cluster), workers(cluster))
  }
  return { element, update }
}

/** How it is, with so many problems. */
export const verdict = wrong => (wrong ? `${count(wrong, "problem")} to look at.` : "All is well.")

function headline(cluster) {
  const wrong = cluster.problems.length
  const connected = cluster.gateways.reduce((sum, each) => sum + each.connections, 0)
  const owned = cluster.shards.filter(each => each.owner).length
  const waiting = cluster.shards.reduce((sum, each) => sum + each.lag_entries, 0)
  const disk = worst(cluster.workers, "edit_to_disk_p99_seconds")
  const at = cluster.mode === "embedded" ? "" : ` at ${count(cluster.gateways.length, "gateway")}`
  const on = cluster.mode === "embedded" ? "" : ` on ${count(cluster.workers.length, "worker")}`
  const are = owned === cluster.shards.length ? "" : `${number(owned)} of `
  const told = [
    `${count(connected, "client")} connected${at}.`,
    `${are}${count(cluster.shards.length, "shard")} served${on}.`,
    disk !== null && `An edit is on disk within ${latency(disk)}.`,
    waiting ? `${count(waiting, "message")} wait for a worker.` : null,
  ]
  return [
    h(
      "h1",
      { class: wrong ? "headline wrong" : "headline", tabindex: -1 },
      verdict(wrong),
    ),
    h("p", { class: "lead" }, told.filter(Boolean).join(" ")),
  ]
}

function problems(cluster) {
  if (!cluster.problems.length) return null
  return h(
    "section",
    { class: "problems", key: "problems", "aria-labelledby": "wrong" },
    h("h2", { id: "wrong", class: "unseen" }, "Problems"),
    h("ul", null, cluster.problems.map(each => h("li", null, h("bdi", null, visible(each))))),
  )
}

function figures(cluster, last) {
  const total = (all, name) => all.reduce((sum, each) => sum + (each[name] ?? 0), 0)
  return h(
    "section",
    { key: "figures", "aria-label": "Now" },
    facts([
      ["Connections", number(last.connections)],
      ["Messages in", rate(last.messages_in)],
      ["Messages out", rate(last.messages_out)],
      ["Edit to disk, p99", latency(last.disk_p99)],
      ["Edit to peer, p99", latency(last.peer_p99)],
      ["Documents in memory", number(total(cluster.workers, "documents"))],
    ]),
  )
}

function gateways({ gateways, gateway }) {
  const columns = [
    {
      title: "Gateway",
      cell: each => [
        code(brief(each.gateway_id)),
        each.gateway_id === gateway && h("span", { class: "tag" }, "answers you"),
      ],
    },
    { title: "Host", cell: each => foreign(each.host) },
    { title: "Address", cell: each => foreign(each.address) },
    { title: "State", cell: each => condition(each.state) },
    { title: "Version", cell: each => foreign(each.version) },
    { title: "Connections", cell: each => number(each.connections), kind: "number" },
    { title: "Loop lag", cell: each => latency(each.loop_lag_seconds), kind: "number" },
  ]
  return section("gateways", "Gateways", gateways, columns, "gateway_id", "No gateway is alive.")
}

function workers({ workers }) {
  const columns = [
    { title: "Worker", cell: each => code(brief(each.worker_id)) },
    { title: "Host", cell: each => foreign(each.host) },
    { title: "State", cell: each => condition(each.state) },
    { title: "Version", cell: each => foreign(each.version) },
    { title: "Shards", cell: each => number(each.shards), kind: "number" },
    { title: "Documents", cell: each => number(each.documents), kind: "number" },
    { title: "Memory", cell: each => bytes(each.document_bytes), kind: "number" },
    { title: "Commits", cell: each => number(each.commits), kind: "number" },
    { title: "Written", cell: each => bytes(each.committed_bytes), kind: "number" },
    { title: "Edit to disk, p99", cell: each => latency(each.edit_to_disk_p99_seconds), kind: "number" },
  ]
  return section("workers", "Workers", workers, columns, "worker_id", "No worker is alive.")
}

function condition(state) {
  const sign = h("i", { class: state === "serving" ? "dot ok" : "dot warn" })
  return state === "serving" ? h("span", { class: "sound" }, sign, " ", state) : [sign, " ", foreign(state)]
}

function section(id, title, rows, columns, key, empty) {
  return h(
    "section",
    { key: id, "aria-labelledby": id },
    h("h2", { id }, title),
    table({ caption: title, columns, rows, key: each => each[key], empty }),
  )
}
