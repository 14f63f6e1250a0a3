// A value as a tree: what is folded is not in the page, long lists and texts come in parts.
//
// So a document of many megabytes costs what is looked at of it.

import { fill, h } from "./dom.js"
import { count, number, visible } from "./text.js"

const ENTRIES = 100
const FIRST_CHARACTERS = 400
const MORE_CHARACTERS = 10_000
/** So few entries are shown unfolded at the top. */
const UNFOLDED = 20

/** A number whose digits JavaScript can't hold. */
class Long {
  constructor(digits) {
    this.digits = digits
  }
}

/** JSON with all digits of its numbers, where the browser can tell them. */
export function parse(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text)
  return JSON.parse(text, (_key, value, context) =>
    typeof value === "number" && context?.source && String(value) !== context.source
      ? exact(value, context.source)
      : value,
  )
}

const exact = (value, source) =>
  Number.isInteger(value) && !Number.isSafeInteger(value) ? new Long(source) : value

/** A tree that remembers what was folded and unfolded when its value changes. */
export class Tree {
  #unfolded = new Map()
  element = h("div", { class: "tree" })

  show(value) {
    const entries = inside(value)
    this.element.replaceChildren(entries ? this.#list(entries, "") : h("p", null, scalar(value)))
  }

  #list(entries, path) {
    const list = h("ul")
    const more = h("button", { type: "button", class: "more" })
    let shown = 0
    const add = () => {
      const first = shown
      const until = Math.min(entries.length, shown + ENTRIES)
      while (shown < until) list.append(this.#entry(entries, shown++, path))
      const left = entries.length - shown
      more.textContent = left > ENTRIES ? `${ENTRIES} more of ${number(left)}` : `${left} more`
      if (!left) more.remove()
      return list.children[first]
    }
    add()
    more.onclick = () => focusIn(add())
    if (!entries.length) list.append(h("li", { class: "none" }, "nothing in it"))
    return h("div", null, list, shown < entries.length && more)
  }

  #entry(entries, index, path) {
    const [name, value] = entries.at(index)
    const label = [h("bdi", { class: "name" }, named(name)), h("span", { class: "none" }, ":")]
    const inner = inside(value)
    if (!inner) return h("li", { tabindex: -1 }, label, " ", scalar(value))
    const here = `${path}/${String(name).replaceAll("~", "~0").replaceAll("/", "~1")}`
    const kind = h("span", { class: "none" }, inner.kind)
    const details = h("details", null, h("summary", null, label, " ", kind))
    const isFew = path === "" && entries.length <= UNFOLDED && inner.length <= UNFOLDED
    const grow = () => {
      this.#unfolded.set(here, details.open)
      if (details.open && !details.querySelector("ul")) details.append(this.#list(inner, here))
    }
    if (this.#unfolded.get(here) ?? isFew) {
      details.open = true
      grow()
    }
    details.ontoggle = grow
    return h("li", null, details)
  }
}

/** What is in a list or a map: how much, the entry at a place, and what it is; or undefined. */
function inside(value) {
  if (Array.isArray(value)) {
    const { length } = value
    return { length, at: index => [index, value[index]], kind: `list of ${count(length, "item")}` }
  }
  if (value === null || typeof value !== "object" || value instanceof Long) return undefined
  const names = Object.keys(value)
  const { length } = names
  return { length, at: index => [names[index], value[names[index]]], kind: count(length, "key") }
}

function named(name) {
  if (typeof name === "number") return number(name)
  if (name === "") return h("span", { class: "mark" }, "empty")
  return visible(name.length > FIRST_CHARACTERS ? `${name.slice(0, FIRST_CHARACTERS)}…` : name)
}

function scalar(value) {
  if (typeof value === "string") return text(value)
  if (value instanceof Long) return h("span", { class: "value-number" }, value.digits)
  return h("span", { class: `value-${value === null ? "null" : typeof value}` }, String(value))
}

function text(value) {
  const shown = h("span", { class: "value-string" })
  let until = 0
  const more = h("button", { type: "button", class: "more" })
  const add = characters => {
    const from = until
    until = Math.min(value.length, until + characters)
    // A pair of surrogates is one character.
    if (until < value.length && /[\ud800-\udbff]/.test(value[until - 1])) until += 1
    shown.append(...visible(value.slice(from, until)))
    const left = value.length - until
    const part = left > MORE_CHARACTERS ? `${number(MORE_CHARACTERS)} more of ` : ""
    more.textContent = `${part}${number(left)} ${part ? "" : "more "}characters`
    if (!left) more.remove()
  }
  add(FIRST_CHARACTERS)
  more.onclick = () => add(MORE_CHARACTERS)
  const quote = sign => h("span", { class: "none" }, sign)
  const quoted = h("bdi", null, quote("“"), shown, quote("”"))
  return until < value.length ? [quoted, " ", more] : quoted
}

function focusIn(item) {
  const place = item?.querySelector("summary") ?? item
  place?.focus()
}
