// The broker's functions, and its snapshots.

const TOKEN = "mcp-broker-token";

/** What the broker does not do, and why. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;
export const setToken = (token) => sessionStorage.setItem(TOKEN, token);

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function refusal(response) {
  const text = await response.text();
  try {
    const { code, message } = JSON.parse(text).error;
    return new Refused(response.status, code, message);
  } catch {
    return new Refused(response.status, String(response.status), text.trim());
  }
}

async function answer(response) {
  if (response.ok) return response.json();
  // There is no such thing.
  if (response.status === 404 && response.headers.get("content-type") === "application/json") {
    const text = await response.clone().text();
    if (text === "null") return null;
  }
  throw await refusal(response);
}

/** Looks: `look("agents/list", {state: "lost"})`. Null when there is nothing of that name. */
export async function look(name, args = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(args)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") query.append(key, one);
    }
  }
  const signal = AbortSignal.timeout(10_000);
  return answer(await fetch(`/api/v1/${name}?${query}`, { headers: headers(), signal }));
}

/** Has the broker do something. Null when there is nothing of that name. */
export async function act(name, args) {
  const all = { ...headers(), "Content-Type": "application/json" };
  const signal = AbortSignal.timeout(10_000);
  const init = { method: "POST", headers: all, body: JSON.stringify(args), signal };
  return answer(await fetch(`/api/v1/${name}`, init));
}

/** Gives snapshots until the connection ends. */
export async function listen(take) {
  const response = await fetch("/api/v1/live", { headers: headers() });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const lines = rest.slice(0, end).split("\n");
      rest = rest.slice(end + 2);
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length > 0) take(JSON.parse(data.join("\n")));
    }
  }
}
