/** What a reviewer is asked when somebody else has changed the same annotation meanwhile. */

import { ask, h, shorten } from "./elements.js";
import { formatSince, t } from "./language.js";

/** Ask whose change is kept: somebody changed the annotation to `theirs`, or removed it, while ours became `mine`. */
export function askWhoseToKeep(theirs, mine) {
  const values = { value: shorten(mine.value ?? ""), type: (theirs ?? mine).type };
  const text = theirs
    ? t("theyChanged", {
        value: shorten(theirs.value),
        type: theirs.type,
        state: t(`item_${theirs.status}`),
        reviewer: theirs.reviewer ?? t("somebody"),
        since: formatSince(theirs.updated_at),
      })
    : t("theyDeleted", values);
  return ask(t("changedMeanwhile"), h("p", {}, text), [[t("keepTheirs"), false], [t("keepMine"), true]]);
}
