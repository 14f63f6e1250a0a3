// Why a connect was refused. A browser doesn't tell a page the status with which an upgrade was
// refused; amsync answers a plain GET of the same address with the same token in the same way.

import { within } from "./timing.js"

const MAX_TEXT_BYTES = 1000
const MAX_WAIT_MS = 60 * 60 * 1000

/** The server's reasons for a 401 or 403 that is neither the token's fault nor anybody's. */
const PASSING = [
  "keys unavailable",
  "internal",
  "not verified",
  "token not yet valid",
  "validator failed",
]

/**
 * @typedef {object} Verdict
 * @property {"good" | "refused" | "forbidden" | "busy" | "unavailable" | "unknown"} verdict
 *   What the server thinks of the token; "unknown" also when it couldn't be asked.
 * @property {string} [detail] What the server said.
 * @property {number} [leastMs] Come back no earlier.
 */

/**
 * Ask the server what is wrong. Never rejects.
 *
 * @param {string} url Of the WebSocket.
 * @param {string} token
 * @param {{ fetch: typeof fetch, ms: number, signal: AbortSignal }} options
 * @returns {Promise<Verdict>}
 */
export async function probe(url, token, { fetch, ms, signal }) {
  try {
    return await within(ms, signal, async inner => {
      const answer = await fetch(url.replace(/^ws/, "http"), {
        headers: { Authorization: `Bearer ${token}` },
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: inner,
      })
      return judge(answer, await textOf(answer))
    })
  } catch {
    return { verdict: "unknown" }
  }
}

/**
 * @param {Response} answer
 * @param {string} detail
 * @returns {Verdict}
 */
function judge(answer, detail) {
  const leastMs = retryAfter(answer.headers.get("Retry-After"))
  const isPassing = PASSING.includes(detail)
  switch (answer.status) {
    case 401:
      return { verdict: isPassing ? "unavailable" : "refused", detail }
    case 403:
      return { verdict: isPassing ? "unavailable" : "forbidden", detail }
    case 429:
      return { verdict: "busy", detail, leastMs }
    case 503:
      return { verdict: "unavailable", detail, leastMs }
    default:
      return answer.ok ? { verdict: "good" } : { verdict: "unknown", detail }
  }
}

/**
 * @param {string | null} value Seconds, or a date.
 * @returns {number}
 */
function retryAfter(value) {
  if (value === null) return 0
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_WAIT_MS) : 0
}

/**
 * The line that amsync explains a refusal with; "" for anything longer or else.
 *
 * @param {Response} answer
 * @returns {Promise<string>}
 */
async function textOf(answer) {
  const length = Number(answer.headers.get("Content-Length") ?? Infinity)
  const isLine = (answer.headers.get("Content-Type") ?? "").startsWith("text/plain")
  if (isLine && length <= MAX_TEXT_BYTES) return (await answer.text()).trim()
  await answer.body?.cancel()
  return ""
}
