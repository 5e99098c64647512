/** The API: requests with the key of this tab, uploads with their progress, the events of a job. */

const KEY = "contract-feedback-key";
const BASE = new URL(".", document.baseURI);

/** A refused request: its HTTP status, 0 without an answer, and what the API says. */
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Keep a key that came in the address, `#key=cf_…`, for this tab, and take it out of the address and the history.
 * Return whether there was one.
 */
export function takeKeyFromAddress() {
  const found = location.hash.match(/^#key=(cf_[\w-]+)$/);
  if (!found) return false;
  saveKey(found[1]);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const saveKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

const getKey = () => sessionStorage.getItem(KEY);

async function send(path, { method = "GET", body, headers = {}, signal, cache = "no-cache" } = {}) {
  const key = getKey();
  const options = { method, signal, cache, headers: { Authorization: `Bearer ${key}`, ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await receive(fetch(new URL(path, BASE), options));
  if (response.ok) return response;
  if (response.status === 401 && key === getKey()) window.dispatchEvent(new Event("signed-out"));
  const answer = await response.json().catch(() => ({}));
  throw new ApiError(response.status, answer.detail ?? response.statusText);
}

/** Return what comes; raise ApiError with the status 0 if the connection breaks. */
async function receive(coming) {
  try {
    return await coming;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error.message);
  }
}

/** Return the answer to a request as JSON; null if it has no content. */
export async function request(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : receive(response.json());
}

/** Return the answer to a request as text, with a byte order mark if it has one: offsets count it. */
export async function requestText(path) {
  const bytes = await receive((await send(path)).arrayBuffer());
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Return the answer to a request as a file, which the browser may have kept. */
export async function requestBlob(path, signal) {
  const response = await send(path, { signal, cache: "default" });
  return receive(response.blob());
}

/** Upload a file; `onprogress` is told the share that was sent. */
export function upload(file, onprogress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("file", file, file.name);
    const sent = new XMLHttpRequest();
    sent.open("POST", new URL("documents", BASE));
    sent.setRequestHeader("Authorization", `Bearer ${getKey()}`);
    sent.upload.onprogress = (event) => event.lengthComputable && onprogress(event.loaded / event.total);
    sent.onerror = () => reject(new ApiError(0, ""));
    sent.onload = () => {
      const answer = parse(sent.responseText);
      if (sent.status < 300) resolve(answer);
      else reject(new ApiError(sent.status, answer.detail ?? sent.statusText));
    };
    sent.send(form);
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** Follow a job: `onjob` is told each of its states, until it is answered, deleted, or `signal` aborts. */
export async function followJob(jobId, onjob, signal) {
  while (!signal.aborted) {
    try {
      const response = await send(`jobs/${jobId}/events`, { signal });
      for await (const { event, data } of readEvents(response.body)) {
        if (event === "job") onjob(data);
        if (event === "end") return;
      }
    } catch (error) {
      if (error.name === "AbortError" || [401, 403, 404].includes(error.status)) return;
      if (!(error instanceof ApiError)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000)); // the API is being restarted
  }
}

/** Yield the server-sent events of a stream. EventSource reads them, too, but cannot send a key. */
async function* readEvents(stream) {
  let rest = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader(); // Safari does not iterate over a stream
  try {
    for (;;) {
      const { done, value } = await receive(reader.read());
      if (done) return;
      const parts = (rest + value.replaceAll("\r", "")).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
        if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
