// Numbers for people, with their units; and links.

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(number);

/** Tasks a second. */
export function rate(number) {
  if (number === 0) return "0";
  if (number < 0.1) return number.toFixed(2);
  return number < 100 ? number.toFixed(1) : whole.format(Math.round(number));
}

function digits(number) {
  if (number < 10) return number.toFixed(1);
  return number.toFixed(0);
}

/** A duration in µs. */
export function us(number) {
  if (number === null || number === undefined) return "–";
  if (number < 1e3) return `${Math.round(number)} µs`;
  if (number < 1e6) return `${digits(number / 1e3)} ms`;
  return ms(number / 1e3);
}

/** A duration in ms. */
export function ms(number) {
  if (number === null || number === undefined) return "–";
  if (number < 1e3) return `${Math.round(number)} ms`;
  const s = number / 1e3;
  if (s < 60) return `${digits(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago something was: what is but a moment would only flicker. */
export function ago(number) {
  if (number === null || number === undefined) return "–";
  return number < 1e3 ? "just now" : `${ms(number)} ago`;
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at === 0 ? number : digits(number)} ${units[at]}`;
}

/** A point of time as `2026-11-22 04:20:19`, as Swedish has it. */
export const time = (wallMs) => new Date(wallMs).toLocaleString("sv-SE");

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

const TONES = {
  ready: "ok", standby: "muted", draining: "warn", suspect: "warn", ejected: "bad", lost: "bad",
  offline: "muted", ok: "ok", running: "ok", queued: "muted", delayed: "muted", failed: "bad",
  expired: "bad", cancelled: "muted", rejected: "warn", "slow start": "warn", probing: "warn",
  "half-open": "warn", "breaker open": "bad",
};

/** A state in a word, with a sign besides its colour. */
export const state = (name) => ({ text: name, tone: TONES[name] ?? "muted", state: true });

const link = (page) => (name, text = name) => ({
  text, title: name, href: `#/${page}/${encodeURIComponent(name)}`, mono: true,
});
export const agentLink = link("agents");
export const actionLink = link("actions");
export const letterLink = (row) => ({
  text: row.task_id, mono: true, title: row.task_id,
  href: `#/dead-letters/${encodeURIComponent(row.task_id)}?identity=${encodeURIComponent(row.identity)}`,
});
export const taskLink = (row) => ({
  text: row.task_id, mono: true, title: row.task_id,
  href: `#/tasks/${encodeURIComponent(row.task_id)}?identity=${encodeURIComponent(row.identity)}`,
});
