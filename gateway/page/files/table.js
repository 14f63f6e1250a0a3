// Tables, which become cards where the screen is narrow. The roles are said, because tables that
// are not laid out as tables lose them.

import { h } from "./dom.js"

/**
 * A table, or `empty` if there are no rows.
 *
 * @param {object} table
 * @param {string} table.caption What it is, for those who can't see what is around it.
 * @param {{title: string, cell: (row: any) => unknown, kind?: string}[]} table.columns
 *   The first names the row; `kind` is a class: "number", "wide", "act"; "spare" for what a
 *   phone has no room for.
 * @param {any[]} table.rows
 * @param {(row: any) => string | number} table.key What a row is the same by.
 * @param {string} table.empty
 * @param {boolean} [table.isCompact] Its cells are short: it stays a table on any screen.
 */
export function table({ caption, columns, rows, key, empty, isCompact = false }) {
  if (!rows.length) return h("p", { class: "empty" }, empty)
  const head = ({ title, kind }) =>
    h(
      "th",
      { role: "columnheader", scope: "col", class: kind },
      title || h("span", { class: "unseen" }, "What can be done"),
    )
  return h(
    "table",
    { role: "table", "aria-label": caption, class: isCompact ? "compact" : "cards" },
    h(
      "thead",
      { role: "rowgroup" },
      h("tr", { role: "row" }, columns.map(head)),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map(row =>
        h(
          "tr",
          { role: "row", key: key(row) },
          columns.map(({ title, cell, kind }, number) =>
            number
              ? h("td", { role: "cell", class: kind, "data-title": title }, h("div", null, cell(row)))
              : h("th", { role: "rowheader", scope: "row", class: kind }, cell(row)),
          ),
        ),
      ),
    ),
  )
}

/** Names and what they stand for. */
export const facts = entries =>
  h(
    "dl",
    { class: "facts" },
    entries.map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))),
  )
