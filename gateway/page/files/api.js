// Calls of the admin port: the token, time limits, and errors that say what an operator can do.

import { token } from "./session.js"

const ROOT = "api/v1/"
const ANSWER_MS = 40_000 // the server gives up after 30
const FILE_MS = 600_000 // of many megabytes, over a slow line
const MOST_SHOWN_BYTES = 16_000_000

/**
 * A call that did not do what it should.
 *
 * `kind`: "token" (not accepted), "off" (the server has no calls), "away" (no answer at all),
 * "slow" (none in time), "large" (too large to be shown), "refused" (the server says why).
 */
export class Failure extends Error {
  constructor(kind, text, status = 0) {
    super(text)
    this.kind = kind
    this.status = status
  }
}

/** Whom to tell when a token is accepted no longer. */
export const watch = { refused: () => {} }

/** What a call returns: its JSON, or null; `body` is sent as JSON, or as bytes if it is a Blob. */
export async function call(method, path, body, signal) {
  const response = await ask(method, path, body, signal)
  if (response.status === 204) return null
  return read(() => response.json())
}

/** GET. */
export const get = (path, signal) => call("GET", path, undefined, signal)

/** A path below the API's root; what is given for `query` and is not empty is added. */
export function path(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null)
  const text = new URLSearchParams(given).toString()
  return parts.map(encodeURIComponent).join("/") + (text && `?${text}`)
}

/** The text of an answer; Failure "large" if there is more than can be shown. */
export async function getText(path, signal) {
  const response = await ask("GET", path, undefined, signal, FILE_MS)
  return read(async () => {
    const decoder = new TextDecoder()
    const reader = response.body.getReader()
    let text = ""
    for (let size = 0; ; ) {
      const { done, value } = await reader.read()
      if (done) return text + decoder.decode()
      size += value.length
      if (size > MOST_SHOWN_BYTES) {
        await reader.cancel()
        throw new Failure("large", "it is too large to be shown here; download it")
      }
      text += decoder.decode(value, { stream: true })
    }
  })
}

/** Save an answer as a file of this name. */
export async function download(path, name) {
  const response = await ask("GET", path, undefined, undefined, FILE_MS)
  const url = URL.createObjectURL(await read(() => response.blob()))
  const link = document.createElement("a")
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

async function ask(method, path, body, signal, milliseconds = ANSWER_MS) {
  const headers = { Authorization: `Bearer ${token() ?? ""}`, Accept: "application/json, */*" }
  const isFile = body instanceof Blob
  if (body !== undefined) {
    headers["Content-Type"] = isFile ? "application/octet-stream" : "application/json"
  }
  const limit = AbortSignal.timeout(isFile ? FILE_MS : milliseconds)
  const response = await read(() =>
    fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined || isFile || typeof body === "string" ? body : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    }),
  )
  if (response.ok) return response
  throw await failure(response)
}

/** Network errors as failures; what the caller has stopped stays an AbortError. */
async function read(what) {
  try {
    return await what()
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error
    if (error.name === "TimeoutError") throw new Failure("slow", "the server has not answered in time")
    throw new Failure("away", "the server does not answer")
  }
}

async function failure(response) {
  const problem = await response.json().catch(() => null)
  const { status } = response
  if (status === 401) {
    watch.refused()
    return new Failure("token", "the token is not accepted", status)
  }
  if (problem === null && status === 404) {
    return new Failure("off", "the server has no such call", status)
  }
  const text = problem?.detail || problem?.title || `it answers with status ${status}`
  return new Failure("refused", text, status)
}

/** Any error, in words that end a sentence. */
export const inWords = error => error.message || String(error)
