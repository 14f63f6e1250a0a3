// A live plot: lines over the last minutes, their newest values in words, and a ruler that shows
// older ones to the pointer and to the arrow keys.

import { fill, h, svg } from "./dom.js"
import { duration } from "./text.js"

const WIDTH = 600
const HEIGHT = 120

/** One plot; `element` stays, `show` brings it up to date. */
export class Plot {
  #title
  #series
  #format
  #seconds = 0 // shown
  #times = []
  #values = []
  #at = null // index of the sample at the ruler
  #drawing = h("div", { class: "drawing" })
  #legend = h("div", { class: "legend" })
  #ruler = h("div", { class: "ruler", hidden: true })
  #area

  /**
   * @param {string} title
   * @param {{name: string, label: string}[]} series At most two; `name` is that of the sample's.
   * @param {(value: number) => string} format
   */
  constructor(title, series, format) {
    this.#title = title
    this.#series = series
    this.#format = format
    this.#area = h("div", { class: "area", tabindex: 0, role: "img" }, this.#drawing, this.#ruler)
    this.#area.onpointermove = event => this.#point(event)
    this.#area.onpointerleave = () => this.#move(null)
    this.#area.onblur = () => this.#move(null)
    this.#area.onkeydown = event => this.#step(event)
    this.element = h(
      "figure",
      { class: "plot" },
      h("figcaption", null, h("h3", null, title), this.#legend),
      this.#area,
    )
  }

  show(samples) {
    const shift = samples.times.length - this.#times.length
    if (this.#at !== null && shift <= 0) this.#at = Math.max(0, this.#at - 1) // as one left
    this.#times = samples.times
    this.#seconds = samples.seconds
    this.#values = this.#series.map(({ name }) => samples.values(name))
    this.#draw()
    this.#say()
  }

  #draw() {
    const most = scale(Math.max(0, ...this.#values.flat().filter(value => value !== null)))
    const x = index => WIDTH * (1 + this.#times[index] / this.#seconds)
    const y = value => HEIGHT - (HEIGHT * value) / most
    const lines = this.#values.map((values, number) =>
      svg("path", { class: `line line-${number}`, d: outline(values, x, y) }),
    )
    const under =
      this.#values.length === 1
        ? svg("path", { class: "under", d: outline(this.#values[0], x, y, HEIGHT) })
        : null
    fill(
      this.#drawing,
      svg(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        [0, 0.5, 1].map(part =>
          svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }),
        ),
        under,
        lines,
      ),
      h("span", { class: "most" }, this.#format(most)),
      h("span", { class: "from" }, `${duration(this.#seconds)} ago`),
      h("span", { class: "until" }, "now"),
    )
    this.#place()
  }

  /** The legend, and what a screen reader says instead of the lines. */
  #say() {
    const at = this.#at ?? this.#times.length - 1
    const value = number => this.#values[number]?.[at] ?? null
    const said = number => (value(number) === null ? "–" : this.#format(value(number)))
    const when = this.#at === null ? "" : `${Math.round(-this.#times[at])} s ago`
    fill(
      this.#legend,
      this.#series.map(({ label }, number) =>
        h(
          "span",
          { class: "value" },
          label && [h("i", { class: `sign sign-${number}` }), `${label} `],
          h("b", null, said(number)),
        ),
      ),
      when && h("span", { class: "when" }, when),
    )
    const story = this.#series.map(({ label }, number) => {
      const known = (this.#values[number] ?? []).filter(each => each !== null)
      const range = known.length
        ? `least ${this.#format(Math.min(...known))}, most ${this.#format(Math.max(...known))}`
        : "nothing yet"
      return `${label} ${when || "now"} ${said(number)}, ${range}`.trim()
    })
    const text = `${this.#title} over the last ${duration(this.#seconds)}: ${story.join("; ")}.`
    this.#area.setAttribute("aria-label", text)
  }

  #point(event) {
    const { left, width } = this.#area.getBoundingClientRect()
    const seconds = ((event.clientX - left) / width - 1) * this.#seconds
    let nearest = null
    for (const [index, time] of this.#times.entries()) {
      if (nearest === null || Math.abs(time - seconds) < Math.abs(this.#times[nearest] - seconds)) {
        nearest = index
      }
    }
    this.#move(nearest)
  }

  #step(event) {
    const last = this.#times.length - 1
    const from = this.#at ?? last
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key]
    if (event.key === "Escape") this.#move(null)
    if (to === undefined || last < 0) return
    event.preventDefault()
    this.#move(Math.min(Math.max(to, 0), last))
  }

  #move(index) {
    this.#at = index
    this.#place()
    this.#say()
  }

  #place() {
    this.#ruler.hidden = this.#at === null
    if (this.#at === null) return
    this.#ruler.style.left = `${100 * (1 + this.#times[this.#at] / this.#seconds)}%`
  }
}

/** The path of a line, or of what is between it and `floor`; it breaks where a value is missing. */
function outline(values, x, y, floor) {
  const parts = []
  let part = []
  for (const [index, value] of [...values, null].entries()) {
    if (value !== null) part.push(`${x(index).toFixed(1)},${y(value).toFixed(1)}`)
    else if (part.length) {
      parts.push(part)
      part = []
    }
  }
  return parts
    .map(part => {
      const line = `M${part.length > 1 ? part.join("L") : `${part[0]}h1`}`
      if (floor === undefined) return line
      const [from, until] = [part[0], part.at(-1)].map(point => point.split(",")[0])
      return `${line}L${until},${floor}L${from},${floor}Z`
    })
    .join("")
}

/** The least of 1, 2, 5, 10, 20, ... parts of a whole that is not below a value. */
function scale(value) {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map(each => each * power).find(each => each >= value * 0.9999)
}
