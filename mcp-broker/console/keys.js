// Keyboard shortcuts: a key, or two after one another.

const PAUSE_MS = 1000;

/** `keys` is a map of `"g a"` to `{what, act}`. They are left alone while somebody writes, or is asked. */
export function listenToKeys(keys) {
  let first = "";
  let since = 0;
  document.addEventListener("keydown", (event) => {
    const isWriting = event.target.closest("input, select, textarea, dialog");
    if (isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
    const both = `${first} ${event.key}`;
    const name = keys.has(both) && event.timeStamp - since < PAUSE_MS ? both : event.key;
    first = event.key;
    since = event.timeStamp;
    if (!keys.has(name)) return;
    event.preventDefault();
    first = "";
    keys.get(name).act();
  });
}
