/** What becomes of a contract that is taught: the job as it goes on, and what its corrections did. */

import { followJob, request } from "./api.js";
import { announce, button, h, outsideLink } from "./elements.js";
import { formatNumber, t } from "./language.js";
import { describe, guarded, quote } from "./problems.js";

const COMPARING = 65; // percent, from which the flow compares the versions

export class TeachPanel {
  constructor(documentId, onanswered) {
    this.documentId = documentId;
    this.onanswered = onanswered;
    this.element = h("section", { class: "teaching", "aria-label": t("teachTitle"), hidden: true });
  }

  close() {
    this.following?.abort();
  }

  /** Show a job until it is answered; `sent` is when it was sent, in milliseconds since the page was opened. */
  async follow(jobId, sent) {
    this.close();
    this.following = new AbortController();
    const { signal } = this.following;
    let last = null;
    await followJob(jobId, (job) => {
      if (signal.aborted) return;
      last = job;
      this.show(job, sent);
    }, signal);
    if (!signal.aborted && last?.outcome) this.onanswered(last);
  }

  show(job, sent) {
    this.element.hidden = false;
    this.element.replaceChildren(...(job.outcome ? this.#buildAnswer(job, sent) : buildProgress(job)));
    announce(this.element.querySelector("h3").textContent);
  }

  #buildAnswer(job, sent) {
    const { outcome } = job;
    const isLearned = outcome.decision === "promoted" && !(this.documentId in job.set_aside);
    const reason = job.set_aside[this.documentId] ?? outcome.reason;
    const seconds = sent !== undefined && (performance.now() - sent) / 1000;
    const links = [outsideLink(job.links.prefect_run, t("prefectRun")), outsideLink(job.links.mlflow_run, t("mlflowRun"))];
    return [
      h("h3", { class: isLearned ? "live" : "aside" }, isLearned ? describeVersion(outcome, seconds) : describeRefusal(outcome)),
      job.insisted_by && h("p", {}, t("insistedBy", { reviewer: job.insisted_by })),
      isLearned && outcome.effect && buildEffect(outcome.effect),
      ...(isLearned ? [] : this.#buildAdvice(job, reason)),
      h("details", {}, h("summary", {}, t("serverSays")), quote(reason), h("p", { class: "links" }, links)),
    ].filter(Boolean);
  }

  #buildAdvice(job, reason) {
    const isContradicted = this.documentId in job.set_aside || job.outcome.decision === "not_promoted";
    const teachAgain = async () => {
      const again = await request(`jobs/${job.job_id}/teach`, { method: "POST" });
      this.follow(again.job_id, performance.now());
    };
    return [
      quote(reason, "why"),
      isContradicted && h("p", {}, t("whatToDo")),
      button(t(isContradicted ? "insist" : "again"), guarded(teachAgain)),
    ];
  }
}

function buildProgress(job) {
  const isRunning = job.status === "running";
  const phase = !isRunning ? "waiting" : job.progress < COMPARING ? "training" : "comparing";
  const steps = ["waiting", "training", "comparing"].map((each) =>
    h("li", { "aria-current": each === phase ? "step" : undefined }, t(`phase_${each}`)),
  );
  const isRetried = job.message && !isRunning && job.message.includes("failed");
  return [
    h("h3", {}, t(`phase_${phase}`)),
    h("ol", { class: "phases" }, steps),
    h("progress", { max: 100, value: job.progress, "aria-label": t("progress") }),
    isRetried && quote(job.message),
  ].filter(Boolean);
}

function buildEffect(effect) {
  const corrected = effect.corrections ? t("correctionsRead", { count: effect.corrections, reproduced: effect.reproduced }) : t("noCorrection");
  const ids = [...new Set(effect.changes.map((change) => change.document_id))];
  const changed = ids.map((id) => buildChanged(id, effect.changes.filter((change) => change.document_id === id)));
  return h("div", {}, h("p", {}, corrected), changed.length > 0 && [h("h4", {}, t("changedOthers")), h("ul", {}, changed)]);
}

/** Return a line of a list: a document, by its name as soon as that is known, and what changed in it. */
function buildChanged(documentId, changes) {
  const link = h("a", { href: `#/documents/${documentId}` }, "…");
  request(`documents/${documentId}`).then(
    ({ filename }) => (link.textContent = filename),
    (error) => (link.textContent = describe(error)),
  );
  return h("li", {}, link, h("span", { class: "about" }, ` ${changes.map((change) => t("change", change)).join("; ")}`));
}

function describeVersion({ challenger }, seconds) {
  const { version } = challenger;
  return seconds ? t("liveAfter", { version, seconds: formatNumber(seconds) }) : t("live", { version });
}

function describeRefusal({ decision }) {
  const names = { rolled_back: "rolledBack", not_trained: "notTrained", failed: "teachFailed", cancelled: "teachFailed" };
  return t(names[decision] ?? "setAside");
}
