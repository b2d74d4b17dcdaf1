// Drives Chromium through the console of a running broker.
//
//   node run.mjs URL pages [DIRECTORY]    every page, acts, accessibility; screenshots go to DIRECTORY
//   node run.mjs URL many COUNT           a list of so many agents
//   node run.mjs URL token TOKEN          how operators sign in
//
// CHROMIUM says which browser, /usr/bin/chromium otherwise.

import assert from "node:assert/strict";
import axe from "axe-core";
import { chromium } from "playwright-core";

const [url, what, argument] = process.argv.slice(2);
const PATIENCE_MS = 30_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // As root, and in a container, Chromium has no sandbox of its own.
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

/** A page whose every complaint is a failure, but for those that a test brings about. */
async function open(scheme = "light", size = { width: 1360, height: 860 }) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: size, reducedMotion: "reduce" });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints = [];
  // What is not there is asked for again, should it come.
  const isExpected = (text) => text.includes("status of 404");
  page.on("console", (it) => it.type() === "error" && !isExpected(it.text()) && complaints.push(it.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || complaints.push(`asked ${request.url()}`));
  return { page, complaints, close: () => context.close() };
}

async function visit(page, hash, ready) {
  await page.goto(`${url}/#${hash}`);
  await page.locator(ready).first().waitFor();
}

/** Findings that keep people from using it. */
async function checkAccessibility(page, name) {
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => window.axe.run());
  const lines = violations.map((it) => `${it.impact}: ${it.id}, ${it.help}: ${it.nodes.map((node) => node.target).join(" ")}`);
  for (const line of lines) console.log(`axe, ${name}: ${line}`);
  const grave = violations.filter((it) => ["serious", "critical"].includes(it.impact));
  assert.equal(grave.length, 0, `${name}: ${lines.join("\n")}`);
}

const api = async (path) => (await fetch(`${url}/api/v1/${path}`)).json();

async function pages(directory) {
  const { dead_letters: letters } = await api("dead_letters/list");
  const retried = letters[0];
  const all = [
    ["overview", "/", "tbody tr"],
    ["agents", "/agents", "tbody tr th a"],
    ["agent", "/agents/summarize-1", ".facts dd"],
    ["action", "/actions/summarize", ".facts dd"],
    ["tasks", "/tasks", "tbody tr"],
    ["task", `/tasks/${retried.task_id}?identity=anonymous`, ".hop"],
    ["dead-letters", "/dead-letters", "tbody tr"],
    ["dead-letter", `/dead-letters/${retried.task_id}`, ".facts dd"],
    ["nobody", "/agents/nobody", ".empty:visible"],
    ["no-task", "/tasks/nothing", ".empty:visible"],
  ];
  for (const scheme of ["light", "dark"]) {
    const { page, complaints, close } = await open(scheme);
    for (const [name, hash, ready] of all) {
      await visit(page, hash, ready);
      await page.locator('#link[data-state="live"]').waitFor();
      await checkAccessibility(page, `${name}, ${scheme}`);
      if (directory) {
        // Until rates and curves have something to show.
        if (name === "overview") await page.waitForTimeout(12_000);
        await page.screenshot({ path: `${directory}/${name}-${scheme}.png` });
      }
    }
    assert.deepEqual(complaints, [], scheme);
    await close();
  }
  console.log(`${all.length} pages in both colour schemes`);
  const { page, complaints, close } = await open();
  await narrow(directory);
  await timeline(page);
  await drain(page, directory);
  await degrade(page);
  await deadLetters(page, letters);
  await hostile(page);
  await keyboard(page);
  assert.deepEqual(complaints, []);
  await close();
  await lost(directory);
}

async function narrow(directory) {
  const { page, close } = await open("light", { width: 390, height: 844 });
  await visit(page, "/", "tbody tr");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 390, `a narrow page is ${width} px wide`);
  if (directory) await page.screenshot({ path: `${directory}/narrow.png` });
  await close();
}

