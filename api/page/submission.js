/** Sending a review as feedback, and what to review next. */

import { request } from "./api.js";
import { ask, h } from "./elements.js";
import { t } from "./language.js";

/** Send the feedback once the reviewer has decided on all suggestions; return its job and when it was sent, or null. */
export async function submit(review) {
  if (!(await settleSuggestions(review))) return null;
  const isEmpty = !review.items.some((item) => item.state === "approved");
  if (isEmpty && !(await confirmEmpty())) return null;
  const sent = performance.now();
  const body = isEmpty ? { annotations: [] } : {};
  const job = await request(`documents/${review.documentId}/feedback`, { method: "POST", body });
  return { job, sent };
}

/** Have the reviewer decide on the suggestions that are left; return whether to teach. */
async function settleSuggestions(review) {
  const left = review.suggested;
  if (!left.length) return true;
  const choices = [[t("acceptAndTeach"), "accept", "primary"], [t("rejectAndTeach"), "reject"], [t("goOn"), null, "quiet"]];
  const decision = await ask(t("teachTitle"), h("p", {}, t("undecided", { count: left.length })), choices);
  if (decision) await review[decision](...left);
  return decision !== null;
}

function confirmEmpty() {
  const choices = [[t("teachNothing"), true, "primary"], [t("cancel"), null]];
  return ask(t("teachTitle"), h("p", {}, t("nothingMarked")), choices);
}

/** Open the contract that teaches most, of those that nobody has reviewed; the list if there is none. */
export async function openNext() {
  const page = await request("documents?order=uncertain&review=new&limit=1");
  location.hash = page.items.length ? `#/documents/${page.items[0].id}` : "#/documents";
}
