// Tables that change in place: rows keep their elements while they stay, so that focus and selection do.

import { el, fill, setAttribute } from "./dom.js";

/**
 * Columns are `{name, label, number, value(row), cell(row)}`: `value` is what rows are sorted by, where they
 * can be; `cell` what is shown, see `fill`.
 */
export class Table {
  #columns;
  #key;
  #rows = [];
  #elements = new Map();
  #sort = null;
  #body = el("tbody");
  #heads = new Map();
  #empty;

  constructor({ caption, columns, key, sort = null, empty = null }) {
    this.#columns = columns;
    this.#key = key;
    this.#empty = empty;
    const head = el("tr", {}, ...columns.map((column) => this.#head(column)));
    this.table = el("table", {}, el("caption", { text: caption }), el("thead", {}, head), this.#body);
    this.element = el("div", { class: "rows", tabindex: "0", role: "region", "aria-label": caption }, this.table);
    if (empty) this.element.append(empty);
    // Nothing is said before something is known.
    if (empty) empty.hidden = true;
    if (sort) this.#setSort(sort.name, sort.down);
  }

  set rows(rows) {
    this.#rows = rows;
    this.#draw();
  }

  #head(column) {
    const attributes = { scope: "col", class: column.number ? "number" : null };
    if (!column.value) return el("th", { ...attributes, text: column.label });
    const press = () => {
      const isSame = this.#sort?.name === column.name;
      this.#setSort(column.name, isSame ? !this.#sort.down : column.number === true);
      this.#draw();
    };
    const button = el("button", { type: "button", text: column.label, title: column.title, onclick: press });
    const head = el("th", attributes, button);
    this.#heads.set(column.name, head);
    return head;
  }

  #setSort(name, down) {
    const { value } = this.#columns.find((column) => column.name === name);
    this.#sort = { name, down, value };
    for (const [other, head] of this.#heads) {
      setAttribute(head, "aria-sort", other === name && (down ? "descending" : "ascending"));
    }
  }

  #sorted() {
    if (!this.#sort) return this.#rows;
    const { value, down } = this.#sort;
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    // What has no value is last.
    const last = down ? -Infinity : Infinity;
    const by = (a, b) => order(value(a) ?? last, value(b) ?? last) * (down ? -1 : 1);
    return [...this.#rows].sort((a, b) => by(a, b) || order(this.#key(a), this.#key(b)));
  }

  #draw() {
    const kept = new Map();
    let before = null;
    for (const row of this.#sorted()) {
      const key = this.#key(row);
      const element = this.#elements.get(key) ?? makeRow(this.#columns);
      kept.set(key, element);
      fillRow(element, this.#columns, row);
      const next = before ? before.nextSibling : this.#body.firstChild;
      if (next !== element) this.#body.insertBefore(element, next);
      before = element;
    }
    for (const [key, element] of this.#elements) if (!kept.has(key)) element.remove();
    this.#elements = kept;
    const isEmpty = this.#rows.length === 0;
    this.table.hidden = isEmpty && this.#empty !== null;
    if (this.#empty) this.#empty.hidden = !isEmpty;
  }
}

/** The first column names its row. */
function makeRow(columns) {
  const cell = (column, index) => {
    const classes = [column.number && "number", column.cut && "cut", column.wrap && "wrap"];
    const attributes = { class: classes.filter(Boolean).join(" ") || null };
    return index === 0 ? el("th", { ...attributes, scope: "row" }) : el("td", attributes);
  };
  return el("tr", {}, ...columns.map(cell));
}

function fillRow(element, columns, row) {
  columns.forEach((column, index) => fill(element.children[index], column.cell(row)));
}

const ROW_PX = 32;

/** Rows beyond those in sight, above and below. */
const BEYOND = 12;

/** A table of any length, of which only what is in sight is there. Its rows are in the order given. */
export class WindowTable {
  #columns;
  #rows = [];
  #pool = new Map();
  #top = el("tr", { class: "gap", "aria-hidden": "true" });
  #bottom = el("tr", { class: "gap", "aria-hidden": "true" });
  #body = el("tbody");
  #head;
  #isDue = false;

  constructor({ caption, columns, empty }) {
    this.#columns = columns;
    this.empty = empty;
    for (const gap of [this.#top, this.#bottom]) gap.append(el("td", { colspan: columns.length }));
    this.#body.append(this.#top, this.#bottom);
    const heads = columns.map((it) => el("th", { scope: "col", class: it.number ? "number" : null, text: it.label }));
    this.#head = el("thead", {}, el("tr", { "aria-rowindex": 1 }, ...heads));
    this.table = el("table", {}, el("caption", { text: caption }), this.#head, this.#body);
    this.element = el("div", { class: "rows window", tabindex: "0", role: "region", "aria-label": caption }, this.table, empty);
    empty.hidden = true;
    this.element.addEventListener("scroll", () => this.#later(), { passive: true });
    this.resized = new ResizeObserver(() => this.#later());
    this.resized.observe(this.element);
  }

  set rows(rows) {
    this.#rows = rows;
    this.#draw();
  }

  get rows() {
    return this.#rows;
  }

  /** The first row in sight, and the one after the last. */
  sight() {
    const from = Math.floor(this.element.scrollTop / ROW_PX);
    const to = from + Math.ceil(this.element.clientHeight / ROW_PX);
    return [Math.max(0, from - BEYOND), Math.min(this.#rows.length, to + BEYOND)];
  }

  #later() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw() {
    const [from, to] = this.sight();
    const kept = new Map();
    let next = this.#top.nextSibling;
    for (let at = from; at < to; at += 1) {
      const element = this.#pool.get(at) ?? makeRow(this.#columns);
      kept.set(at, element);
      setAttribute(element, "aria-rowindex", at + 2);
      fillRow(element, this.#columns, this.#rows[at]);
      if (next !== element) this.#body.insertBefore(element, next);
      else next = element.nextSibling;
    }
    for (const [at, element] of this.#pool) if (!kept.has(at)) element.remove();
    this.#pool = kept;
    // Heights are set by script, which the content security policy allows, and not by attribute.
    this.#top.firstChild.style.height = `${from * ROW_PX}px`;
    this.#bottom.firstChild.style.height = `${(this.#rows.length - to) * ROW_PX}px`;
    this.#top.hidden = from === 0;
    this.#bottom.hidden = to === this.#rows.length;
    setAttribute(this.table, "aria-rowcount", this.#rows.length + 1);
    this.table.hidden = this.#rows.length === 0;
    this.empty.hidden = this.#rows.length > 0;
  }
}