async function timeline(page) {
  await visit(page, "/tasks", "tbody tr");
  const { tasks: [task] } = await api("tasks/list?action=summarize&status=ok&limit=1");
  await page.getByLabel("Task id").fill(task.task_id);
  await page.getByRole("button", { name: "Show" }).click();
  await page.locator(".hop .work").first().waitFor();
  assert.match(await page.locator(".hop").first().innerText(), /Attempt 1: completed[\s\S]*worked \d+/);
  console.log("a task's timeline");
}

async function drain(page, directory) {
  await visit(page, "/agents", "tbody tr th a");
  await page.getByLabel("Name has").fill("SUMMARIZE-1");
  await page.getByText("1 of ").waitFor();
  await page.getByRole("link", { name: "summarize-1" }).click();
  await page.getByRole("button", { name: "Drain…" }).click();
  await page.getByLabel("Why").fill("new disk");
  if (directory) await page.screenshot({ path: `${directory}/drain.png` });
  await checkAccessibility(page, "dialog");
  await page.getByRole("button", { name: "Drain", exact: true }).click();
  await page.getByText("by console,").waitFor();
  const shown = await api("agents/show?agent=summarize-1");
  assert.deepEqual([shown.state, shown.drained.why], ["draining", "new disk"]);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Drain…" }).waitFor();
  assert.equal((await api("agents/show?agent=summarize-1")).drained, undefined);
  console.log("an agent drained and resumed");
}

async function degrade(page) {
  await visit(page, "/actions/embed", ".facts dd");
  await page.getByRole("button", { name: "Degrade…" }).click();
  await page.keyboard.press("Escape");
  assert.equal((await api("actions/show?action=embed")).degraded, undefined);
  await page.getByRole("button", { name: "Degrade…" }).click();
  await page.getByRole("button", { name: "Degrade", exact: true }).click();
  await page.getByRole("button", { name: "Restore" }).click();
  await page.getByRole("button", { name: "Degrade…" }).waitFor();
  await page.getByLabel("Policy").selectOption("p2c");
  await page.getByRole("button", { name: "Change policy" }).click();
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await page.getByRole("button", { name: "Reset rules" }).waitFor();
  assert.equal((await api("actions/show?action=embed")).policy, "p2c");
  console.log("an action degraded, restored, and its policy changed");
}

async function deadLetters(page, letters) {
  const [replayed, dropped] = letters;
  await visit(page, `/dead-letters/${dropped.task_id}`, ".facts dd");
  await page.getByRole("button", { name: "Drop…" }).click();
  await page.getByRole("button", { name: "Drop it" }).click();
  await page.getByText("There is no such dead letter.").waitFor();
  await visit(page, `/dead-letters/${replayed.task_id}`, ".facts dd");
  await page.getByRole("button", { name: "Replay…" }).click();
  await page.getByRole("button", { name: "Replay", exact: true }).click();
  await page.getByText("is done again").waitFor();
  console.log("a dead letter replayed, another dropped");
}

/** What peers say is text. */
async function hostile(page) {
  await visit(page, "/agents?state=standby", "tbody tr th a");
  const { agents } = await api("agents/list?state=standby");
  assert.match(agents[0].agent_id, /<img/);
  await page.getByRole("link", { name: agents[0].agent_id }).click();
  await page.getByRole("heading", { name: agents[0].agent_id }).waitFor();
  await page.getByText("<b>bold</b>").first().waitFor();
  assert.equal(await page.locator("main img, main b").count(), 0);
  console.log("hostile text is text");
}

