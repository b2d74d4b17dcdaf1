// The frame around the pages: which one is shown, what they are told, and how the connection is.

import * as api from "./api.js";
import { askToken, showKeys } from "./dialog.js";
import { el, empty, setAttribute, setText } from "./dom.js";
import { count, ms } from "./format.js";
import { listenToKeys } from "./keys.js";
import * as action from "./action.js";
import * as agent from "./agent.js";
import * as agents from "./agents.js";
import * as letters from "./letters.js";
import * as overview from "./overview.js";
import * as task from "./task.js";
import * as tasks from "./tasks.js";

/** Without a snapshot for so long the connection is lost. They come every second. */
const LOST_MS = 4_000;
const AGAIN_MS = 1_000;

/** For how long is told what an act came to. */
const SAID_MS = 6_000;

const $ = (id) => document.getElementById(id);

const PAGES = {
  "": { module: overview, nav: "overview" },
  agents: { module: agents, one: agent, nav: "agents" },
  actions: { module: overview, one: action, nav: "overview" },
  tasks: { module: tasks, one: task, nav: "tasks" },
  "dead-letters": { module: letters, one: { open: letters.openOne }, nav: "letters" },
};

let page = null;
let last = null;
let lastAt = -Infinity;
let lastTime = "";
/** What is shown stays as it is. */
let isPaused = false;
let isSignedOut = false;
let isTicking = false;
let saidTimer = 0;

const app = {
  /** Tells what an act came to, aloud too. */
  say(text) {
    setText($("said"), text);
    clearTimeout(saidTimer);
    saidTimer = setTimeout(() => setText($("said"), ""), SAID_MS);
  },
  go(hash) {
    location.hash = hash;
  },
  /** Has the page look again now. */
  tick,
  /** Does something, and tells what came of it. */
  async act(name, args, done) {
    try {
      const answer = await api.act(name, args);
      app.say(answer === null ? "The broker does not know it any more." : done(answer));
    } catch (error) {
      app.say(`Refused: ${error.message}`);
    }
    await tick();
  },
};

function parse() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  return { name, one: decode(rest.join("/")), query: Object.fromEntries(new URLSearchParams(query)) };
}

function route(isFirst = false) {
  const { name, one, query } = parse();
  const known = PAGES[name];
  page?.close?.();
  const main = $("main");
  if (!known) {
    page = { title: "Not found", element: empty("There is no such page.", "The overview has all there is.") };
  } else {
    page = (one && known.one ? known.one : known.module).open({ one, query }, app);
  }
  main.replaceChildren(page.element);
  document.title = `${page.title} · MCP broker`;
  for (const link of document.querySelectorAll("nav a")) {
    setAttribute(link, "aria-current", known?.nav === link.dataset.page && "page");
  }
  follows();
  if (isFirst) return;
  // Whoever follows a link is told where it led.
  const heading = main.querySelector("h1");
  heading?.setAttribute("tabindex", "-1");
  heading?.focus();
  window.scrollTo(0, 0);
}

/** Has the page look at what it shows besides the snapshot. */
async function tick() {
  if (isTicking || document.hidden) return;
  isTicking = true;
  const it = page;
  try {
    await it.tick?.();
    if (it === page) it.element.querySelector(":scope > .problem")?.remove();
  } catch (error) {
    if (error.status === 401) return;
    if (it === page && error instanceof api.Refused) {
      const problem = el("p", { class: "problem bad", text: `The broker does not answer this: ${error.message}` });
      it.element.querySelector(":scope > .problem")?.remove();
      it.element.prepend(problem);
    }
  } finally {
    isTicking = false;
  }
  // Another page was opened meanwhile.
  if (it !== page) await tick();
}

function take(snapshot) {
  last = snapshot;
  lastAt = performance.now();
  overview.note(snapshot);
  lastTime = new Date().toLocaleTimeString("sv-SE");
  setText($("broker"), snapshot.broker_id);
  setText($("uptime"), `up ${ms(snapshot.uptime_ms)}, version ${snapshot.version}`);
  const badge = $("letters");
  badge.hidden = snapshot.dead_letters === 0;
  setText(badge, count(snapshot.dead_letters));
  connection(snapshot.is_shutting_down ? "stopping" : "live");
  if (!isPaused) follows();
}

/** Has the page show what is so now. */
function follows() {
  if (last) page.snapshot?.(last);
  tick();
}

function pause() {
  isPaused = !isPaused;
  setAttribute($("pause"), "aria-pressed", String(isPaused));
  if (!isPaused) follows();
}

function connection(state) {
  const link = $("link");
  const texts = { signedOut: "Signed out", live: "Live", stopping: "Shutting down", waiting: "Connecting", lost: "Connection lost" };
  setText(link, texts[state]);
  link.dataset.state = state === "live" || state === "lost" ? state : "waiting";
  const lost = $("lost");
  if (state !== "lost") lost.hidden = true;
  else if (lost.hidden) {
    lost.hidden = false;
    const told = last ? `What you see is from ${lastTime}.` : "";
    lost.textContent = `The broker at ${location.host} does not answer. ${told} Is it running? This page connects again by itself.`;
  }
}

async function follow() {
  for (;;) {
    try {
      await api.listen(take);
    } catch (error) {
      if (error.status === 401) {
        const problem = api.hasToken() ? "That was not the token." : "";
        isSignedOut = true;
        connection("signedOut");
        const token = await askToken(problem);
        isSignedOut = false;
        if (token) api.setToken(token);
        lastAt = performance.now();
        continue;
      }
      if (error.status === 403 || error.status === 429) {
        $("main").replaceChildren(empty("The broker refuses this console.", error.message));
      }
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

setInterval(() => {
  if (!isSignedOut && performance.now() - Math.max(lastAt, 0) > LOST_MS) connection("lost");
}, 500);

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  localStorage.setItem("mcp-theme", name);
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  setText($("theme"), `Theme: ${name}`);
}

const nextTheme = () => theme(THEMES[(THEMES.indexOf(localStorage.getItem("mcp-theme")) + 1) % THEMES.length]);

const keys = new Map([
  ["g o", { what: "Overview", act: () => app.go("/") }],
  ["g a", { what: "Agents", act: () => app.go("/agents") }],
  ["g t", { what: "Tasks", act: () => app.go("/tasks") }],
  ["g d", { what: "Dead letters", act: () => app.go("/dead-letters") }],
  ["/", { what: "Search on this page", act: () => document.querySelector("main input")?.focus() }],
  ["p", { what: "Pause: what is shown stays as it is, or is live again", act: pause }],
  ["t", { what: "Next theme: auto, light, dark", act: nextTheme }],
  ["?", { what: "This list", act: () => showKeys(keys) }],
]);

const saved = localStorage.getItem("mcp-theme");
theme(THEMES.includes(saved) ? saved : "auto");
$("theme").addEventListener("click", nextTheme);
$("pause").addEventListener("click", pause);
$("help").addEventListener("click", () => showKeys(keys));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
document.addEventListener("visibilitychange", () => isPaused || tick());
window.addEventListener("hashchange", () => route());
listenToKeys(keys);
route(true);
follow();
