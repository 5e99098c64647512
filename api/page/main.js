/** The page: sign-in, the header, and which view is shown. */

import { forgetKey, hasKey, request, saveKey, takeKeyFromAddress } from "./api.js";
import { showContract } from "./contract.js";
import { showContracts } from "./contracts.js";
import { button, h } from "./elements.js";
import { LANGUAGES, chooseLanguage, language, t } from "./language.js";
import { showModel } from "./model.js";
import { guarded } from "./problems.js";

const VIEWS = [
  [/^#?\/?$|^#\/documents$/, showContracts, "contracts"],
  [/^#\/documents\/([\w-]+)$/, showContract, "contracts"],
  [/^#\/model$/, showModel, "model"],
];

const main = document.getElementById("main");
let key = null; // its name and scopes
let end = () => {};
let shown = 0;

document.documentElement.lang = language;
takeKeyFromAddress();
window.addEventListener("hashchange", () => {
  if (takeKeyFromAddress()) key = null;
  show();
});
for (const name of ["dragover", "drop"]) {
  window.addEventListener(name, (event) => event.preventDefault()); // beside the place for files, they would replace the page
}
window.addEventListener("signed-out", () => showSignIn(t("wrongKey")));
show();

/** Show the view that the address names; the one before is ended. */
async function show() {
  const number = ++shown;
  end();
  end = () => {};
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  if (!hasKey()) return showSignIn();
  const place = h("div", { class: "view" }, h("p", { class: "hint" }, t("loading"))); // detached once another view is shown
  main.replaceChildren(place);
  const isShown = await guarded(async () => {
    drawHeader();
    key ??= await request("key");
    const [, view, current, argument] = findView();
    drawHeader(current);
    if (!view) return place.replaceChildren(h("p", { class: "hint" }, t("unknownView")));
    document.getElementById("messages").replaceChildren();
    const ended = await view(place, argument, key.scopes);
    if (number !== shown) return ended();
    end = ended;
    const heading = place.querySelector("h1");
    document.title = `${heading.textContent} · contract-feedback`;
    if (number > 1) focusOn(heading);
    return true;
  })();
  if (!isShown && number === shown && hasKey()) place.replaceChildren(button(t("tryAgain"), show));
}

/** Move the focus, unless the reviewer has done so, since it went with the view before: a screen reader says where it is. */
function focusOn(heading) {
  if (document.activeElement !== document.body) return;
  heading.tabIndex = -1;
  heading.focus();
}

function findView() {
  for (const [pattern, view, current] of VIEWS) {
    const found = location.hash.match(pattern);
    if (found) return [pattern, view, current, found[1]];
  }
  return [];
}

function drawHeader(current) {
  const buildLink = (name, address) => h("a", { href: address, "aria-current": name === current && "page" }, t(name));
  const select = h(
    "select",
    { "aria-label": t("language"), onchange: (event) => chooseLanguage(event.target.value) },
    Object.entries(LANGUAGES).map(([value, name]) => h("option", { value, lang: value, selected: value === language }, name)),
  );
  const skip = (event) => {
    event.preventDefault();
    main.focus();
  };
  document.getElementById("header").replaceChildren(
    h("a", { href: "#main", class: "skip", onclick: skip }, t("skip")),
    h("strong", {}, "contract-feedback"),
    key ? h("nav", { "aria-label": t("views") }, buildLink("contracts", "#/documents"), buildLink("model", "#/model")) : "",
    h("span", { class: "space" }),
    select,
    key ? h("span", { class: "about" }, key.name) : "",
    hasKey() ? button(t("signOut"), signOut, { kind: "quiet" }) : "",
  );
}

function signOut() {
  forgetKey();
  key = null;
  show();
}

function showSignIn(problem) {
  shown += 1;
  end();
  end = () => {};
  forgetKey();
  key = null;
  drawHeader();
  const input = h("input", { type: "password", required: true, pattern: " *cf_[\\w\\-]+ *", autocomplete: "off", spellcheck: "false" });
  const signIn = (event) => {
    event.preventDefault();
    saveKey(input.value.trim());
    show();
  };
  const form = h(
    "form",
    { class: "sign-in", onsubmit: signIn },
    h("h1", {}, t("signIn")),
    h("p", {}, t("signInHelp")),
    problem && h("p", { class: "problem", role: "alert" }, problem),
    h("label", {}, t("apiKey"), input),
    h("button", { type: "submit", class: "primary" }, t("signIn")),
  );
  main.replaceChildren(form);
  input.focus();
}
