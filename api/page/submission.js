/** Sending a review as feedback, and what to review next. */

import { request } from "./api.js";
import { ask, h } from "./elements.js";
import { t } from "./language.js";

/**
 * Send the feedback once the reviewer has decided on all suggestions; return its job and when it was sent, or null.
 *
 * What is still being stored, and what others have changed, is waited for before each question.
 */
export async function submit(review, mayAnnotate) {
  await review.refresh();
  if (mayAnnotate && !(await settleSuggestions(review))) return null;
  if (!hasApproved(review) && !(await confirmEmpty())) return null;
  await review.refresh();
  const sent = performance.now();
  const body = hasApproved(review) ? {} : { annotations: review.stored };
  const job = await request(`documents/${review.documentId}/feedback`, { method: "POST", body });
  return { job, sent };
}

const hasApproved = (review) => review.items.some((item) => item.state === "approved");

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

const passed = new Set(); // what the reviewer went on from, in this tab

/** Open the contract that teaches most, of those that nobody has reviewed and this reviewer has not passed. */
export async function openNext(documentId) {
  passed.add(documentId);
  const { items } = await request("documents?order=uncertain&review=new&limit=200");
  const next = items.find(({ id }) => !passed.has(id));
  location.hash = next ? `#/documents/${next.id}` : "#/documents";
}
