/** Builds elements. Strings become text, never HTML. */

const SVG = "http://www.w3.org/2000/svg";

/** Return an HTML element; properties are attributes, `onclick` and the like listeners; empty ones are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Return an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return a button; `shortcut` is the key that does the same. */
export function button(label, onclick, { kind = "", shortcut, ...properties } = {}) {
  const hint = shortcut && h("kbd", { "aria-hidden": "true" }, shortcut);
  return h("button", { type: "button", class: kind, onclick, "aria-keyshortcuts": shortcut?.replace("⇧", "Shift+"), ...properties }, label, hint);
}

export const shorten = (text) => (text.length > 60 ? `${text.slice(0, 57)}…` : text);

/** Return the head of a table; a heading in a list is of a column of numbers. */
export function buildHead(...headings) {
  const cells = headings.map((heading) => h("th", { scope: "col", class: Array.isArray(heading) && "number" }, heading));
  return h("thead", {}, h("tr", {}, cells));
}

/** Return a link into the Prefect or MLflow UI, or nothing if the address is none of the web. */
export function outsideLink(url, label) {
  if (!/^https?:\/\//.test(url ?? "")) return null;
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, label, " ↗");
}

/** Have a screen reader say something. */
export function announce(text) {
  document.getElementById("announcements").textContent = text;
}

/** Show a problem until the next one, or until it is closed. */
export function showProblem(text, closeLabel) {
  const messages = document.getElementById("messages");
  if (messages.querySelector("p")?.textContent === text) return;
  messages.replaceChildren(
    h("div", { class: "problem" }, h("p", {}, text), button("×", () => messages.replaceChildren(), { "aria-label": closeLabel })),
  );
}

/** Ask in a modal dialog; resolve to the value of the button that was chosen, null after Escape. */
export function ask(title, content, choices) {
  return new Promise((resolve) => {
    const choose = (value) => () => {
      dialog.close();
      resolve(value);
    };
    const buttons = choices.map(([label, value, kind]) => button(label, choose(value), { kind }));
    const chooseFirst = (event) => event.key === "Enter" && event.target.matches("input") && buttons[0].click();
    const dialog = h(
      "dialog",
      { "aria-labelledby": "dialog-title", onkeydown: chooseFirst, onclose: () => (dialog.remove(), resolve(null)) },
      h("h2", { id: "dialog-title" }, title),
      content,
      h("div", { class: "buttons" }, buttons),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
