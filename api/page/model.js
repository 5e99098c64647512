/** The view of the model: its versions as a curve and as a list, its scores by type, and going back to a version. */

import { request } from "./api.js";
import { buildCurve, wasPromoted } from "./curve.js";
import { announce, ask, buildHead, button, h, outsideLink } from "./elements.js";
import { formatDate, formatScore, t } from "./language.js";
import { guarded, quote } from "./problems.js";

const PAGE = 200;

/** Show the model in `place`; return a function that ends it. */
export async function showModel(place, _, scopes) {
  const view = new ModelView(scopes);
  place.replaceChildren(view.element);
  await view.load();
  return () => {};
}

class ModelView {
  constructor(scopes) {
    this.mayPromote = scopes.includes("train");
    this.content = h("div");
    this.element = h("div", { class: "model" }, h("h1", {}, t("model")), this.content);
  }

  async load() {
    this.versions = [];
    this.before = null;
    await this.#loadMore();
  }

  async #loadMore() {
    const page = await request(`models?limit=${PAGE}${this.before ? `&before=${this.before}` : ""}`);
    this.versions.push(...page.items);
    this.before = page.next_before;
    this.#draw();
  }

  #draw() {
    if (!this.versions.length) return this.content.replaceChildren(h("p", { class: "hint" }, t("noVersions")));
    const champion = this.#champion;
    this.content.replaceChildren(
      ...[
        champion && this.#buildChampion(champion),
        h("section", { "aria-label": t("curve") }, h("h2", {}, t("curve")), buildCurve(this.versions.toReversed()) ?? h("p", { class: "hint" }, t("noScoreYet"))),
        champion && buildScores(champion),
        this.#buildVersions(),
        this.before && button(t("more"), guarded(() => this.#loadMore()), { kind: "quiet" }),
      ].filter(Boolean),
    );
  }

  #buildChampion({ version, scores, reason }) {
    const { document_count: count, value } = scores.unseen;
    return h(
      "section",
      { class: "champion" },
      h("p", { class: "big" }, t("version"), " ", version, " ", h("span", { class: "state live" }, t("served"))),
      count > 0 && h("p", { class: "big" }, formatScore(value.f1), h("span", { class: "about" }, t("score"))),
      count > 0 && h("p", { class: "about" }, t("measuredOn", { count })),
      quote(reason, "about"),
    );
  }

  #buildVersions() {
    return h(
      "section",
      {},
      h("h2", {}, t("versions")),
      h(
        "table",
        {},
        buildHead(t("version"), t("decision"), [t("score")], [t("learned")], t("made"), t("links"), t("serve")),
        h("tbody", {}, this.versions.map((version) => this.#buildVersion(version))),
      ),
    );
  }

  #buildVersion(each) {
    const { version, is_champion: serves, reason, scores, created_at: created, training_documents: learned } = each;
    const promoted = wasPromoted(each);
    const links = [outsideLink(each.prefect_run, "Prefect"), outsideLink(each.mlflow_run, "MLflow")];
    return h(
      "tr",
      { id: `version-${version}` },
      h("th", { scope: "row" }, version),
      h(
        "td",
        {},
        h("span", { class: `state ${serves ? "live" : promoted ? "reviewed" : "set_aside"}` }, t(serves ? "served" : promoted ? "promoted" : "notPromoted")),
        quote(reason, "about"),
      ),
      h("td", { class: "number" }, formatScore(scores.score)),
      h("td", { class: "number" }, learned ?? "–"),
      h("td", {}, formatDate(created)),
      h("td", { class: "links" }, links),
      h("td", {}, this.mayPromote && !serves && this.#buildPromotion(each)),
    );
  }

  get #champion() {
    return this.versions.find((version) => version.is_champion);
  }

  #buildPromotion(each) {
    const isEarlier = this.#champion && Number(each.version) < Number(this.#champion.version);
    const label = t(isEarlier ? "rollBack" : "promote");
    return button(label, guarded(() => this.#promote(each, label)), { kind: "quiet" });
  }

  async #promote({ version }, label) {
    const reason = h("input", { type: "text", maxlength: 1000, "aria-label": t("reason"), placeholder: t("reason") });
    const content = [h("p", {}, t("rollBackText")), reason];
    if (!(await ask(t("serveTitle", { version }), content, [[label, true, "primary"], [t("cancel"), null]]))) return;
    const body = reason.value.trim() ? { reason: reason.value.trim() } : {};
    const answer = await request(`models/${version}/promote`, { method: "POST", body });
    await this.load();
    const text = t("rolledBackTo", { version, count: answer.set_aside.length });
    this.content.prepend(h("p", { class: "hint" }, text));
    announce(text);
  }
}

function buildScores({ version, scores }) {
  const byType = Object.entries(scores.unseen.value_by_type).sort(([a], [b]) => a.localeCompare(b));
  if (!byType.length) return null;
  return h(
    "section",
    {},
    h("h2", {}, t("byType", { version })),
    h(
      "table",
      { class: "scores" },
      buildHead(t("type"), t("score"), [t("precision")], [t("recall")], [t("values")]),
      h("tbody", {}, byType.map(([type, score]) => buildTypeRow(type, score))),
    ),
  );
}

function buildTypeRow(type, { f1, true_positives: right, false_positives: wrong, false_negatives: missed }) {
  const share = (part, whole) => (whole ? part / whole : null);
  const meter = h("meter", { min: 0, max: 1, value: f1, "aria-hidden": "true" });
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, type),
    h("td", {}, meter, " ", formatScore(f1)),
    h("td", { class: "number" }, formatScore(share(right, right + wrong))),
    h("td", { class: "number" }, formatScore(share(right, right + missed))),
    h("td", { class: "number" }, right + missed),
  );
}
