// A real browser with pages in it, commanded by JSON lines as driver.mjs is.
//
// argv: the browser's program, and the public keys whose certificates it shall trust besides those
// that it trusts anyway (base64 of the SHA-256 of each, joined by commas).
// In:  {id, command, args}       Out: {id, ok: true, result} | {id, ok: false, error}

import { contrasts } from "./contrast.mjs"
import { build } from "esbuild"
import { chromium } from "playwright-core"
import { fileURLToPath } from "node:url"
import readline from "node:readline"
import { setTimeout } from "node:timers/promises"

const POLL_MS = 25
const MOST_SHOWN = 3000

const [executablePath, trustedKeys] = process.argv.slice(2)
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${trustedKeys}`],
})
let context = await browser.newContext({ viewport: { width: 900, height: 700 } })
let page
let sockets = []
let complaints = []
let logged = []
let release = () => {}

/** There is nothing yet that could be asked. */
const isLoading = ({ message }) => /context was destroyed|of null \(reading/.test(message)

/** Texts that begin so. */
const starting = text => new RegExp(`^${text.replace(/[^\w ]/g, "\\$&")}`)

/** Where a user can do anything: in a dialog, if there is one. */
async function seen() {
  const dialog = page.locator("dialog[open]")
  return (await dialog.count()) ? dialog : page
}

const commands = {
  /** The application of page/, as one file for the browser. */
  async bundle() {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL("page/page.js", import.meta.url))],
      bundle: true,
      format: "esm",
      platform: "browser",
      // automerge's own answer for bundlers that can't load WebAssembly: it is in the JavaScript.
      conditions: ["webpack"],
      write: false,
      logLevel: "silent",
    })
    return outputFiles[0].text
  },

  async open({ url }) {
    await page?.close()
    page = await context.newPage()
    sockets = []
    complaints = []
    logged = []
    page.on("pageerror", error => complaints.push(String(error?.stack ?? error)))
    page.on("console", message => logged.push(message.text()))
    page.on("websocket", socket => {
      const counts = { url: socket.url(), sent: 0, received: 0, closed: false }
      sockets.push(counts)
      socket.on("framesent", () => (counts.sent += 1))
      socket.on("framereceived", () => (counts.received += 1))
      socket.on("close", () => (counts.closed = true))
    })
    await page.goto(url)
  },

  /** The value of an expression in the page. */
  async evaluate({ expression }) {
    for (;;) {
      try {
        return await page.evaluate(expression)
      } catch (error) {
        if (!isLoading(error)) throw error
        await page.waitForLoadState()
      }
    }
  },

  /**
   * Return the value of an expression in the page once it is neither false nor nothing.
   *
   * Asked from here: a page whose policy forbids eval can't be told to wait by itself.
   */
  async wait({ expression, timeoutMs }) {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      const found = await page.evaluate(expression).catch(error => {
        if (!isLoading(error)) throw error
      })
      if (found) return found
      if (performance.now() > deadline) break
      await setTimeout(POLL_MS)
    }
    const shown = await page.evaluate(
      "globalThis.app ? JSON.stringify([app.statuses, app.asked]) : document.body.innerText",
    )
    throw new Error(`not in time: ${expression}; found ${shown.slice(0, MOST_SHOWN)}`)
  },

  sockets: () => sockets,
  complaints: () => complaints,
  logged: () => logged,
  screenshot: ({ path, fullPage }) => page.screenshot({ path, fullPage }),

  /** From now on, pages are seen so: width, height, colorScheme, reducedMotion, hasTouch. */
  async see({ width, height, ...more }) {
    await context.close()
    context = await browser.newContext({ viewport: { width, height }, ...more })
    page = undefined
  },

  /** What a user does; elements are found as one would tell them on the telephone. */
  click: async ({ role, name }) => (await seen()).getByRole(role, { name: starting(name) }).first().click(),
  fill: async ({ label, text }) => (await seen()).getByLabel(label).fill(text),
  upload: ({ label, path }) => page.getByLabel(label).setInputFiles(path),
  press: ({ key }) => page.keyboard.press(key),
  type: ({ text }) => page.keyboard.type(text),
  back: () => page.goBack(),
  async download({ role, name, path }) {
    const waiting = page.waitForEvent("download")
    await page.getByRole(role, { name: starting(name) }).first().click()
    const download = await waiting
    await download.saveAs(path)
    return download.suggestedFilename()
  },

  /** Requests whose path ends so get no answer until `release`. */
  async hold({ ending }) {
    const released = new Promise(resolve => (release = resolve))
    await page.route(
      url => url.pathname.endsWith(ending),
      async route => {
        await released
        await route.continue().catch(() => {})
      },
    )
  },
  async release() {
    release()
    await page.unrouteAll({ behavior: "ignoreErrors" })
  },

  contrasts: () => page.evaluate(contrasts),
  version: () => browser.version(),
}

const answer = message => process.stdout.write(`${JSON.stringify(message)}\n`)

readline
  .createInterface({ input: process.stdin })
  .on("line", async line => {
    const { id, command, args } = JSON.parse(line)
    try {
      answer({ id, ok: true, result: (await commands[command](args)) ?? null })
    } catch (error) {
      answer({ id, ok: false, error: String(error?.stack ?? error) })
    }
  })
  .on("close", async () => {
    await browser.close()
    process.exit(0)
  })

answer({ ready: true })
