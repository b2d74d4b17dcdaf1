// One action: how it does, its rules, and whether its workers get its tasks.

import { look } from "./api.js";
import { confirm } from "./dialog.js";
import { card, el, empty, facts, fill } from "./dom.js";
import { agentLink, count, ms, plural, rate, state, time, us } from "./format.js";
import { Table } from "./table.js";

const POLICIES = ["round_robin", "weighted_round_robin", "least_loaded", "p2c", "session_hash", "adaptive"];
const FROM = { common: "those of all actions", file: "the configuration file", operator: "an operator, until the broker is started again" };

const QUEUES = [
  { name: "labels", label: "Required labels", cell: (it) => Object.entries(it.required_labels).map(([k, v]) => `${k}=${v}`).join(" ") || "none" },
  { name: "queued", label: "Waiting", number: true, cell: (it) => count(it.queued) },
  { name: "workers", label: "Workers", number: true, cell: (it) => count(it.workers) },
  { name: "ready", label: "Ready", number: true, cell: (it) => count(it.ready) },
  { name: "room", label: "With room", number: true, cell: (it) => count(it.with_room) },
];

const WORKERS = [
  { name: "agent", label: "Agent", cell: (it) => agentLink(it.agent_id), cut: true },
  { name: "odds", label: "Odds", number: true, value: (it) => it.probability, cell: (it) => `${((it.probability ?? 0) * 100).toFixed(0)} %` },
  { name: "slots", label: "In use / slots", number: true, cell: (it) => `${it.in_flight} / ${it.slots}` },
  { name: "health", label: "Health", cell: (it) => state(it.health) },
  { name: "time", label: "Time a task", number: true, cell: (it) => us(it.service_us) },
  { name: "why", label: "Ruled out", cell: (it) => it.ruled_out ?? "" },
];

