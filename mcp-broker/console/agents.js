// All agents, as many as there are.

import { look } from "./api.js";
import { el, empty, setText } from "./dom.js";
import { agentLink, ago, count, state } from "./format.js";
import { WindowTable } from "./table.js";

/** Agents that are asked for at once. */
const PAGE = 1_000;

/** After so long all are asked for again: some may have come or gone. Those in sight are every second. */
const ALL_MS = 15_000;

const STATES = ["online", "ready", "standby", "draining", "suspect", "ejected", "lost", "offline"];

const labels = (it) => Object.entries(it.labels).map(([key, value]) => `${key}=${value}`).join(" ");

function health(it) {
  if (it.drained) return { text: `drained by ${it.drained.by}`, title: it.drained.why, tone: "warn" };
  if (it.unwell.length === 0) return it.health;
  return it.unwell.map((one) => `${one.action}: ${one.health}`).join(", ");
}

const COLUMNS = [
  { label: "Agent", cell: (it) => agentLink(it.agent_id), cut: true },
  { label: "State", cell: (it) => state(it.state) },
  { label: "Health", cell: health, cut: true },
  { label: "In use / slots", number: true, cell: (it) => `${count(it.in_flight)} / ${count(it.slots)}` },
  { label: "Seen", number: true, cell: (it) => ago(it.last_seen_ms) },
  { label: "Actions", cell: (it) => ({ text: it.actions.join(", "), title: it.actions.join(", ") }), cut: true },
  { label: "Labels", cell: (it) => ({ text: labels(it), title: labels(it) }), cut: true },
];

export function open({ query }, app) {
  const text = el("input", { type: "search", value: query.text ?? "", autocomplete: "off", spellcheck: "false" });
  const chosen = el("select", {}, el("option", { value: "", text: "any" }), ...STATES.map((name) => el("option", { value: name, text: name })));
  chosen.value = STATES.includes(query.state) ? query.state : "";
  const action = el("input", { value: query.action ?? "", autocomplete: "off", spellcheck: "false" });
  const label = el("input", { value: query.label ?? "", placeholder: "key=value", autocomplete: "off", spellcheck: "false" });
  const told = el("output");
  const filter = el("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
    el("label", {}, "Name has", text), el("label", {}, "State", chosen), el("label", {}, "Action", action), el("label", {}, "Label", label), told);
  const none = empty("No agent is so.", "Loosen the filter; or start one:", "mcpctl worker --action upper --exec tr a-z A-Z");
  const table = new WindowTable({ caption: "Agents, by name", columns: COLUMNS, empty: none });
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: "Agents" })),
    el("section", { class: "card" }, filter, table.element));

  let version = 0;
  let allAt = -Infinity;
  let isLoading = false;

  const asked = () => ({
    text: text.value.trim(), state: chosen.value, action: action.value.trim(),
    label: label.value.includes("=") ? label.value.trim() : "",
  });

  /** Asks for all, page by page; shows them as they come the first time. */
  async function load() {
    const mine = version;
    const rows = [];
    const isFirst = table.rows.length === 0;
    let after = null;
    isLoading = true;
    try {
      do {
        const page = await look("agents/list", { ...asked(), limit: PAGE, after });
        if (mine !== version) return;
        rows.push(...page.agents);
        after = page.next;
        const all = page.total === page.matching ? count(page.total) : `${count(page.matching)} of ${count(page.total)}`;
        setText(told, `${all} agents`);
        if (isFirst) table.rows = rows;
      } while (after !== null);
      table.rows = rows;
      allAt = performance.now();
    } finally {
      isLoading = false;
    }
  }

  /** Asks again for those in sight. */
  async function refresh() {
    const mine = version;
    const [from, to] = table.sight();
    const before = table.rows;
    if (to <= from) return;
    const after = from > 0 ? before[from - 1].agent_id : null;
    const page = await look("agents/list", { ...asked(), limit: Math.min(PAGE, to - from), after });
    if (mine !== version || table.rows !== before) return;
    const fresh = new Map(page.agents.map((it) => [it.agent_id, it]));
    table.rows = before.map((it) => fresh.get(it.agent_id) ?? it);
  }

  let waiting = 0;
  function changed() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      version += 1;
      allAt = -Infinity;
      isLoading = false;
      const kept = new URLSearchParams(Object.entries(asked()).filter(([, value]) => value));
      history.replaceState(null, "", `#/agents${kept.size > 0 ? `?${kept}` : ""}`);
      table.rows = [];
      table.element.scrollTop = 0;
      app.tick();
    }, 150);
  }
  for (const input of [text, chosen, action, label]) input.addEventListener("input", changed);

  return {
    title: "Agents",
    element,
    async tick() {
      if (isLoading) return;
      await (performance.now() - allAt > ALL_MS ? load() : refresh());
    },
    close() {
      version += 1;
      table.resized.disconnect();
    },
  };
}
