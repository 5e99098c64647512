/** The entities of a contract by type, with what can be done to each. */

import { button, h } from "./elements.js";
import { formatPercent, t } from "./language.js";

/**
 * Return the list's content: groups by type, then what was rejected. `actions` has accept, reject, retype and extend,
 * which take an item, and pick, which takes its key; null if the key may only read.
 */
export function buildEntityList(items, current, colours, actions) {
  const kept = items.filter((item) => item.state !== "rejected");
  const rejected = items.filter((item) => item.state === "rejected");
  const types = [...new Set(kept.map((item) => item.type))].sort();
  const groups = types.map((type) => {
    const ofType = kept.filter((item) => item.type === type);
    const swatch = h("span", { class: `swatch ${colours.classOf(type)}`, "aria-hidden": "true" });
    return buildGroup(h("h3", {}, swatch, type, h("span", { class: "count" }, ofType.length)), ofType);
  });
  if (rejected.length) {
    const heading = h("h3", {}, t("rejectedItems"), h("span", { class: "count" }, rejected.length));
    groups.push(buildGroup(heading, rejected));
  }
  return groups;

  function buildGroup(heading, ofGroup) {
    return h("section", {}, heading, h("ul", {}, ofGroup.map((item) => buildItem(item, item.key === current, actions))));
  }
}

function buildItem(item, isCurrent, actions) {
  const confidence = item.confidence === undefined ? null : t("confidence", { share: formatPercent(item.confidence) });
  const about = [t(`item_${item.state}`), item.state === "rejected" && item.type, confidence, item.reviewer && t("by", item)];
  const open = h(
    "button",
    {
      type: "button",
      class: "value",
      "data-key": item.key,
      "aria-expanded": String(isCurrent),
      onclick: () => actions.pick(item.key),
    },
    h("span", { class: "words" }, item.value),
    h("span", { class: "about" }, about.filter(Boolean).join(" · ")),
  );
  const decide = actions.accept && h("div", { class: "decide" }, buildDecisions(item, actions));
  const change = isCurrent && actions.accept && item.state !== "rejected" && buildChanges(item, actions);
  return h("li", { class: `${item.state}${isCurrent ? " current" : ""}` }, h("div", { class: "row" }, open, decide), change);
}

function buildDecisions(item, actions) {
  const accept = button("✓", () => actions.accept(item), { kind: "accept", "aria-label": `${t("accept")}: ${item.value}`, title: t("accept") });
  const isFound = item.confidence !== undefined;
  const label = isFound ? t("reject") : t("remove");
  const reject = button("✕", () => actions.reject(item), { kind: "reject", "aria-label": `${label}: ${item.value}`, title: label });
  return [item.state !== "approved" && accept, item.state !== "rejected" && reject];
}

function buildChanges(item, actions) {
  const move = (sign, label, edge, step) =>
    button(sign, () => actions.extend(item, edge, step), { kind: "small", "aria-label": label, title: label });
  return h(
    "div",
    { class: "changes" },
    button(t("changeType"), () => actions.retype(item), { shortcut: "T" }),
    h(
      "span",
      { class: "extent", role: "group", "aria-label": t("extent") },
      t("startOf"),
      move("◂", t("startEarlier"), "start", -1),
      move("▸", t("startLater"), "start", 1),
      t("endOf"),
      move("◂", t("endEarlier"), "end", -1),
      move("▸", t("endLater"), "end", 1),
    ),
  );
}
