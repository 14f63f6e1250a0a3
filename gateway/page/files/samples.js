// What the plots show: a few figures of each answer of /cluster, for the last minutes.
//
// The server counts from its start; what is shown are differences. Those of a gateway that was not
// there before are not known, and count from the next time on.

const KEPT_SECONDS = 300
/** What a plot shows is the least of these that holds all that is known. */
const SHOWN_SECONDS = [30, 60, 120, KEPT_SECONDS]
/** A difference is taken over at least so long: a cluster's totals come once a second. */
const OVER_SECONDS = 5
/** After a longer pause there is a gap. */
const PAUSE_SECONDS = 25

const TOTALS = ["messages_in", "messages_out", "bytes_in", "bytes_out"]

/** The last minutes. */
export class Samples {
  #all = []

  /** Take an answer in; `now` in seconds, from any beginning. */
  take(cluster, now) {
    if (this.#all.length && now - this.#all.at(-1).at > PAUSE_SECONDS) this.#all.push(gap(now))
    const totals = new Map(cluster.gateways.map(each => [each.gateway_id, each]))
    this.#all.push({
      at: now,
      totals,
      connections: sum(cluster.gateways, "connections"),
      ...this.#rates(totals, now),
      disk_p50: worst(cluster.workers, "edit_to_disk_p50_seconds"),
      disk_p99: worst(cluster.workers, "edit_to_disk_p99_seconds"),
      peer_p50: worst(cluster.gateways, "edit_to_peer_p50_seconds"),
      peer_p99: worst(cluster.gateways, "edit_to_peer_p99_seconds"),
    })
    while (this.#all[0].at < now - KEPT_SECONDS) this.#all.shift()
  }

  #rates(totals, now) {
    const pause = this.#all.findLastIndex(each => each.totals === null)
    const known = this.#all.slice(pause + 1)
    const before = known.findLast(each => now - each.at >= OVER_SECONDS) ?? known[0]
    if (!before) return Object.fromEntries(TOTALS.map(name => [name, null]))
    const seconds = now - before.at
    const rate = name => {
      let grown = 0
      for (const [id, { [name]: value }] of totals) {
        grown += Math.max(0, value - (before.totals.get(id)?.[name] ?? value))
      }
      return grown / seconds
    }
    return Object.fromEntries(TOTALS.map(name => [name, rate(name)]))
  }

  /** The newest, or null. */
  get last() {
    return this.#all.at(-1) ?? null
  }

  /** Instants of the samples, in seconds before the newest (so all are 0 or less). */
  get times() {
    return this.#all.map(each => each.at - this.last.at)
  }

  /** One figure over time; null where it is not known. */
  values(name) {
    return this.#all.map(each => each[name] ?? null)
  }

  /** How much time is worth to be shown, in seconds. */
  get seconds() {
    const known = -(this.times[0] ?? 0)
    return SHOWN_SECONDS.find(each => each >= known) ?? KEPT_SECONDS
  }
}

const gap = now => ({ at: now, totals: null })

const sum = (all, name) => all.reduce((total, each) => total + (each[name] ?? 0), 0)

/** The highest of those that are known, or null. */
export function worst(all, name) {
  const known = all.map(each => each[name]).filter(value => typeof value === "number")
  return known.length ? Math.max(...known) : null
}
