// Which worker owns which shard, and how far behind it is: as squares, or as a table.

import { fill, h } from "../dom.js"
import { table } from "../table.js"
import { brief, bytes, code, count, foreign, number } from "../text.js"

/** See the module's text. */
export function open(state, at) {
  const isTable = at.query.get("as") === "table"
  const body = h("div")
  const lead = h("p", { class: "lead" })
  const switched = (name, isOn, text) =>
    h("a", { href: `#/shards${name}`, "aria-current": isOn ? "true" : null }, text)
  const element = h(
    "div",
    null,
    h(
      "div",
      { class: "head" },
      h("h1", { tabindex: -1 }, "Shards"),
      h(
        "div",
        { class: "switch", role: "group", "aria-label": "Shown as" },
        switched("", !isTable, "Squares"),
        switched("?as=table", isTable, "Table"),
      ),
    ),
    lead,
    body,
  )
  let chosen = null
  const choose = shard => {
    chosen = shard
    update()
  }
  const update = () => {
    const { shards } = state.cluster
    fill(lead, summary(state.cluster))
    fill(body, isTable ? rows(shards) : groups(state.cluster, chosen, choose))
  }
  return { element, update }
}

function summary({ shards }) {
  const free = shards.filter(each => !each.owner).length
  const late = shards.filter(each => each.lag_entries > 0)
  const waiting = late.reduce((sum, each) => sum + each.lag_entries, 0)
  const owners = free ? `${number(free)} of ${count(shards.length, "shard")} without an owner.` : `${count(shards.length, "shard")}, each with an owner.`
  const lag = late.length
    ? `${count(waiting, "message")} not yet done in ${count(late.length, "shard")}: the filled squares.`
    : "Nothing waits to be done."
  return `${owners} ${lag}`
}

// -- squares

function groups({ shards, workers }, chosen, choose) {
  const owners = new Map(workers.map(each => [each.worker_id, []]))
  for (const each of shards) {
    if (!owners.has(each.owner)) owners.set(each.owner, [])
    owners.get(each.owner).push(each)
  }
  const hosts = new Map(workers.map(each => [each.worker_id, each.host]))
  const nobody = owners.get("")
  owners.delete("")
  return [
    nobody && group("", "Nobody", nobody, chosen, choose),
    [...owners].map(([owner, owned]) =>
      group(owner, [code(brief(owner)), " ", foreign(hosts.get(owner))], owned, chosen, choose),
    ),
  ]
}

function group(owner, name, shards, chosen, choose) {
  const sum = field => shards.reduce((total, each) => total + each[field], 0)
  const focusable = shards.find(each => each.shard === chosen) ?? shards[0]
  const shown = shards.find(each => each.shard === chosen)
  return h(
    "section",
    { class: owner ? "owner" : "owner nobody", key: `owner-${owner}` },
    h("h2", null, name),
    h(
      "p",
      { class: "hint" },
      `${count(shards.length, "shard")}, ${count(sum("documents"), "document")} in memory, `,
      `lag ${number(sum("lag_entries"))} (${bytes(sum("lag_bytes"))})`,
    ),
    h(
      "div",
      {
        class: "squares",
        role: "listbox",
        "aria-label": `Shards of ${owner ? brief(owner) : "nobody"}; arrow keys choose one`,
        onkeydown: event => step(event),
      },
      shards.map(each => square(each, each === focusable, each.shard === chosen, choose)),
    ),
    h("p", { class: "chosen", "aria-live": "polite" }, shown ? told(shown) : null),
  )
}

function square(shard, isFocusable, isChosen, choose) {
  const late = shard.lag_entries
  return h(
    "div",
    {
      class: late ? "square late" : "square",
      key: shard.shard,
      role: "option",
      tabindex: isFocusable ? 0 : -1,
      "aria-selected": String(isChosen),
      "aria-label": told(shard),
      "data-lag": late ? short(late) : null,
      onclick: () => choose(shard.shard),
      onfocus: () => choose(shard.shard),
    },
    shard.shard,
  )
}

const told = ({ shard, epoch, documents, lag_entries, lag_bytes }) =>
  `Shard ${shard}: epoch ${number(epoch)}, ${count(documents, "document")} in memory, ` +
  (lag_entries ? `${count(lag_entries, "message")} (${bytes(lag_bytes)}) not yet done.` : "no lag.")

const short = value => (value < 1000 ? String(value) : `${Math.min(99, Math.round(value / 1000))}k`)

function step(event) {
  const here = event.target.closest(".square")
  const all = [...event.currentTarget.children]
  const at = all.indexOf(here)
  const inRow = all.filter(each => each.offsetTop === all[0].offsetTop).length
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -inRow, ArrowDown: inRow }
  const to = { Home: 0, End: all.length - 1 }[event.key] ?? at + (moves[event.key] ?? NaN)
  if (at < 0 || Number.isNaN(to)) return
  event.preventDefault()
  all[to]?.focus()
}

// -- table

function rows(shards) {
  const columns = [
    { title: "Shard", cell: each => number(each.shard) },
    { title: "Worker", cell: each => (each.owner ? code(brief(each.owner)) : h("b", null, "nobody")) },
    { title: "Epoch", cell: each => number(each.epoch), kind: "number spare" },
    { title: "Documents", cell: each => number(each.documents), kind: "number" },
    { title: "Lag, messages", cell: each => number(each.lag_entries), kind: "number" },
    { title: "Lag, bytes", cell: each => bytes(each.lag_bytes), kind: "number" },
  ]
  const worstFirst = (one, other) =>
    Boolean(one.owner) - Boolean(other.owner) ||
    other.lag_entries - one.lag_entries ||
    one.shard - other.shard
  return table({
    caption: "Shards, those without an owner and the latest first",
    columns,
    rows: [...shards].sort(worstFirst),
    key: each => each.shard,
    empty: "There are no shards yet.",
    isCompact: true,
  })
}
