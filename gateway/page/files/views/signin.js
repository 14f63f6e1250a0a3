// The form that asks for the token.

import { fill, h } from "../dom.js"

/** The form; `why` it is shown, "" if nothing happened; `given` gets the token. */
export function signIn(why, given) {
  const trouble = h("p", { class: "trouble", role: "alert", id: "why" }, why)
  const field = h("input", {
    id: "token",
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    "aria-describedby": "why hint",
  })
  const form = h(
    "form",
    { class: "sign-in" },
    h("h1", null, "Sign in to this server"),
    trouble,
    // Where browsers that keep passwords look for whose it is.
    h("input", { type: "text", autocomplete: "username", value: "admin", hidden: true }),
    h("label", { for: "token" }, "Admin token"),
    field,
    h("button", { class: "main" }, "Sign in"),
    h(
      "p",
      { class: "hint", id: "hint" },
      "What the server was started with as ",
      h("code", null, "--admin-token"),
      " or ",
      h("code", null, "AMSYNC_ADMIN_TOKEN"),
      ". It is kept in this tab only.",
    ),
  )
  form.onsubmit = event => {
    event.preventDefault()
    const token = field.value.trim()
    if (!token) fill(trouble, "Give the token.")
    // A header can't say more; the server's tokens are made of less.
    else if (!/^[\x21-\x7e]+$/.test(token)) fill(trouble, "A token has no such characters.")
    else given(token)
  }
  return form
}
