// What operators look at first.

import { card, el, empty, fill, setAttribute, setText, svg } from "./dom.js";
import { actionLink, bytes, count, ms, plural, rate, us } from "./format.js";
import { Table } from "./table.js";

/** Snapshots in a curve: two minutes. */
const POINTS = 120;

/** Kept while the console is open, whichever page is shown. */
const curves = { queued: [], taken: [] };

/** Takes a snapshot into the curves. */
export function note(it) {
  push(curves.queued, it.tasks.queued);
  push(curves.taken, it.rates.s10.taken);
}

const text = (value, more = {}) => ({ text: value, ...more });

/** An action's tasks wait, and nobody takes them. */
const isStuck = (it) => it.queued > 0 && it.ready === 0;

function state(it) {
  if (it.is_degraded) return text("degraded", { tone: "warn", state: true });
  if (isStuck(it)) return text("no ready worker", { tone: "bad", state: true });
  if (it.breakers.open > 0) return text(`${count(it.breakers.open)} breaker open`, { tone: "warn", state: true });
  if (it.workers === 0) return text("no workers", { tone: "muted", state: true });
  return text("ok", { tone: "ok", state: true });
}

const speed = (name, label, title) => ({
  name, label, title, number: true,
  value: (it) => it.rates.s10[name],
  cell: (it) => {
    const now = it.rates.s10[name];
    const tone = now === 0 ? "muted" : name === "error" || name === "rejected" ? "bad" : null;
    return text(rate(now), { tone, title: `over a minute: ${rate(it.rates.s60[name])} a second` });
  },
});

const COLUMNS = [
  { name: "action", label: "Action", value: (it) => it.action, cell: (it) => actionLink(it.action), cut: true },
  { name: "queued", label: "Waiting", number: true, value: (it) => it.queued, cell: (it) => count(it.queued) },
  {
    name: "oldest", label: "Oldest", number: true, title: "Since the longest waiting task was taken",
    value: (it) => it.oldest_ms, cell: (it) => (it.oldest_ms === undefined ? "–" : ms(it.oldest_ms)),
  },
  {
    name: "running", label: "Running / slots", number: true, value: (it) => it.running,
    cell: (it) => `${count(it.running)} / ${count(it.slots)}`,
  },
  speed("taken", "In /s", "Tasks taken a second, over 10 s"),
  speed("ok", "Done /s", "Tasks that ended ok, a second, over 10 s"),
  speed("error", "Error /s", "Tasks that failed or expired, a second, over 10 s"),
  speed("rejected", "Reject /s", "Tasks that were refused, a second, over 10 s"),
  { name: "p50", label: "p50", number: true, title: "From SEND to outcome, in the last minute", value: (it) => it.p50_us, cell: (it) => us(it.p50_us) },
  { name: "p99", label: "p99", number: true, title: "From SEND to outcome, in the last minute", value: (it) => it.p99_us, cell: (it) => us(it.p99_us) },
  {
    name: "workers", label: "Ready / workers", number: true, value: (it) => it.ready,
    cell: (it) => `${count(it.ready)} / ${count(it.workers)}`,
  },
  { name: "state", label: "State", cell: state },
];

const STATES = [
  ["ready", "Ready"], ["standby", "Standby"], ["draining", "Draining"], ["suspect", "Suspect"],
  ["ejected", "Ejected"], ["lost", "Lost"],
];
const WORRYING = { suspect: "warn", ejected: "bad", lost: "bad", draining: "warn" };

/** What somebody should look at, the worst first: `{bad, sign, text, href, command}`. */
function worries(it) {
  const found = [];
  const add = (bad, sign, words, href) => found.push({ bad, sign, words, href });
  if (it.journal && !it.journal.is_up) add(true, "Journal", `${it.why_not_durable ?? "It can't be written."}`);
  if (it.is_shutting_down) add(true, "Stopping", "The broker is shutting down and takes no new tasks.");
  if (it.is_shedding) add(true, "Shedding", "The broker runs full: actions that are not core take no tasks.");
  for (const action of it.actions.filter(isStuck)) {
    const waiting = `${plural(action.queued, "task waits", "tasks wait")} and no worker is ready`;
    add(true, action.action, `${waiting}; the oldest for ${ms(action.oldest_ms)}.`, actionLink(action.action).href);
  }
  for (const action of it.actions.filter((one) => one.is_degraded)) {
    add(false, action.action, "An operator keeps its tasks from its workers.", actionLink(action.action).href);
  }
  if (it.agents.lost > 0) add(false, "Lost", `${plural(it.agents.lost, "agent")} went away and may come back.`, "#/agents?state=lost");
  if (it.agents.ejected > 0) add(false, "Ejected", `${plural(it.agents.ejected, "agent")} left out for failures or for being slow.`, "#/agents?state=ejected");
  if (it.dead_letters > 0) add(false, "Dead letters", `${plural(it.dead_letters, "durable task")} did not end well, to be replayed or dropped.`, "#/dead-letters");
  return found.slice(0, 8);
}

