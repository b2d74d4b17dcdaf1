// Elements. Whatever comes from the broker goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, `text` or children, and listeners as `onclick` and so on. */
export function el(tag, attributes = {}, ...children) {
  return make(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return make(document.createElementNS(SVG, tag), attributes, children);
}

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Changes a text only where it is another one: what is selected or read out is left alone. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/**
 * Puts content into a node: a text, or `{text, href, tone, state, title, mono}`. Changes what is other than
 * before.
 */
export function fill(node, content) {
  const it = content !== null && typeof content === "object" ? content : { text: String(content ?? "–") };
  const tag = it.href ? "A" : "SPAN";
  let inner = node.firstElementChild;
  if (inner?.tagName !== tag) {
    inner = el(tag);
    node.replaceChildren(inner);
  }
  setText(inner, it.text);
  setAttribute(inner, "href", it.href);
  setAttribute(inner, "title", it.title);
  const classes = [it.tone, it.state && "state", it.mono && "mono"].filter(Boolean).join(" ");
  setAttribute(inner, "class", classes || null);
}

/** A list of facts, `{name: content}`, those that are null left out. Returns how to change it. */
export function facts(list) {
  const rows = new Map();
  return (entries) => {
    for (const [name, content] of Object.entries(entries)) {
      if (content === null || content === undefined || content === "") {
        rows.get(name)?.forEach((node) => node.remove());
        rows.delete(name);
        continue;
      }
      if (!rows.has(name)) {
        const pair = [el("dt", { text: name }), el("dd")];
        rows.set(name, pair);
        list.append(...pair);
      }
      fill(rows.get(name)[1], content);
    }
  };
}

/** A card with a heading. */
export function card(title, ...children) {
  return el("section", { class: "card" }, el("h2", { text: title }), ...children);
}

/** What is shown instead of rows: what is so, and what to do, with a command if there is one. */
export function empty(what, advice, command) {
  return el(
    "div",
    { class: "empty" },
    el("strong", { text: what }),
    advice ? el("span", { text: advice }) : null,
    command ? el("code", { text: command }) : null,
  );
}
