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

/** Keep a key that came in the address, `#key=cf_…`, for this tab, and take it out of the address and the history. */
export function takeKeyFromAddress() {
  const found = location.hash.match(/^#key=(cf_[\w-]+)$/);
  if (!found) return;
  saveKey(found[1]);
  history.replaceState(null, "", location.pathname + location.search);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const saveKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

function authorization() {
  return { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
}

async function send(path, { method = "GET", body, headers = {}, signal, cache = "no-cache" } = {}) {
  const options = { method, signal, cache, headers: { ...authorization(), ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(new URL(path, BASE), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, error.message);
  }
  if (!response.ok) throw await toError(response);
  return response;
}

async function toError(response) {
  if (response.status === 401) window.dispatchEvent(new Event("signed-out"));
  const answer = await response.json().catch(() => ({}));
  return new ApiError(response.status, answer.detail ?? response.statusText);
}

/** Return the answer to a request as JSON; null if it has no content. */
export async function request(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

export const requestText = async (path) => (await send(path)).text();
export const requestBlob = async (path, signal) => (await send(path, { signal, cache: "default" })).blob();

/** Upload a file; `onprogress` is told the share that was sent. */
export function upload(file, onprogress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("file", file, file.name);
    const sent = new XMLHttpRequest();
    sent.open("POST", new URL("documents", BASE));
    sent.setRequestHeader("Authorization", authorization().Authorization);
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
    }
    await new Promise((resolve) => setTimeout(resolve, 1000)); // the API is being restarted
  }
}

/** Yield the server-sent events of a stream. EventSource reads them, too, but cannot send a key. */
async function* readEvents(stream) {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text.replaceAll("\r", "")).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
      if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
