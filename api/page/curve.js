/** The learning curve: each version's score, drawn as SVG. */

import { h, svg } from "./elements.js";
import { formatScore, t } from "./language.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [900, 260, 44, 28, 12];
const MOST_LABELS = 12;

/** Tell whether a version ever served: by the decision of its run, or of a person. */
export const wasPromoted = (version) => version.promoted_at !== null || version.decision === "promoted";

/**
 * Return a figure of versions, oldest first; those that were not promoted are hollow. A click shows the version.
 * Return null if none has a score.
 */
export function buildCurve(versions) {
  const scored = versions.filter((version) => version.scores.score !== null);
  if (!scored.length) return null;
  const numbers = versions.map((version) => Number(version.version));
  const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
  const x = (version) => LEFT + 10 + ((Number(version.version) - first) / Math.max(1, last - first)) * (WIDTH - LEFT - 20);
  const y = (score) => TOP + (1 - score) * (HEIGHT - TOP - BOTTOM);
  const promoted = scored.filter(wasPromoted);
  const line = promoted.map((version) => `${x(version)},${y(version.scores.score)}`).join(" ");
  const every = Math.ceil((last - first + 1) / MOST_LABELS);
  const chart = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": describe(promoted) },
    [0, 0.25, 0.5, 0.75, 1].map((score) => [
      svg("line", { x1: LEFT, x2: WIDTH, y1: y(score), y2: y(score), class: "grid" }),
      svg("text", { x: LEFT - 6, y: y(score) + 4, "text-anchor": "end" }, formatScore(score).slice(0, 4)),
    ]),
    versions
      .filter((version) => (Number(version.version) - first) % every === 0)
      .map((version) => svg("text", { x: x(version), y: HEIGHT - 8, "text-anchor": "middle" }, version.version)),
    svg("polyline", { points: line, class: "line" }),
    scored.map((version) => buildPoint(version, x(version), y(version.scores.score))),
  );
  return h("figure", {}, chart, h("figcaption", { class: "about" }, t("score")));
}

function buildPoint(version, cx, cy) {
  const decision = t(wasPromoted(version) ? "promoted" : "notPromoted");
  const kind = version.is_champion ? "point live" : wasPromoted(version) ? "point" : "point refused";
  const show = () => document.getElementById(`version-${version.version}`)?.scrollIntoView({ block: "center" });
  const title = `${t("version")} ${version.version}: ${formatScore(version.scores.score)}, ${decision}`;
  return svg("circle", { cx, cy, r: version.is_champion ? 6 : 4, class: kind, onclick: show }, svg("title", {}, title));
}

function describe(promoted) {
  if (!promoted.length) return t("curve");
  const [from, to] = [promoted[0], promoted.at(-1)].map((each) => `${t("version")} ${each.version}: ${formatScore(each.scores.score)}`);
  return `${t("curve")}. ${from}; ${to}`;
}
