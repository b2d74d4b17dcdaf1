// Dead letters: durable tasks that did not end well, to be looked at, done again, or dropped.

import { look } from "./api.js";
import { confirm } from "./dialog.js";
import { card, el, empty, facts, setText } from "./dom.js";
import { actionLink, ago, bytes, count, letterLink, ms, state, time } from "./format.js";
import { Table } from "./table.js";
import { timeline } from "./task.js";

const LIMIT = 200;

const COLUMNS = [
  { name: "task", label: "Task", cell: letterLink, cut: true },
  { name: "action", label: "Action", cell: (it) => actionLink(it.action), cut: true },
  { name: "outcome", label: "Outcome", cell: (it) => state(it.outcome) },
  { name: "error", label: "Error", cell: (it) => it.error_code ?? "" },
  { name: "attempts", label: "Attempts", number: true, cell: (it) => count(it.attempts) },
  { name: "ended", label: "Ended", number: true, value: (it) => it.age_ms, cell: (it) => ago(it.age_ms) },
  { name: "bytes", label: "Input", number: true, value: (it) => it.body_bytes, cell: (it) => bytes(it.body_bytes) },
  { name: "identity", label: "Of", cell: (it) => it.identity, cut: true },
];

export function open({ query }, app) {
  const action = el("input", { value: query.action ?? "", autocomplete: "off", spellcheck: "false" });
  const older = el("button", { type: "button", text: "Older", hidden: true });
  const newest = el("button", { type: "button", text: "Newest", hidden: true });
  const told = el("output");
  const filter = el("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
    el("label", {}, "Action", action), newest, older, told);
  const none = empty("There are no dead letters.", "Durable tasks that end otherwise than ok or cancelled are kept here with their inputs.");
  const table = new Table({ caption: "Dead letters, the newest first", columns: COLUMNS, key: (it) => String(it.number), empty: none });
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: "Dead letters" })),
    el("section", { class: "card", "aria-label": "All dead letters" }, filter, table.element));
  let before = null;
  let last = null;
  const from = (number) => {
    before = number;
    app.tick();
  };
  action.addEventListener("input", () => from(null));
  older.addEventListener("click", () => from(last));
  newest.addEventListener("click", () => from(null));

  return {
    title: "Dead letters",
    element,
    async tick() {
      const list = await look("dead_letters/list", { action: action.value.trim(), before, limit: LIMIT });
      table.rows = list.dead_letters;
      last = list.dead_letters.at(-1)?.number ?? null;
      older.hidden = !list.more || last === null;
      newest.hidden = before === null;
      setText(told, `${count(list.dead_letters.length)} shown${list.more ? ", there are more" : ""}`);
    },
  };
}

export function openOne({ one, query }, app) {
  const named = query.identity ? { task_id: one, identity: query.identity } : { task_id: one };
  const replay = el("button", { type: "button", class: "main", text: "Replay…", hidden: true });
  const drop = el("button", { type: "button", class: "danger", text: "Drop…", hidden: true });
  const list = el("dl", { class: "facts" });
  const set = facts(list);
  const line = timeline();
  const input = el("pre", { tabindex: "0", "aria-label": "Its input" });
  const note = el("p", { class: "note muted" });
  const gone = empty("There is no such dead letter.", "It was replayed or dropped, or its time is over.");
  gone.hidden = true;
  const parts = [card("What it is", list), card("Way", line.element), card("Input", note, el("div", { class: "pad" }, input))];
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { class: "mono", text: one }), el("span", { class: "acts" }, replay, drop)), gone, ...parts);

  replay.addEventListener("click", async () => {
    const given = await confirm({ title: "Replay this task?", text: `${one} is done again as a new task of the same id, with the time to live that it had.`, button: "Replay" });
    if (given) await app.act("dead_letters/replay", named, () => `${one} is done again.`);
  });
  drop.addEventListener("click", async () => {
    const given = await confirm({ title: "Drop this dead letter?", text: `${one} and its input are gone then. This can't be undone.`, button: "Drop it", isDanger: true });
    if (given) await app.act("dead_letters/drop", named, () => `${one} was dropped.`);
  });

  return {
    title: one,
    element,
    async tick() {
      const it = await look("dead_letters/show", named);
      gone.hidden = it !== null;
      for (const part of [...parts, replay, drop]) part.hidden = it === null;
      if (it === null) return;
      set({
        Outcome: state(it.outcome),
        Error: it.error && { text: `${it.error.code}: ${it.error.message}`, tone: "bad" },
        Executed: it.executed,
        Action: actionLink(it.action),
        Identity: it.identity,
        Ended: `${time(it.died_wall_ms)}, ${ago(it.age_ms)}`,
        Attempts: count(it.attempts),
        "Time to live": ms(it.ttl_ms),
        Priority: it.priority,
        "Required labels": Object.entries(it.required_labels).map(([k, v]) => `${k}=${v}`).join(", "),
        "Content type": it.content_type,
        Headers: Object.entries(it.headers).map(([k, v]) => `${k}: ${v}`).join(", "),
      });
      line.draw(it.context_trace, false);
      const text = it.body ?? it.body_base64 ?? "";
      setText(input, text);
      input.parentElement.hidden = text === "";
      setText(note, `${bytes(it.body_bytes)}${it.body === undefined && text ? ", in base64" : ""}${it.body_cut ? ", only its beginning is shown" : ""}`);
    },
  };
}
