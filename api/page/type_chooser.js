/** Choosing an entity type: one of those in use, by its button or number, or a new one by its name. */

import { button, h } from "./elements.js";
import { t } from "./language.js";

const SHOWN = 12;

/**
 * Return a form that calls `onchoose` with a type, or `oncancel`. `others` are more buttons. The numbers choose the
 * first nine types as long as nothing is typed.
 */
export function buildTypeChooser(title, types, colours, onchoose, oncancel, others = []) {
  const list = h("div", { class: "types" });
  const input = h("input", { type: "text", maxlength: 100, autocomplete: "off", "aria-label": t("typeName"), placeholder: t("typeName") });
  const findMatches = () => types.filter((type) => type.toLowerCase().includes(input.value.trim().toLowerCase())).slice(0, SHOWN);
  const drawTypes = () => {
    const name = input.value.trim();
    const isNew = name && !types.some((type) => type.toLowerCase() === name.toLowerCase());
    const invent = isNew && button(t("newType", { name }), () => onchoose(name), { kind: "quiet" });
    list.replaceChildren(...[...findMatches().map(buildType), invent].filter(Boolean));
  };
  const buildType = (type, index) =>
    button(type, () => onchoose(type), { kind: `type ${colours.classOf(type)}`, shortcut: !input.value && index < 9 ? String(index + 1) : undefined });
  input.addEventListener("input", drawTypes);
  const handleKey = (event) => {
    event.stopPropagation(); // no shortcut of the page
    if (event.key === "Escape") oncancel();
    const chosen = !input.value && /^[1-9]$/.test(event.key) && findMatches()[event.key - 1];
    if (!chosen) return;
    event.preventDefault();
    onchoose(chosen);
  };
  const submit = (event) => {
    event.preventDefault();
    const name = input.value.trim();
    const matches = findMatches();
    const known = types.find((type) => type.toLowerCase() === name.toLowerCase());
    if (name) onchoose(known ?? (matches.length === 1 ? matches[0] : name));
  };
  drawTypes();
  const form = h(
    "form",
    { class: "chooser", "aria-label": title, onsubmit: submit, onkeydown: handleKey },
    h("p", {}, title),
    h("div", { class: "entry" }, input, h("button", { type: "submit" }, t("mark")), button(t("cancel"), oncancel, { kind: "quiet" })),
    list,
    others,
  );
  queueMicrotask(() => input.focus());
  return form;
}
