// One agent: how it is and why, what it holds and had, and whether it gets new tasks.

import { look } from "./api.js";
import { confirm } from "./dialog.js";
import { card, el, empty, facts, fill } from "./dom.js";
import { actionLink, ago, count, ms, plural, state, taskLink, time, us } from "./format.js";
import { Table } from "./table.js";

export const TASK_COLUMNS = [
  { name: "task", label: "Task", cell: taskLink, cut: true },
  { name: "action", label: "Action", cell: (it) => actionLink(it.action), cut: true },
  { name: "status", label: "Status", cell: (it) => state(it.status) },
  { name: "since", label: "Since", number: true, value: (it) => it.status_ms, cell: (it) => ago(it.status_ms) },
  { name: "age", label: "Age", number: true, value: (it) => it.age_ms, cell: (it) => ms(it.age_ms) },
  { name: "attempts", label: "Attempts", number: true, cell: (it) => count(it.attempts) },
  { name: "error", label: "Error", cell: (it) => it.error_code ?? "" },
];

const SERVES = [
  { name: "action", label: "Action", cell: (it) => actionLink(it.action), cut: true },
  { name: "health", label: "Health", cell: (it) => state(it.health) },
  { name: "for", label: "For another", number: true, cell: (it) => (it.for_ms === undefined ? "" : ms(it.for_ms)) },
  { name: "service", label: "Time a task", number: true, cell: (it) => us(it.service_us) },
  { name: "share", label: "Ended ok", number: true, cell: (it) => `${(it.ok_share * 100).toFixed(1)} %` },
  { name: "kind", label: "Tasks", cell: (it) => (it.is_shadow ? "shadow only" : "live") },
];

export function open({ one }, app) {
  const word = el("span");
  const drain = el("button", { type: "button", class: "danger", text: "Drain…", hidden: true });
  const resume = el("button", { type: "button", class: "main", text: "Resume", hidden: true });
  const list = el("dl", { class: "facts" });
  const set = facts(list);
  const serves = new Table({ caption: "Actions that it serves", columns: SERVES, key: (it) => it.action, empty: empty("It serves no action.") });
  const holds = new Table({ caption: "Tasks that it holds", columns: TASK_COLUMNS, key: (it) => `${it.identity} ${it.task_id}`, empty: empty("It holds no task.") });
  const recent = new Table({ caption: "Tasks that it had last", columns: TASK_COLUMNS, key: (it) => `${it.identity} ${it.task_id}`, empty: empty("No outcome of it is kept.") });
  const gone = empty("The broker does not know this agent.", "It has left, or was never here. Those that are:", "mcpctl agents ls --all");
  gone.hidden = true;
  const body = el("div", { class: "two" }, card("What it is", list), card("How it is at its actions", serves.element));
  const more = [card("Holds", holds.element), card("Had last", recent.element)];
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: one }), word, el("span", { class: "acts" }, drain, resume)),
    gone, body, ...more);

  drain.addEventListener("click", async () => {
    const given = await confirm({
      title: `Drain ${one}?`,
      text: "It gets no new tasks, whichever process comes with its name, until it is resumed. What it has goes on.",
      button: "Drain", isDanger: true, reason: "Why, for other operators",
    });
    if (given === null) return;
    const say = (it) => `${one} is drained; ${plural(it.held, "task is", "tasks are")} still to finish.`;
    await app.act("agents/drain", { agent: one, why: given.why }, say);
  });
  resume.addEventListener("click", () => app.act("agents/resume", { agent: one }, () => `${one} may have tasks again.`));

  return {
    title: one,
    element,
    async tick() {
      const it = await look("agents/show", { agent: one });
      gone.hidden = it !== null;
      for (const part of [body, ...more]) part.hidden = it === null;
      drain.hidden = it === null || it.drained !== undefined;
      resume.hidden = it === null || it.drained === undefined;
      if (it === null) return fill(word, "");
      fill(word, state(it.state));
      const ended = Object.entries(it.outcomes).filter(([, number]) => number > 0);
      set({
        Drained: it.drained && { text: `by ${it.drained.by}, ${time(it.drained.since_wall_ms)}${it.drained.why ? `: ${it.drained.why}` : ""}`, tone: "warn" },
        Presence: it.presence,
        Readiness: it.readiness,
        Health: it.health,
        Slots: `${count(it.in_flight)} of ${count(it.slots)} in use${it.parked > 0 ? `, ${count(it.parked)} parked besides` : ""}${it.prefetch ? `, ${count(it.prefetch)} prefetched` : ""}`,
        Node: { text: it.node_id, mono: true },
        Identity: it.identity,
        Software: it.sdk && `${it.sdk}, ${it.service_type}`,
        Registered: it.registered_ms === undefined ? null : `${ms(it.registered_ms)}, ${it.connected_ms === undefined ? "its connection broke" : `connected for ${ms(it.connected_ms)}`}`,
        "Last heard": it.last_seen_ms === undefined ? null : ago(it.last_seen_ms),
        Labels: Object.entries(it.labels).map(([key, value]) => `${key}=${value}`).join(", "),
        "Ended lately": ended.map(([name, number]) => `${count(number)} ${name}`).join(", "),
      });
      serves.rows = it.serves ?? [];
      holds.rows = it.holds;
      recent.rows = it.recent;
    },
  };
}
