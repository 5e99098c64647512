/** The keys of the view of a contract. */

import { ask, h } from "./elements.js";
import { t } from "./language.js";

/** Show what each key does. */
export function showShortcuts() {
  const keys = [
    ["J ↓ / K ↑", t("shortcut_move")],
    ["A", t("accept")],
    ["⇧A", t("shortcut_all")],
    ["X", t("reject")],
    ["T", t("changeType")],
    ["U", t("undo")],
    ["← → ⇧", t("shortcut_surface")],
    ["Enter", t("shortcut_enter")],
    ["G", t("shortcut_teach")],
    ["N", t("shortcut_next")],
  ];
  const rows = keys.map(([key, meaning]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, meaning)]);
  return ask(t("shortcuts"), h("dl", { class: "keys" }, rows), [[t("close"), null]]);
}
