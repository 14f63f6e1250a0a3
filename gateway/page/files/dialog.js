// Questions before something is done, and news after it.

import { inWords } from "./api.js"
import { fill, h } from "./dom.js"

/**
 * Ask, do, and close; what goes wrong is said in the dialog, where it can be tried again.
 *
 * @param {object} question
 * @param {string} question.title
 * @param {unknown[]} question.body
 * @param {string} question.action What the button says.
 * @param {boolean} [question.isGrave] It can't be taken back.
 * @param {() => boolean} [question.isReady] Asked at each input; the button waits for it.
 * @param {() => Promise<void>} question.act
 */
export function ask({ title, body, action, isGrave = false, isReady = () => true, act }) {
  const before = document.activeElement
  const trouble = h("p", { class: "trouble", role: "alert" })
  const button = h("button", { class: isGrave ? "grave" : "main" }, action)
  const cancel = h("button", { type: "button" }, "Cancel")
  const form = h(
    "form",
    null,
    h("h2", { id: "dialog-title" }, title),
    body,
    trouble,
    h("div", { class: "buttons" }, cancel, button),
  )
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form)
  const look = () => (button.disabled = !isReady())
  form.oninput = look
  form.onchange = look
  form.onsubmit = async event => {
    event.preventDefault()
    if (button.disabled) return
    fill(trouble)
    button.disabled = true
    button.setAttribute("aria-busy", "true")
    try {
      await act()
      dialog.close()
    } catch (error) {
      fill(trouble, sentence(inWords(error)))
      button.removeAttribute("aria-busy")
      look()
    }
  }
  cancel.onclick = () => dialog.close()
  dialog.onclose = () => {
    dialog.remove()
    if (before?.isConnected) before.focus()
  }
  look()
  document.body.append(dialog)
  dialog.showModal()
}

/** Say something that happened; it stays until it is closed, or another view is opened. */
export function notice(...text) {
  const close = h("button", { class: "quiet", onclick: clearNotices }, "Close")
  fill(document.querySelector("#notices"), h("div", { class: "notice" }, h("p", null, text), close))
  say(document.querySelector("#notices p").textContent)
}

/** Take it away. */
export const clearNotices = () => fill(document.querySelector("#notices"))

/** Say something to those who don't see it. */
export const say = text => (document.querySelector("#spoken").textContent = text)

/** Words as a sentence. */
export const sentence = words =>
  words ? words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".") : ""
