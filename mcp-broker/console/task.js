// One task: where it is or how it ended, and its way there on a line of time.

import { look } from "./api.js";
import { confirm } from "./dialog.js";
import { card, el, empty, facts, fill } from "./dom.js";
import { actionLink, agentLink, ago, count, ms, plural, state, us } from "./format.js";

const IN_FLIGHT = ["queued", "delayed", "running"];

export function open({ one, query }, app) {
  const named = query.identity ? { task_id: one, identity: query.identity } : { task_id: one };
  const word = el("span");
  const cancel = el("button", { type: "button", class: "danger", text: "Cancel task…", hidden: true });
  const list = el("dl", { class: "facts" });
  const set = facts(list);
  const line = timeline();
  const gone = empty("The broker does not know this task.", "It never came here, or ended too long ago to be kept. Those it knows:", "mcpctl tasks ls");
  gone.hidden = true;
  const parts = [card("Way", line.element), card("What it is", list)];
  const element = el("div", { class: "page" },
    el("div", { class: "head" }, el("h1", { class: "mono", text: one }), word, el("span", { class: "acts" }, cancel)), gone, ...parts);

  cancel.addEventListener("click", async () => {
    const given = await confirm({
      title: "Cancel this task?", text: `${one} ends for all who wait for it, and a worker that has it stops it.`,
      button: "Cancel the task", isDanger: true,
    });
    const say = (it) => (it.cancelled ? `${one} was cancelled.` : `${one} had ended already: ${it.status}.`);
    if (given) await app.act("tasks/cancel", named, say);
  });

  return {
    title: one,
    element,
    async tick() {
      const it = await look("tasks/show", named);
      gone.hidden = it !== null;
      for (const part of parts) part.hidden = it === null;
      cancel.hidden = it === null || !IN_FLIGHT.includes(it.status);
      if (it === null) return fill(word, "");
      fill(word, state(it.status));
      line.draw(it.context_trace, IN_FLIGHT.includes(it.status));
      set({
        Status: `${it.status}, ${IN_FLIGHT.includes(it.status) ? `for ${ms(it.status_ms)}` : ago(it.status_ms)}`,
        Error: it.error && { text: `${it.error.code}: ${it.error.message}`, tone: "bad" },
        Executed: it.executed,
        Action: actionLink(it.action),
        Agent: it.agent_id ? agentLink(it.agent_id) : it.node_id && `gone, node ${it.node_id}`,
        "Second attempt at": it.hedge_agent_id && agentLink(it.hedge_agent_id),
        Fallback: it.fallback,
        Identity: it.identity,
        Priority: it.priority,
        Delivery: it.delivery && `${it.delivery}${it.idempotent ? ", idempotent" : ""}`,
        "Waited for by": it.waiters === undefined ? null : plural(it.waiters, "session"),
        Age: ms(it.age_ms),
        "Left to live": it.ttl_left_ms === undefined ? null : ms(it.ttl_left_ms),
        Attempts: count(it.attempts),
        "Parts of its result": it.chunks > 0 ? count(it.chunks) : null,
        "Required labels": it.required_labels && Object.entries(it.required_labels).map(([k, v]) => `${k}=${v}`).join(", "),
      });
    },
  };
}

/** Attempts, each on the task's line of time, and in words. */
export function timeline() {
  const steps = el("ol", { class: "hops" });
  const key = (name, words) => el("span", {}, el("i", { class: name }), words);
  const legend = el("p", { class: "legend" }, key("queue", "waited at the broker"), key("network", "on its way, and waited at the worker"), key("work", "in the handler"));
  const element = el("div", {}, steps, legend);
  let shown = "";
  return {
    element,
    draw(trace, isInFlight) {
      const text = JSON.stringify([trace.hops, isInFlight, isInFlight && trace.total_us]);
      if (text === shown) return;
      shown = text;
      const total = Math.max(trace.total_us, 1);
      const items = [];
      if (trace.truncated) items.push(el("li", { class: "muted", text: "Older attempts are left out." }));
      let at = 0;
      for (const hop of trace.hops) {
        const span = hop.queue_us + hop.network_us + hop.work_us + hop.worker_queue_us;
        // A second attempt beside the first says when it began; the others follow each other.
        const from = hop.began_us ? hop.began_us - hop.queue_us : at;
        items.push(item(hop, from, total));
        at = Math.max(at, from + span);
      }
      if (isInFlight) items.push(waiting(trace, at, total));
      if (items.length === 0) items.push(el("li", { class: "muted", text: "No worker had it." }));
      steps.replaceChildren(...items);
      legend.hidden = trace.hops.length === 0;
    },
  };
}

function bar(name, from, us_, total) {
  const part = el("span", { class: name });
  part.style.insetInlineStart = `${(from / total) * 100}%`;
  part.style.inlineSize = `${(us_ / total) * 100}%`;
  return part;
}

function item(hop, from, total) {
  const queue = hop.queue_us;
  const transit = hop.network_us + hop.worker_queue_us;
  const words = `waited ${us(queue)}, ${us(transit)} on its way, worked ${us(hop.work_us)}`;
  const lane = el("div", { class: "lane", "aria-hidden": "true" });
  if (queue > 0) lane.append(bar("queue", from, queue, total));
  if (transit > 0) lane.append(bar("network", from + queue, transit, total));
  if (hop.work_us > 0) lane.append(bar("work", from + queue + transit, hop.work_us, total));
  const how = hop.policy ? `, by ${hop.policy} of ${plural(hop.candidates, "candidate")}` : "";
  return el("li", { class: "hop" },
    el("div", { class: "what" },
      el("strong", { text: `Attempt ${hop.attempt}: ${String(hop.event).replaceAll("_", " ")}` }),
      el("span", { class: "mono", text: hop.node_id }),
      el("span", { text: words + how })),
    lane,
    hop.reason ? el("div", { class: "why", text: hop.reason }) : null);
}

function waiting(trace, at, total) {
  const lane = el("div", { class: "lane", "aria-hidden": "true" }, bar("queue", at, Math.max(total - at, 0), total));
  return el("li", { class: "hop" }, el("div", { class: "what" }, el("strong", { text: "Not ended yet" }), el("span", { text: `${us(trace.total_us)} since SEND, of which it waited ${us(trace.queue_us)} last` })), lane);
}