function curve(label) {
  const line = svg("polyline");
  const box = svg("svg", { class: "spark", viewBox: `0 0 ${POINTS - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" }, line);
  return {
    box,
    draw(points) {
      const top = Math.max(...points, 1);
      const at = (value, index) => `${POINTS - points.length + index},${(19 - (value / top) * 18).toFixed(1)}`;
      setAttribute(line, "points", points.map(at).join(" "));
    },
    label,
  };
}

function figure(label, extra = null) {
  const value = el("span", { class: "value" });
  const number = el("span");
  const unit = el("span", { class: "unit" });
  value.append(number, unit);
  const more = el("span", { class: "more" });
  const element = el("div", { class: "figure" }, el("dt", { text: label }), el("dd", { class: "value-of" }, value, el("br"), more, extra));
  return {
    element,
    set(number_, unit_, more_, tone = null) {
      setText(number, number_);
      setText(unit, unit_ ? ` ${unit_}` : "");
      setText(more, more_);
      setAttribute(value, "class", tone ? `value ${tone}` : "value");
    },
  };
}

export function open(_, app) {
  const attention = el("ul", { class: "attention" });
  const calm = el("p", { class: "calm", text: "Nothing needs attention.", hidden: true });
  const queuedCurve = curve("queued");
  const takenCurve = curve("taken");
  const backlog = figure("Waiting", queuedCurve.box);
  const traffic = figure("In", takenCurve.box);
  const done = figure("Done");
  const errors = figure("Errors and rejects");
  const slots = figure("Slots in use");
  const durable = figure("Journal");
  const dead = figure("Dead letters");
  const figures = el("dl", { class: "figures" }, ...[backlog, traffic, done, errors, slots, dead, durable].map((it) => it.element));

  const actions = new Table({
    caption: "Actions: backlog, rates and times",
    columns: COLUMNS,
    key: (it) => it.action,
    sort: { name: "oldest", down: true },
    empty: empty("No action has workers or tasks yet.", "Start a first worker, then send it a task:", "mcpctl worker --action upper --exec tr a-z A-Z"),
  });

  const states = el("dl", { class: "figures" });
  const cells = new Map();
  for (const [name, label] of STATES) {
    const value = el("dd", { class: "value" });
    cells.set(name, value);
    states.append(el("div", { class: "figure" }, el("dt", { text: label }), value));
  }
  const noAgents = empty("No agent is connected.", "A worker is an agent:", "mcpctl worker --action upper --exec tr a-z A-Z");

  noAgents.hidden = true;
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: "Overview" })),
    el("section", { "aria-label": "Attention" }, calm, attention),
    el("section", { "aria-label": "Figures" }, figures),
    card("Actions", actions.element),
    el("section", { class: "stack", "aria-label": "Agents" }, el("h2", { text: "Agents" }), noAgents, states),
  );

  return {
    title: "Overview",
    element,
    snapshot(it) {
      queuedCurve.draw(curves.queued);
      takenCurve.draw(curves.taken);
      drawWorries(attention, worries(it));
      calm.hidden = attention.childElementCount > 0;
      const oldest = Math.max(-1, ...it.actions.map((one) => one.oldest_ms ?? -1));
      const isStuckAnywhere = it.actions.some(isStuck);
      backlog.set(count(it.tasks.queued), "tasks", oldest < 0 ? "none is waiting" : `oldest ${ms(oldest)}`, isStuckAnywhere ? "bad" : null);
      traffic.set(rate(it.rates.s10.taken), "/s", `1 min: ${rate(it.rates.s60.taken)} /s`);
      done.set(rate(it.rates.s10.ok), "/s", `1 min: ${rate(it.rates.s60.ok)} /s`);
      const { error, rejected } = it.rates.s10;
      errors.set(rate(error), `+ ${rate(rejected)} /s`, `1 min: ${rate(it.rates.s60.error)} + ${rate(it.rates.s60.rejected)} /s`, error + rejected > 0 ? "warn" : null);
      slots.set(count(it.agents.in_flight), `of ${count(it.agents.slots)}`, `${count(it.tasks.delayed)} delayed`);
      dead.set(count(it.dead_letters), "", it.dead_letters > 0 ? "to replay or drop" : "none", it.dead_letters > 0 ? "warn" : null);
      drawJournal(durable, it);
      actions.rows = it.actions;
      noAgents.hidden = it.agents.total > 0;
      states.hidden = it.agents.total === 0;
      for (const [name] of STATES) {
        const number = it.agents[name];
        fill(cells.get(name), { text: count(number), href: `#/agents?state=${name}`, tone: number > 0 ? WORRYING[name] : null });
      }
    },
  };
}

function push(points, value) {
  points.push(value);
  if (points.length > POINTS) points.shift();
}

function drawJournal(figure, it) {
  if (!it.journal) return figure.set("Off", "", "durable tasks are refused");
  if (!it.journal.is_up) return figure.set("Failed", "", "durable tasks are refused", "bad");
  const sync = it.journal.sync_p99_us ? `, p99 sync ${us(it.journal.sync_p99_us)}` : "";
  return figure.set("Ok", "", `${bytes(it.journal.bytes)}${sync}`);
}

function drawWorries(list, found) {
  while (list.childElementCount > found.length) list.lastElementChild.remove();
  found.forEach(({ bad, sign, words, href }, index) => {
    let item = list.children[index];
    if (!item) {
      item = el("li", {}, el("span", { class: "sign" }), el("span"));
      list.append(item);
    }
    setAttribute(item, "class", bad ? "bad" : null);
    setText(item.firstElementChild, `${bad ? "✕" : "▲"} ${sign}`);
    fill(item.lastElementChild, { text: words, href });
  });
}