export function open({ one }, app) {
  const word = el("span");
  const degrade = el("button", { type: "button", class: "danger", text: "Degrade…", hidden: true });
  const restore = el("button", { type: "button", class: "main", text: "Restore", hidden: true });
  const list = el("dl", { class: "facts" });
  const set = facts(list);
  const queues = new Table({ caption: "Its queues", columns: QUEUES, key: (it) => JSON.stringify(it.required_labels) });
  const workers = new Table({ caption: "Who would get a task now", columns: WORKERS, key: (it) => it.agent_id, empty: empty("It has no workers.", "Start one:", `mcpctl worker --action ${one} --exec COMMAND`) });
  const why = el("p", { class: "note" });
  const policy = el("select", { "aria-label": "Policy" }, ...POLICIES.map((name) => el("option", { text: name })));
  const apply = el("button", { type: "button", text: "Change policy" });
  const reset = el("button", { type: "button", text: "Reset rules", hidden: true });
  const rules = el("pre", { tabindex: "0", "aria-label": "All rules" });
  const gone = empty("The broker does not know this action.", "It has neither workers nor tasks. To give it some:", `mcpctl worker --action ${one} --exec COMMAND`);
  gone.hidden = true;
  const parts = [
    el("div", { class: "two" }, card("How it does", list),
      card("Who would get a task now", why, workers.element)),
    card("Queues", queues.element),
    card("Rules", el("div", { class: "filter" }, el("label", {}, "Policy", policy), apply, reset), el("div", { class: "pad" }, rules)),
  ];
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: one }), word, el("span", { class: "acts" }, degrade, restore)),
    gone, ...parts);
  let shownPolicy = null;
  let figures = null;

  degrade.addEventListener("click", async () => {
    const given = await confirm({
      title: `Degrade ${one}?`,
      text: "Its tasks are kept from its workers, those that wait too. They take its fallback chain; where nothing in it answers, they are rejected. What runs goes on.",
      button: "Degrade", isDanger: true, reason: "Why: operators see it, and clients whose tasks are refused",
    });
    if (given) await app.act("actions/degrade", { action: one, why: given.why }, () => `${one} is degraded.`);
  });
  restore.addEventListener("click", () => app.act("actions/restore", { action: one }, () => `Workers get tasks of ${one} again.`));
  apply.addEventListener("click", async () => {
    const chosen = policy.value;
    const given = await confirm({ title: `Choose workers of ${one} by ${chosen}?`, text: "It holds until the broker is started again; to keep it, put it into the configuration file.", button: "Change" });
    shownPolicy = null;
    if (given) await app.act("actions/set", { action: one, rules: { policy: chosen } }, () => `Workers of ${one} are chosen by ${chosen} now.`);
  });
  reset.addEventListener("click", async () => {
    const given = await confirm({ title: `Reset the rules of ${one}?`, text: "It has the rules of the configuration again; what operators changed is gone.", button: "Reset", isDanger: true });
    shownPolicy = null;
    if (given) await app.act("actions/reset", { action: one }, () => `${one} has the rules of the configuration again.`);
  });

  return {
    title: one,
    element,
    snapshot(it) {
      figures = it.actions.find((row) => row.action === one) ?? null;
    },
    async tick() {
      const [it, told] = await Promise.all([look("actions/show", { action: one }), look("explain", { action: one })]);
      gone.hidden = it !== null;
      for (const part of parts) part.hidden = it === null;
      degrade.hidden = it === null || it.degraded !== undefined;
      restore.hidden = it === null || it.degraded === undefined;
      if (it === null) return fill(word, "");
      fill(word, it.degraded ? { text: "degraded", tone: "warn", state: true } : state(it.ready > 0 ? "ready" : "standby"));
      if (!it.degraded && it.ready === 0) fill(word, { text: "no ready worker", tone: "bad", state: true });
      const row = figures;
      set({
        Degraded: it.degraded && { text: `by ${it.degraded.by}, ${time(it.degraded.since_wall_ms)}${it.degraded.why ? `: ${it.degraded.why}` : ""}`, tone: "warn" },
        Waiting: `${plural(it.queued, "task")}${row?.oldest_ms === undefined ? "" : `, the oldest for ${ms(row.oldest_ms)}`}`,
        Running: `${count(it.running)} on ${plural(it.slots, "slot")}`,
        Delayed: it.delayed > 0 ? plural(it.delayed, "task") : null,
        Workers: `${count(it.ready)} of ${count(it.workers)} ready`,
        Breakers: it.breakers.open + it.breakers.half_open > 0 ? { text: `${count(it.breakers.open)} open, ${count(it.breakers.half_open)} half open`, tone: "warn" } : "all closed",
        "In": row && `${rate(row.rates.s10.taken)} /s, over a minute ${rate(row.rates.s60.taken)} /s`,
        "Done": row && `${rate(row.rates.s10.ok)} /s, over a minute ${rate(row.rates.s60.ok)} /s`,
        "Errors": row && `${rate(row.rates.s10.error)} /s, over a minute ${rate(row.rates.s60.error)} /s`,
        "Rejects": row && `${rate(row.rates.s10.rejected)} /s, over a minute ${rate(row.rates.s60.rejected)} /s`,
        "From SEND to outcome": row && `p50 ${us(row.p50_us)}, p99 ${us(row.p99_us)}`,
        "Time at a worker": it.service_us === undefined ? null : us(it.service_us),
        "Shadow": it.shadow_workers + it.shadow_tasks > 0 ? `${plural(it.shadow_workers, "worker")}, ${plural(it.shadow_tasks, "task")}` : null,
        "Rules from": FROM[it.rules_from] ?? it.rules_from,
      });
      why.textContent = told === null ? "" : `${told.decision}: ${told.why}`;
      workers.rows = told?.workers ?? [];
      queues.rows = it.queues;
      reset.hidden = it.rules_from !== "operator";
      if (shownPolicy !== it.policy) {
        shownPolicy = it.policy;
        policy.value = it.policy;
      }
      const text = JSON.stringify(it.rules, null, 2);
      if (rules.textContent !== text) rules.textContent = text;
    },
  };
}