async function keyboard(page) {
  await visit(page, "/", "tbody tr");
  await page.reload();
  await page.locator("tbody tr").first().waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.getByRole("heading", { name: "Agents", level: 1 }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
  await page.keyboard.press("/");
  await page.keyboard.type("gd");
  assert.equal(await page.getByLabel("Name has").inputValue(), "gd");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("?");
  await page.getByRole("heading", { name: "Keyboard" }).waitFor();
  await checkAccessibility(page, "shortcuts");
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "Keyboard" }).waitFor({ state: "detached" });
  await visit(page, "/tasks", "tbody tr");
  await page.locator("h1").click();
  await page.keyboard.press("p");
  await page.waitForTimeout(500);
  const shown = await page.locator("tbody").innerText();
  await page.waitForTimeout(2_500);
  assert.equal(await page.locator("tbody").innerText(), shown);
  await page.getByRole("button", { name: "Pause", pressed: true }).click();
  await page.waitForFunction((before) => document.querySelector("tbody").innerText !== before, shown);
  await page.keyboard.press("t");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "light");
  console.log("by keyboard");
}

async function lost(directory) {
  const { page, close } = await open();
  await page.route("**/api/v1/live", (route) => route.abort());
  await page.goto(url);
  await page.getByText("Connection lost").waitFor();
  await page.getByRole("alert").getByText("does not answer").waitFor();
  await checkAccessibility(page, "lost");
  if (directory) await page.screenshot({ path: `${directory}/lost.png` });
  await page.unroute("**/api/v1/live");
  await page.locator('#link[data-state="live"]').waitFor();
  assert.ok(await page.getByRole("alert").isHidden());
  await close();
  console.log("a lost connection is told, and made again");
}

/** How long a list of so many takes to be there, and to be scrolled through. */
async function many(count) {
  const { page, complaints, close } = await open();
  await visit(page, "/", ".figure a");
  const begin = performance.now();
  await page.evaluate(() => { location.hash = "/agents"; });
  await page.locator("tbody tr th a").first().waitFor();
  const first = performance.now() - begin;
  await page.getByText(`${new Intl.NumberFormat("en").format(count)} agents`).waitFor();
  await page.waitForFunction((rows) => document.querySelector("table").getAttribute("aria-rowcount") === String(rows), count + 1);
  const all = performance.now() - begin;
  const frames = await page.evaluate(async () => {
    const box = document.querySelector(".window");
    const times = [];
    let last = performance.now();
    for (let step = 1; step <= 120; step += 1) {
      box.scrollTop = (box.scrollHeight * step) / 120;
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    return times.sort((a, b) => a - b);
  });
  const last = page.locator("tbody tr:not(.gap) th").last();
  const elements = await page.locator("tbody tr").count();
  assert.ok(elements < 200, `${elements} rows are there at once`);
  const { agents } = await api(`agents/list?after=${encodeURIComponent("agent-04998")}`);
  await page.getByRole("link", { name: agents.at(-1).agent_id }).waitFor();
  assert.equal(await last.innerText(), agents.at(-1).agent_id);
  await checkAccessibility(page, "many");
  assert.deepEqual(complaints, []);
  const at = (part) => frames[Math.floor(frames.length * part)].toFixed(1);
  console.log(`${count} agents: first rows after ${first.toFixed(0)} ms, all after ${all.toFixed(0)} ms; `
    + `scrolled through in ${frames.length} frames, p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, longest ${at(0.999)} ms; ${elements} rows there`);
  await close();
}

async function token(right) {
  const { page, close } = await open();
  await page.goto(url);
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await checkAccessibility(page, "sign in");
  await page.getByLabel("Token").fill("not the token at all");
  await page.keyboard.press("Enter");
  await page.getByText("That was not the token.").waitFor();
  await page.getByLabel("Token").fill(right);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('#link[data-state="live"]').waitFor();
  assert.ok(await page.getByRole("alert").isHidden());
  await page.reload();
  await page.locator('#link[data-state="live"]').waitFor();
  await close();
  console.log("signed in");
}

try {
  if (what === "pages") await pages(argument);
  else if (what === "many") await many(Number(argument));
  else await token(argument);
} finally {
  await browser.close();
}
