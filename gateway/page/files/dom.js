// Elements. What is shown is made anew as often as anything changes, and `fill` brings the page
// up to date with it: elements that stay keep their focus, and what the reader has unfolded.
//
// Text is only ever text: nothing here, nor elsewhere in the page, reads HTML.

const SVG = "http://www.w3.org/2000/svg"
const HANDLERS = ["onclick", "onsubmit", "oninput", "onchange", "onkeydown", "onfocus"]

/** An element: attributes and handlers by name; false, null and undefined are left out. */
export const h = (tag, props, ...children) =>
  made(document.createElement(tag), props ?? {}, children)

/** The same for SVG. */
export const svg = (tag, props, ...children) =>
  made(document.createElementNS(SVG, tag), props ?? {}, children)

const isNothing = value => value === false || value === null || value === undefined

function made(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element[name] = value
    else if (!isNothing(value)) element.setAttribute(name, value === true ? "" : String(value))
  }
  element.append(...children.flat(Infinity).filter(each => !isNothing(each)))
  return element
}

/** Make these the children of an element; `key` among the attributes says what is the same. */
export function fill(element, ...children) {
  renew(element, h("div", null, children))
}

function renew(old, fresh) {
  const wanted = new Set([...fresh.children].map(keyOf))
  const known = new Map()
  for (const child of [...old.children]) {
    const key = keyOf(child)
    if (key === null) continue
    // Removed first: moving what stays would take the focus from it.
    if (wanted.has(key)) known.set(key, child)
    else child.remove()
  }
  let place = old.firstChild
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child)
    const found = key === null ? place : known.get(key)
    if (!found || found.nodeName !== child.nodeName || keyOf(found) !== key) {
      old.insertBefore(child, place)
      continue
    }
    if (found === place) place = place.nextSibling
    else old.insertBefore(found, place)
    update(found, child)
  }
  while (place) {
    const next = place.nextSibling
    place.remove()
    place = next
  }
}

const keyOf = node => node.getAttribute?.("key") ?? null

function update(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data
    return
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) {
      old.removeAttribute(name)
    }
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value)
  }
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name]
  renew(old, fresh)
}
