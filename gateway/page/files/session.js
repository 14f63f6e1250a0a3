// The admin token: asked for once, kept for this tab, never sent but in the header of a call.

const NAME = "amsync.token"
const FRAGMENT = "#token="

/** The token that this tab has, or null. */
export const token = () => sessionStorage.getItem(NAME)

/** Keep it for this tab. */
export const keep = value => sessionStorage.setItem(NAME, value)

/** Forget it. */
export const forget = () => sessionStorage.removeItem(NAME)

/** Take the token out of the address, where nobody shall see it; tells whether there was one. */
export function takeFromAddress() {
  if (!location.hash.startsWith(FRAGMENT)) return false
  const given = location.hash.slice(FRAGMENT.length)
  history.replaceState(null, "", "#/")
  let value = given
  try {
    value = decodeURIComponent(given)
  } catch {
    // It was not encoded: a percent sign is one of its characters.
  }
  if (value) keep(value)
  return value !== ""
}
