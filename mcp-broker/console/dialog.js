// Questions before an act, and other things in front of the page.

import { el } from "./dom.js";

/** Opens a dialog with this form; resolves to what `done` gives, or to null when it was left. */
function ask(title, fields, buttons, done) {
  return new Promise((resolve) => {
    let given = null;
    const id = "dialog-title";
    const submit = (event) => {
      event.preventDefault();
      given = done();
      dialog.close();
    };
    const form = el("form", { onsubmit: submit }, el("h2", { id, text: title }), ...fields, el("div", { class: "acts" }, ...buttons));
    const dialog = el("dialog", { "aria-labelledby": id }, form);
    const before = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus();
      resolve(given);
    });
    for (const button of form.querySelectorAll("[data-leave]")) button.addEventListener("click", () => dialog.close());
    document.body.append(dialog);
    dialog.showModal();
  });
}

const leave = (text = "Cancel") => el("button", { type: "button", "data-leave": true, text });

/**
 * Asks whether to do what can't be undone, or matters to others. Resolves to `{why}`, or to null. With `reason` it
 * asks for one.
 */
export function confirm({ title, text, button, isDanger = false, reason = null }) {
  const input = reason ? el("input", { maxlength: 200, autocomplete: "off" }) : null;
  const fields = [el("p", { text })];
  if (input) fields.push(el("label", { class: "field" }, reason, input));
  const submit = el("button", { type: "submit", class: isDanger ? "danger" : "main", text: button });
  return ask(title, fields, [leave(), submit], () => ({ why: input?.value.trim() ?? "" }));
}

/** Asks for the token. */
export function askToken(problem) {
  const input = el("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false" });
  const fields = [
    el("p", { text: "This broker asks operators for a token: what the file of console.token_file holds." }),
    problem ? el("p", { class: "bad", role: "alert", text: problem }) : null,
    el("label", { class: "field" }, "Token", input),
  ];
  const submit = el("button", { type: "submit", class: "main", text: "Sign in" });
  return ask("Sign in", fields, [submit], () => input.value.trim());
}

/** Shows keys and what they do. */
export function showKeys(keys) {
  const list = el("dl", { class: "keys" });
  for (const [key, { what }] of keys) list.append(el("dt", {}, el("kbd", { text: key })), el("dd", { text: what }));
  return ask("Keyboard", [list], [leave("Close")], () => null);
}
