// Tasks in flight, and the last that ended.

import { look } from "./api.js";
import { TASK_COLUMNS } from "./agent.js";
import { el, empty, setText } from "./dom.js";
import { agentLink, count } from "./format.js";
import { Table } from "./table.js";

const STATUSES = ["queued", "delayed", "running", "ok", "failed", "expired", "cancelled", "rejected"];
const LIMIT = 200;

const COLUMNS = [
  ...TASK_COLUMNS.slice(0, 6),
  { name: "agent", label: "Agent", cell: (it) => (it.agent_id ? agentLink(it.agent_id) : it.node_id ?? ""), cut: true },
  { name: "priority", label: "Priority", cell: (it) => it.priority },
  TASK_COLUMNS[6],
];

export function open({ query }, app) {
  const id = el("input", { autocomplete: "off", spellcheck: "false", size: 40 });
  const go = el("form", {
    class: "filter", role: "search",
    onsubmit: (event) => {
      event.preventDefault();
      if (id.value.trim()) app.go(`/tasks/${encodeURIComponent(id.value.trim())}`);
    },
  }, el("label", {}, "Task id", id), el("button", { type: "submit", class: "main", text: "Show" }));
  const status = el("select", {}, el("option", { value: "", text: "any" }), ...STATUSES.map((name) => el("option", { value: name, text: name })));
  status.value = STATUSES.includes(query.status) ? query.status : "";
  const action = el("input", { value: query.action ?? "", autocomplete: "off", spellcheck: "false" });
  const agent = el("input", { value: query.agent ?? "", autocomplete: "off", spellcheck: "false" });
  const told = el("output");
  const filter = el("form", { class: "filter", onsubmit: (event) => event.preventDefault() },
    el("label", {}, "Status", status), el("label", {}, "Action", action), el("label", {}, "Agent", agent), told);
  const none = empty("No task is so.", "Outcomes are kept for a while only. To send one:", "mcpctl call upper --data hello");
  const table = new Table({ caption: "Tasks, in flight first, the newest first", columns: COLUMNS, key: (it) => `${it.identity} ${it.task_id}`, empty: none });
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { text: "Tasks" })),
    el("section", { class: "card", "aria-label": "One task" }, go),
    el("section", { class: "card", "aria-label": "All tasks" }, filter, table.element));
  for (const input of [status, action, agent]) input.addEventListener("input", () => app.tick());

  return {
    title: "Tasks",
    element,
    async tick() {
      const asked = { status: status.value, action: action.value.trim(), agent: agent.value.trim(), limit: LIMIT };
      const list = await look("tasks/list", asked);
      table.rows = list.tasks;
      setText(told, `${count(list.tasks.length)} shown${list.more ? ", there are more" : ""}`);
    },
  };
}
