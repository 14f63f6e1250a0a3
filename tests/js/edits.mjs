// Edits as data, and documents as plain JSON: what crosses the pipe to the Python side.

import * as A from "@automerge/automerge"
import { createHash, randomBytes } from "node:crypto"

const parentOf = (doc, path) => path.slice(0, -1).reduce((node, key) => node[key], doc)
const lastOf = path => path[path.length - 1]

const at = (doc, path) => path.reduce((node, key) => node?.[key], doc)

/**
 * Apply one edit inside a change callback.
 *
 * ["set", path, value] ["del", path] ["push", path, ...values] ["splice", path, index, delete, text]
 * ["counter", path, start] ["inc", path, by] ["bytes", path, size] (random) ["text", path, size]
 */
export function applyEdit(doc, [kind, path, ...args]) {
  const parent = parentOf(doc, path)
  const key = lastOf(path)
  switch (kind) {
    case "set":
      parent[key] = args[0]
      break
    case "del":
      delete parent[key]
      break
    case "push":
      parent[key].push(...args)
      break
    case "splice":
      A.splice(doc, path, args[0], args[1], args[2])
      break
    case "counter":
      parent[key] = new A.Counter(args[0])
      break
    case "inc":
      parent[key].increment(args[0])
      break
    case "bytes":
      parent[key] = new Uint8Array(randomBytes(args[0]))
      break
    case "text":
      parent[key] = randomBytes(Math.ceil((args[0] * 3) / 4))
        .toString("base64")
        .slice(0, args[0])
      break
    default:
      throw new Error(`unknown edit ${kind}`)
  }
}

/** Plain JSON of a document's value; byte strings become {$bytes: size, sha256: hex}. */
export function plain(value) {
  if (value instanceof Uint8Array) {
    return { $bytes: value.length, sha256: createHash("sha256").update(value).digest("hex") }
  }
  if (value instanceof A.Counter) return value.value
  if (value instanceof Date) return { $date: value.getTime() }
  if (Array.isArray(value)) return value.map(plain)
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
  }
  return value
}

/** Canonical JSON, so that objects compare equal whatever the order of their keys. */
export function canonical(value) {
  return JSON.stringify(value, (_, item) =>
    item !== null && typeof item === "object" && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => (a < b ? -1 : 1)))
      : item
  )
}

/** Does the document meet {path?, equals?, length?, contains?, heads?}; all named must hold. */
export function meets(doc, wanted) {
  const here = at(doc, wanted.path ?? [])
  if (wanted.equals !== undefined && canonical(plain(here)) !== canonical(wanted.equals)) {
    return false
  }
  if (wanted.length !== undefined && here?.length !== wanted.length) return false
  if (wanted.contains !== undefined) {
    const found = new Set(Array.from(here ?? [], item => canonical(plain(item))))
    if (!wanted.contains.every(item => found.has(canonical(item)))) return false
  }
  if (wanted.heads !== undefined && !sameHeads(A.getHeads(doc), wanted.heads)) return false
  return true
}

export const sameHeads = (a, b) => a.length === b.length && a.every(head => b.includes(head))

/** Cut long JSON for error messages. */
export const brief = value => {
  const text = JSON.stringify(value) ?? "undefined"
  return text.length > 400 ? `${text.slice(0, 400)}...` : text
}
