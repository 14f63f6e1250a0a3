// How numbers, times and text of others are shown.

import { h } from "./dom.js"

// Controls, what formats (among it all that turns the direction), private and lone surrogates,
// separators of lines, and letters that look like nothing.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]/gu
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }
const MOST_CHARACTERS = 160

/** Text with everything in it visible: strings, and marks for what would not be seen. */
export function visible(text) {
  const shown = []
  let from = 0
  for (const { 0: character, index } of text.matchAll(HIDDEN)) {
    if (index > from) shown.push(text.slice(from, index))
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")
    shown.push(h("span", { class: "mark" }, SHORT[character] ?? `U+${code}`))
    from = index + character.length
  }
  if (from < text.length) shown.push(text.slice(from))
  return shown
}

/** Somebody's text, which turns nothing around it; the end of a long one is left out. */
export function foreign(text, most = MOST_CHARACTERS) {
  if (text === null || text === undefined || text === "") return h("span", { class: "none" }, "none")
  const shown = String(text)
  const left = shown.length - most
  const end = left > 0 ? h("span", { class: "none" }, `… ${number(left)} more`) : null
  return h("bdi", null, visible(shown.slice(0, most)), end)
}

/** An id, which may break anywhere. */
export const code = text => h("code", null, foreign(text))

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })

/** A count. */
export const number = value => (isNumber(value) ? WHOLE.format(value) : "–")

/** How many of something. */
export const count = (value, one, many = `${one}s`) =>
  `${number(value)} ${value === 1 ? one : many}`

/** So many a second. */
export function rate(value) {
  if (!isNumber(value)) return "–"
  return `${(value < 100 ? TENTHS : WHOLE).format(value)}/s`
}

/** A size: 999 B, 1.5 KB, 20 MB; thousands, not 1,024. */
export function bytes(value) {
  if (!isNumber(value)) return "–"
  const units = ["B", "KB", "MB", "GB", "TB"]
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit += 1
  }
  return `${(value < 10 && unit ? TENTHS : WHOLE).format(value)} ${units[unit]}`
}

/** Bytes a second. */
export const byteRate = value => (isNumber(value) ? `${bytes(value)}/s` : "–")

/** A short time, given in seconds: 0.4 ms, 12 ms, 1.2 s. */
export function latency(seconds) {
  if (!isNumber(seconds)) return "–"
  const ms = seconds * 1000
  if (ms >= 1000) return `${TENTHS.format(seconds)} s`
  return `${(ms < 10 ? TENTHS : WHOLE).format(ms)} ms`
}

/** A longer time, given in seconds: 12 s, 5 min, 3 h 20 min, 4 d 2 h. */
export function duration(seconds) {
  if (!isNumber(seconds)) return "–"
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  const days = Math.floor(hours / 24)
  if (days) return `${days} d ${hours % 24} h`
  if (hours) return `${hours} h ${minutes % 60} min`
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`
}

/** An instant: ISO 8601 text, or seconds since 1970. */
export function instant(value) {
  const date = new Date(isNumber(value) ? value * 1000 : value)
  if (Number.isNaN(date.getTime())) return "–"
  return h(
    "time",
    { datetime: date.toISOString() },
    date.toLocaleString("sv", { dateStyle: "short", timeStyle: "medium" }),
  )
}

/** The beginning of a long random id, which is enough to tell it from others. */
export const brief = id => (/^[0-9a-f]{32}$/.test(id) ? id.slice(0, 8) : id)

const isNumber = value => typeof value === "number" && Number.isFinite(value)
